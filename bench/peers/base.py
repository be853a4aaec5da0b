"""What the bench asks of a tool.

A *peer* is a tool; a *session* is the tool set up between one source and its targets. What each method has in
its clock is said here, once, for all tools; a session that differs says so in its own docstring.
"""

from __future__ import annotations

import enum
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bench.arena import Field
from bench.cage import Cage

__all__ = ["Can", "Handle", "Landed", "Peer", "Session", "Setting", "first_line"]

Landed = Callable[[Path], bool]
"""A cheap test whether the newest edit can be seen in a target; for tools that do not say when they are done."""


class Can(enum.Enum):
    """What a tool can be asked to do."""

    FIRST = "copy a tree to an empty place"
    CHANGE = "carry an edit"
    UNCHANGED = "find that nothing changed"
    LATENCY = "show one write at the other end"
    FOUR = "serve four targets"
    MILLION = "live with a million files"
    BOTH = "bring together two trees that were both changed"
    CATCH_UP = "bring a target forward that was away"
    LOCK = "change a file under a lock at the other end"


@dataclass(frozen=True)
class Setting:
    """Everything that a session needs to set itself up."""

    field: Field
    cage: Cage
    scratch: Path  # logs, configuration and keys; not on the measured file systems
    settle: str | None  # instep's settle for rows that watch; None: carry when told to
    within_s: float  # deadline of each single step
    is_two_way: bool = False  # both sides are edited
    warm_bytes: int = 0  # memory that is touched and freed before each clock starts


@dataclass
class Handle:
    """Something that was started by :meth:`Session.nudge`; ``finish`` waits for its end."""

    finish: Callable[[], None]


class Session(ABC):
    """A tool between one source and its targets."""

    watches: ClassVar[bool] = False
    """It acts by itself when the source changes, so nothing may come between an edit and the clock's start."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.cage = setting.cage
        self.field = setting.field
        self.source = setting.field.source
        self.targets = setting.field.targets

    @property
    def within_s(self) -> float:
        return self.setting.within_s

    def prepare(self) -> None:
        """Start daemons and connect them while all trees are empty. Never timed."""

    @abstractmethod
    def first(self) -> None:
        """Carry the source to every (empty) target; return when the tool says that it is done. Timed."""

    def change(self, landed: Landed) -> None:
        """Carry what was edited since the last step. Timed from the end of the edit."""
        self.first()

    adopts: ClassVar[bool] = True
    """Equal trees on both sides can be handed to it (``adopt``); otherwise it copies them itself."""

    def adopt(self) -> None:
        """Learn, untimed, that source and targets are equal already."""

    def unchanged(self) -> None:
        """Look at every file's stat on both sides and find nothing to do. Timed."""
        raise NotImplementedError

    def both(self) -> None:
        """Bring together what was edited on both sides since ``adopt``. Timed from the end of the edits."""
        raise NotImplementedError

    def cut_off(self) -> None:
        """End what runs at the target, untimed. Tools without a daemon there have nothing to end."""

    def noticed(self) -> None:
        """Let the source's side take in what was edited while the target was away, untimed."""

    def catch_up(self) -> None:
        """Start again what ``cut_off`` ended and bring the target forward. Timed."""
        self.first()

    def locked_edit(self, path: str, body: bytes) -> None:
        """At the target: lock the file, write it, hand it in and end the lock. Timed until the source shows it."""
        raise NotImplementedError

    def nudge(self) -> Handle | None:
        """Called right after a single write: by-hand tools start their command, watchers return None."""
        return None

    def facts(self) -> dict[str, float]:
        """Further numbers that this tool can report about the last step."""
        return {}


class Peer(ABC):
    """A tool that may or may not be installed."""

    name: ClassVar[str]
    title: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]
    can: ClassVar[frozenset[Can]]
    is_slow: ClassVar[bool] = False
    is_floor: ClassVar[bool] = False
    clock: ClassVar[str]
    """One sentence for the results: what its clock holds."""

    def missing(self) -> str | None:
        """Why it cannot be measured here, or None."""
        absent = [need for need in self.needs if shutil.which(need) is None]
        return f"not installed: {', '.join(absent)}" if absent else None

    @abstractmethod
    def version(self) -> str: ...

    @abstractmethod
    def open(self, setting: Setting) -> Session: ...


def first_line(*argv: str) -> str:
    """The first line that a ``--version`` prints, wherever it prints it."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)
    lines = (done.stdout + done.stderr).strip().splitlines()
    return lines[0].strip() if lines else "?"
