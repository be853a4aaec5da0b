"""Single paths that a scan could not carry: which of them are held at their last entry, and why.

A **held** path keeps the entry that it had in the newest generation, or stays out when it never had one; the rest of
the tree is published. A **reported** path is of a kind that is never carried, and had no entry. Implements P10.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.model.paths import is_below, shown

HELD_LISTED_MAX = 1_000
"""So many held paths are known one by one and looked at again by each scan; of the others only the number is known,
and full scans find what became of them."""

HELD_LOOK_MS = 5_000
"""So soon after a scan held paths are looked at again: no event says that a mount is gone."""

DAMAGED = "damaged"
OPEN = "open"
"""A file that was carried although a program has it open for writing: it did not change for ``settle_max``."""
IGNORED_INSIDE = "ignored_inside"
MOVED_ON = "moved_on"
"""Why a restore left a path other than its generation says: ignored paths lie in it, or a program changed it."""
_NEVER_CARRIED = frozenset(("mount", "socket", "pipe", "device", OPEN))


class ScanProblem(msgspec.Struct, frozen=True, array_like=True):
    """A path that a scan could not carry; ``what`` as ``tree.scan.Problem`` says.

    ``entries`` and ``size_bytes`` count what its last entry keeps: itself and all below it; nothing when the path was
    never published."""

    path: bytes
    what: str
    detail: str = ""
    entries: int = 0
    size_bytes: int = 0


class HeldPaths(msgspec.Struct, frozen=True, array_like=True):
    """All paths that are held: the first ``HELD_LISTED_MAX`` by name, and the sums over all of them."""

    listed: tuple[ScanProblem, ...] = ()
    total: int = 0
    entries: int = 0
    size_bytes: int = 0

    @property
    def paths(self) -> tuple[bytes, ...]:
        return tuple(problem.path for problem in self.listed)


NOTHING_HELD = HeldPaths()


def is_held(problem: ScanProblem) -> bool:
    """Whether this path is held. A kind that is never carried is held only where an entry is kept."""
    if problem.what == DAMAGED:
        return False
    return problem.what not in _NEVER_CARRIED or problem.entries > 0


def merge_held(before: HeldPaths, found: HeldPaths, *, is_full: bool) -> HeldPaths:
    """The held paths after a scan. A partial scan looks at every listed path again, and at none of the others."""
    if is_full or before.total == len(before.listed):
        return found
    listed_entries = sum(problem.entries for problem in before.listed)
    listed_bytes = sum(problem.size_bytes for problem in before.listed)
    return HeldPaths(
        found.listed,
        found.total + before.total - len(before.listed),
        found.entries + before.entries - listed_entries,
        found.size_bytes + before.size_bytes - listed_bytes,
    )


def not_held(fileset: str, paths: Sequence[bytes], held: HeldPaths) -> Trouble | None:
    """Why the last entries of these paths cannot be let go, or None: each must be held, and have one."""
    known = {problem.path: problem for problem in held.listed}
    for path in paths:
        problem = known.get(path)
        if problem is not None and problem.entries:
            continue
        above = next((p for p in held.listed if is_below(path, p.path)), None)
        why = "is not held" if problem is None else "is held and was never published: it has no last entry"
        reason = f"{shown(path)} {why}"
        if above is not None:
            reason += f"; {shown(above.path)} above it is"
        hint = f"see what is held: instep status {fileset}"
        return Trouble("not_held", reason, Retry.NEVER, 4, hint, (("path", shown(path)),))
    return None


_WORDS = {
    "mount": "a mount",
    "pipe": "a named pipe",
    "socket": "a socket",
    "device": "a device",
    "unstable": "being written",
    "open": "open for writing",
    "hot": "changing all the time",
    IGNORED_INSIDE: "left for the ignored paths in it",
    MOVED_ON: "left as a program changed it meanwhile",
    "bad_time": "of an impossible time",
    "too_long": "too long",
    "too_deep": "too deep",
    "too_large": "too large",
    "unfit": "not what an entry can carry",
}


def words_of(problems: Sequence[ScanProblem], total: int, named_max: int = 3) -> str:
    """The problems in one line for people: the first by name, the others by number."""
    named = ", ".join(f"{shown(p.path)} is {_WORDS.get(p.what, p.what)}" for p in problems[:named_max])
    more = total - len(problems[:named_max])
    return f"{named} and {more} more" if more > 0 else named
