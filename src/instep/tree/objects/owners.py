"""Users and groups by name: what a manifest calls them, and which accounts of this machine stand for them.

A manifest comes from another machine. By the rule ``by_name`` it gives files to accounts that are known here, and never
to root or root's group: only this node's own ``allow_preserve`` or mapping can do that.
"""

from __future__ import annotations

import grp
import os
import pwd
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from instep.errors import ResourceError

BY_NAME = "by_name"
UNKNOWN_MAX = 100
_NO_ID = 2**32 - 1
"""``chown`` leaves an owner as it is for this number, so no account has it."""
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,254}\$?"
_ALL = re.compile(f"({_NAME})(?::({_NAME}))?")
_NUMBERS = re.compile(r"(?<![^:=])[0-9]{1,255}(?![^:=])")
_PAIR = re.compile(f"(:?)({_NAME})=(:?)({_NAME})")
_ACCOUNTS: dict[str, tuple[Callable[[int], str], Callable[[str], int], Callable[[], int]]] = {
    "user": (lambda uid: pwd.getpwuid(uid).pw_name, lambda name: pwd.getpwnam(name).pw_uid, os.geteuid),
    "group": (lambda gid: grp.getgrgid(gid).gr_name, lambda name: grp.getgrnam(name).gr_gid, os.getegid),
}


@dataclass(frozen=True, slots=True)
class OwnerRules:
    """The key ``owners`` of a fileset: nothing, ``by_name``, pairs such as ``tomcat=tomcat9`` and ``:staff=:users``
    (by name, but for these), or the ``USER`` or ``USER:GROUP`` that everything belongs to."""

    is_by_name: bool = False
    everything: tuple[str, str | None] | None = None
    users: tuple[tuple[str, str], ...] = ()
    groups: tuple[tuple[str, str], ...] = ()

    def __bool__(self) -> bool:
        return self.is_by_name or self.everything is not None

    @classmethod
    def of(cls, words: Iterable[str]) -> OwnerRules:
        """``ValueError`` with the word that cannot be used."""
        words = tuple(words)
        users: list[tuple[str, str]] = []
        groups: list[tuple[str, str]] = []
        for word in words:
            pair, alone = _PAIR.fullmatch(word), _ALL.fullmatch(word)
            if any(int(number) >= _NO_ID for number in _NUMBERS.findall(word)):
                raise ValueError(word)
            if pair is not None and pair[1] == pair[3]:
                (groups if pair[1] else users).append((pair[2], pair[4]))
            elif word != BY_NAME:
                if alone is None or len(words) > 1:
                    raise ValueError(word)
                return cls(everything=(alone[1], alone[2]))
        return cls(bool(words), None, tuple(users), tuple(groups))


class Owners:
    """Names of users and groups here; a number stands for itself.

    ``users`` and ``groups`` of the rules map the names in a manifest to names of this machine. ``is_careful``: names of
    the manifest that are not mapped are looked up here, and a name that is not known, or is root's, stands for the
    daemon's own account; it is added to ``unknown``.
    """

    def __init__(
        self,
        rules: OwnerRules = OwnerRules(),
        *,
        is_careful: bool = False,
        unknown: dict[str, None] | None = None,
    ) -> None:
        self.rules = rules
        self._is_careful = is_careful
        self._unknown = {} if unknown is None else unknown
        self._mapped: Mapping[str, Mapping[str, str]] = {
            "user": dict(rules.users),
            "group": dict(rules.groups),
        }
        self._names: dict[tuple[str, int], str] = {}
        self._ids: dict[tuple[str, str], int] = {}
        self._careful_ids: dict[tuple[str, str], int] = {}

    def refresh(self) -> None:
        """Forget looked-up names, at the start of a scan: accounts come and go."""
        self._names.clear()
        self._ids.clear()
        self._careful_ids.clear()

    def user_of(self, uid: int) -> str:
        return self._name_of("user", uid)

    def group_of(self, gid: int) -> str:
        return self._name_of("group", gid)

    def local_user(self, name: str) -> str:
        """The user of this machine for a user of a manifest; ``ResourceError`` ``unknown_owner`` when there is none."""
        everything = self.rules.everything
        if everything is not None:
            return self.user_of(self.id_here("user", everything[0]))
        return self.user_of(self._id_of("user", name))

    def local_group(self, name: str) -> str:
        everything = self.rules.everything
        if everything is None:
            return self.group_of(self._id_of("group", name))
        user, group = everything
        if group is not None:
            return self.group_of(self.id_here("group", group))
        return self.group_of(_primary_group(self.id_here("user", user)))

    def id_here(self, what: str, name: str) -> int:
        """The number of a user or group of this machine, by its name or as a number."""
        number = self._ids.get((what, name))
        if number is None:
            found = number_of(what, name)
            number = self._ids[what, name] = _number(name, what) if found is None else found
        return number

    def _name_of(self, what: str, number: int) -> str:
        name = self._names.get((what, number))
        if name is None:
            try:
                name = _ACCOUNTS[what][0](number)
            except KeyError:
                name = str(number)
            self._names[what, number] = name
        return name

    def _id_of(self, what: str, name: str) -> int:
        local = self._mapped[what].get(name)
        if local is not None or not self._is_careful:
            return self.id_here(what, local or name)
        known = self._careful_ids.get((what, name))
        if known is None:
            known = self._careful_ids[what, name] = self._carefully(what, name)
        return known

    def _carefully(self, what: str, name: str) -> int:
        number, own = number_of(what, name), _ACCOUNTS[what][2]()
        if number:
            return number
        if number != own and len(self._unknown) < UNKNOWN_MAX:
            self._unknown[f"{what} {name}"] = None
        return own


def number_of(what: str, name: str) -> int | None:
    """The number of the ``user`` or ``group`` of this name; None where this machine has none."""
    try:
        return _ACCOUNTS[what][1](name)
    except KeyError:
        return None


def _primary_group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return uid


def _number(name: str, what: str) -> int:
    if name.isascii() and name.isdigit() and int(name) < _NO_ID:
        return int(name)
    raise ResourceError(
        f"there is no {what} {name!r} on this machine",
        hint=f"create the {what} on this machine, or name another in the setting owners of the fileset",
        code="unknown_owner",
        owner=name,
    )
