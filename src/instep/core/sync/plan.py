"""The plan of a sync run: each path that differs, with what both sides have and get, and the paths to look at."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from instep.core.sync.table import GateRow, Listing, Side
from instep.model.manifest.entry import Entry, same_but_for_times_of_directories


@dataclass(frozen=True, slots=True)
class SyncStep:
    """One path. ``left`` and ``right`` are what the plan saw, ``to_left`` and ``to_right`` what is wanted there,
    ``base`` is what both had of it before, ``base_after`` what they have of it after the run."""

    path: bytes
    left: Entry | None
    right: Entry | None
    to_left: Entry | None
    to_right: Entry | None
    base: Entry | None
    base_after: Entry | None
    is_merged: bool = False
    """Both sides get a file that has the changes of both."""

    @property
    def changes_left(self) -> bool:
        return not same(self.left, self.to_left)

    @property
    def changes_right(self) -> bool:
        return not same(self.right, self.to_right)

    @property
    def changes_base(self) -> bool:
        return self.base != self.base_after


@dataclass(frozen=True, slots=True)
class Listed:
    """A path that people should look at. ``loser``: whose bytes were renamed to ``copy``, or archived."""

    path: bytes
    why: Listing
    loser: Side | None = None
    copy: bytes | None = None
    renamed_to: bytes | None = None
    """Where the side that removed it seems to have moved it: it added the same bytes there."""
    reason: str = ""
    """Why files that were to be merged were not."""


class LeftOut(NamedTuple):
    """A path that one home ignores and the other side has, or lost: both sides keep what they have of it."""

    path: bytes
    by: Side
    """The side whose home ignores it."""


@dataclass(frozen=True, slots=True)
class SyncPlan:
    """All that differs, in the order of paths."""

    steps: tuple[SyncStep, ...] = ()
    listed: tuple[Listed, ...] = ()
    gates: tuple[GateRow, ...] = ()
    """The gates that do not hold for these steps, added by the node that asked the servers."""
    left_out: tuple[LeftOut, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether neither tree changes; the base may."""
        return not any(step.changes_left or step.changes_right for step in self.steps)


def same(a: Entry | None, b: Entry | None) -> bool:
    """Whether two entries of one path are alike: births and times of directories never count."""
    if a is None or b is None:
        return a is b
    return same_but_for_times_of_directories(a, b)
