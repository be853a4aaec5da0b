"""Which rights this daemon has, which its filesets need, and the row of ``check`` about the
difference. Few rights are a second wall: the kernel bounds the harm of the daemon's mistakes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import instep
from instep.model.definition import Preserve
from instep.node.config.filesets import FilesetSettings
from instep.tree.objects.owners import OwnerRules
from instep.tree.scan.rules import is_lost_and_found
from instep.tree.scan.touched import is_reserved

CAPABILITIES: Mapping[str, int] = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_DAC_READ_SEARCH": 2,
    "CAP_FOWNER": 3,
    "CAP_FSETID": 4,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_SYS_ADMIN": 21,
    "CAP_SETFCAP": 31,
}
"""The capabilities that a fileset can need; each would let a mistake of the daemon do much harm."""
LOOKED_AT_MAX = 2_000
"""So many objects of a tree are looked at to see to which users it belongs."""
RIGHTS = Path(instep.__file__).parent / "daemon/units/rights"
"""Drop-ins of the unit, one for each reason to have rights; installed with the program."""
UNIT_HINT = f"drop-ins lie in {RIGHTS}; see the guide's page Owners and rights"


@dataclass(slots=True)
class Need:
    """The rights that one fileset needs, and why: capability to reason. ``owners`` are the users of its tree."""

    owners: frozenset[int]
    capabilities: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RightsRow:
    is_ok: bool
    ours: str
    theirs: str
    hint: str | None


def rights_of_process() -> frozenset[str]:
    """The effective capabilities among ``CAPABILITIES``."""
    with open("/proc/self/status", encoding="ascii", errors="replace") as lines:
        bits = next((int(line.split()[1], 16) for line in lines if line.startswith("CapEff:")), 0)
    return frozenset(name for name, bit in CAPABILITIES.items() if bits >> bit & 1)


GIVING = ("CAP_CHOWN", "CAP_FOWNER", "CAP_DAC_OVERRIDE")
"""What it takes to give files to other users, and to change them afterwards."""


@functools.cache
def may_give_away() -> bool:
    """Whether this process may give files to other users."""
    return rights_of_process().issuperset(GIVING)


def need_of(
    fileset: FilesetSettings,
    uid: int,
    *,
    is_followed: bool,
    keeps: Iterable[Preserve],
    allowed: frozenset[str],
) -> Need:
    """The rights that a daemon of user ``uid`` needs for ``fileset``. ``keeps`` are the definition's ``preserve``,
    ``allowed`` the words of ``allow_preserve``. Looks at a part of the tree."""
    need = Need(owners_in(fileset.path))
    name, wanted = fileset.name, need.capabilities
    others = sorted(need.owners - {uid})
    if others and is_followed:
        why = f"{name} holds files of uid {', '.join(map(str, others[:3]))}"
        wanted |= {"CAP_DAC_OVERRIDE": why, "CAP_FOWNER": why}
    elif others and uid != 0 and not os.access(fileset.path, os.R_OK | os.X_OK):
        wanted["CAP_DAC_READ_SEARCH"] = f"{name} must be read, and belongs to uid {others[0]}"
    rules = OwnerRules.of(fileset.owners)
    if is_followed and (rules.everything or (Preserve.OWNER in keeps and (rules or "owner" in allowed))):
        wanted |= dict.fromkeys(GIVING, f"{name} keeps owners")
    if is_followed and "setuid" in allowed:
        wanted["CAP_FSETID"] = 'allow_preserve has "setuid"'
    if is_followed and "security" in allowed:
        why = 'allow_preserve has "security"'
        wanted |= {"CAP_SETFCAP": why, "CAP_SYS_ADMIN": why}
    slots = (getattr(fileset.hooks, slot.name) for slot in dataclasses.fields(fileset.hooks))
    for user in dict.fromkeys(hook.user for slot in slots for hook in slot):
        if user is not None:
            why = f"a hook of {name} runs as {user}"
            wanted |= {"CAP_SETUID": why, "CAP_SETGID": why, "CAP_KILL": why}
    return need


def owners_in(root: Path) -> frozenset[int]:
    """The users that own the root and the first objects below it."""
    found = {one.st_uid for one in objects_in(root)}
    with contextlib.suppress(OSError):
        found.add(os.stat(root, follow_symlinks=False).st_uid)
    return frozenset(found)


def objects_in(root: Path) -> Iterator[os.stat_result]:
    """The first objects below the root, as far as they can be seen."""
    pending, left = [os.fsencode(root)], LOOKED_AT_MAX
    while pending and left > 0:
        with contextlib.suppress(OSError), os.scandir(pending.pop()) as listing:
            for entry in listing:
                if is_reserved(entry.name):
                    continue
                left -= 1
                if left <= 0:
                    break
                with contextlib.suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    if is_lost_and_found(entry.name, status):
                        continue
                    yield status
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)


def rights_row(uid: int, has: frozenset[str], needs: Iterable[Need]) -> RightsRow:
    """A missing right fails the check; a superfluous one is named."""
    needs = list(needs)
    wanted: dict[str, str] = {}
    for need in needs:
        wanted |= {name: why for name, why in need.capabilities.items() if name not in wanted}
    ours = f"uid {uid} with {_listed(has)}"
    missing = [name for name in CAPABILITIES if name in wanted and name not in has]
    if missing:
        why = "; ".join(dict.fromkeys(wanted[name] for name in missing))
        unit = " ".join(sorted(wanted))
        hint = f"in a drop-in of the unit: AmbientCapabilities={unit} and CapabilityBoundingSet={unit}; {UNIT_HINT}"
        return RightsRow(False, ours, f"needs {_listed(missing)}: {why}", hint)
    owners = frozenset().union(*(need.owners for need in needs)) if needs else frozenset()
    extra = [name for name in CAPABILITIES if name in has and name not in wanted]
    if (
        uid == 0
        and len(owners) == 1
        and 0 not in owners
        and not wanted.keys() - {"CAP_DAC_OVERRIDE", "CAP_FOWNER"}
    ):
        only = next(iter(owners))
        text = f"more than it needs: all files belong to uid {only}, whose daemon would need no rights at all"
        return RightsRow(True, ours, f"{text}; {UNIT_HINT}", None)
    if extra and needs:
        return RightsRow(True, ours, f"more than it needs, {_listed(wanted)}; {UNIT_HINT}", None)
    return RightsRow(True, ours, "what it needs", None)


PROTECTED_HARDLINKS = Path("/proc/sys/fs/protected_hardlinks")


def hardlinks_row(uid: int, needs: Iterable[Need], file: Path = PROTECTED_HARDLINKS) -> RightsRow:
    """Whether users can put links to files that are not theirs where this daemon changes trees. ``file`` is where the
    kernel says so; one that has no such file is not blamed."""
    try:
        setting: str | None = file.read_text("ascii").strip()
    except (OSError, ValueError):
        setting = None
    others = sorted(frozenset().union(*(need.owners for need in needs)) - {uid})
    ours = f"fs.protected_hardlinks = {setting or 'not known'}"
    if setting != "0" or not others:
        return RightsRow(True, ours, "1 where a tree belongs to another user", None)
    whose = f"uid {', '.join(map(str, others[:3]))}"
    return RightsRow(
        False,
        ours,
        f"1, for {whose} owns files of a served tree and may link files of others into it",
        "sysctl -w fs.protected_hardlinks=1, and the same line in /etc/sysctl.d/",
    )


def _listed(names: Iterable[str]) -> str:
    found = sorted(names, key=lambda name: CAPABILITIES[name])
    return ", ".join(found) if found else "no capabilities"
