"""The owners of a tree's files, here and where it is followed: sentences for ``add``, ``accept``, ``check`` and
``status``. A file of mode 0640 that arrives as root's is unreadable for the application that it is for."""

from __future__ import annotations

import os
import pwd
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from instep.model.definition import Definition, Preserve
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.daemon_rights import UNIT_HINT, may_give_away, objects_in
from instep.tree.objects.owners import OwnerRules, Owners, number_of

NAMED_MAX = 3


class OwnerTrouble(NamedTuple):
    """What becomes of owners, and the way to have it otherwise."""

    words: str
    hint: str

    def __str__(self) -> str:
        return f"{self.words}; next: {self.hint}"


class Foreign(NamedTuple):
    """Owners of a tree besides the daemon's own account, as ``user:group``; whether others may not read such files."""

    names: tuple[str, ...] = ()
    is_closed: bool = False

    def __str__(self) -> str:
        return ", ".join(self.names[:NAMED_MAX]) + (", ..." if len(self.names) > NAMED_MAX else "")


def foreign_in(root: Path, uid: int) -> Foreign:
    """The owners in the tree of a daemon that runs as ``uid``. Looks at a part of the tree."""
    own, owners = (uid, primary_group(uid)), Owners()
    found: dict[str, None] = {}
    is_closed = False
    for one in objects_in(root):
        if (one.st_uid, one.st_gid) == own or stat.S_ISLNK(one.st_mode):
            continue
        found[f"{owners.user_of(one.st_uid)}:{owners.group_of(one.st_gid)}"] = None
        needed = 0o005 if stat.S_ISDIR(one.st_mode) else 0o004
        is_closed = is_closed or one.st_mode & needed != needed
    return Foreign(tuple(sorted(found)), is_closed)


def primary_group(uid: int) -> int:
    try:
        return pwd.getpwuid(uid).pw_gid
    except KeyError:
        return os.getegid()


def of_written(fileset: FilesetSettings, foreign: Foreign) -> OwnerTrouble | None:
    """The warning for a tree that is written here: its owners do not travel."""
    definition = fileset.definition or Definition()
    name, kept = fileset.name, [each.value for each in definition.preserve]
    if not foreign.names or Preserve.OWNER.value in kept:
        return None
    carry = f"instep fileset set {name} preserve={','.join(('owner', *kept))}"
    leave = (
        "" if fileset.has_preserve else f"; or, to leave them behind: instep fileset set {name} 'preserve=[]'"
    )
    return OwnerTrouble(
        f"files of {name} belong to {foreign}, and owners are not carried: elsewhere they belong to the daemon's user",
        carry + leave,
    )


def is_news(fileset: FilesetSettings, foreign: Foreign) -> bool:
    """Whether ``status`` warns of owners that do not travel: not where ``preserve`` was chosen without them, unless
    others may not read the files."""
    return foreign.is_closed or not fileset.has_preserve


def of_followed(
    fileset: FilesetSettings,
    preserve: Iterable[Preserve],
    allowed: frozenset[str],
    unknown: Iterable[str] = (),
) -> OwnerTrouble | None:
    """The warning for a tree that is followed here: the owners that it should have are not set. ``unknown`` are
    accounts of its manifests, as ``user tomcat``."""
    rules, name = OwnerRules.of(fileset.owners), fileset.name
    if Preserve.OWNER.value in fileset.without or not (rules.everything or Preserve.OWNER in preserve):
        return None
    me = Owners().user_of(os.geteuid())
    if not rules and "owner" not in allowed:
        return OwnerTrouble(
            f"the writer's owners of {name} are not set here, all files belong to {me}",
            f"instep fileset set {name} owners=by_name",
        )
    if not may_give_away():
        if rules.everything is not None and number_of("user", rules.everything[0]) == os.geteuid():
            return None
        return OwnerTrouble(
            f"owners of {name} cannot be set, all files belong to {me}: its daemon may not give files away",
            f"let it, by trees-of-several-users.conf; {UNIT_HINT}",
        )
    mapped = {f"user {theirs}" for theirs, _ in rules.users} | {
        f"group {theirs}" for theirs, _ in rules.groups
    }
    left = [each for each in unknown if each not in mapped and not number_of(*each.split(" ", 1))]
    if not left or rules.everything is not None:
        return None
    what, first = left[0].split(" ", 1)
    colon = ":" if what == "group" else ""
    return OwnerTrouble(
        f"{', '.join(left[:NAMED_MAX])} of {name} may not be used or are not known here, such files belong to {me}",
        f"make them here, or name the account to take: instep fileset set {name} owners={colon}{first}={colon}NAME",
    )
