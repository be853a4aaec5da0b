"""The events of a watcher: which paths were touched, that some were missed, that the root is gone.

A watcher may report too much, never too little: a directory that appeared is reported as a whole tree *after* it is
watched, and lost events are reported as ``Overflow`` once everything is watched again. An event is a reason to look,
not a fact. Ignored paths and the control folder are not reported.
"""

from __future__ import annotations

import os
from typing import Literal, NamedTuple, TypeAlias

from instep.tree.root.beneath import Root
from instep.tree.root.marker import CONTROL_NAME

_WRITTEN_MAX = 10_000
"""Beyond so many, the watch forgets: it is asked only where the kernel cannot say which programs have a file open."""


class Touched(NamedTuple):
    """Look at ``path``: alone (``entry``), or with everything below it (``tree``)."""

    path: bytes
    kind: Literal["entry", "tree"]


class Overflow(NamedTuple):
    """The kernel dropped events: look at everything below ``path`` (at all, for ``b""``)."""

    path: bytes


class Gone(NamedTuple):
    """The root was removed, renamed or unmounted; the watcher is of no more use."""

    why: str


WatchEvent = Touched | Overflow | Gone
Identity: TypeAlias = tuple[int, int]
"""Device and inode of a directory."""


def identity_of(root: Root) -> Identity:
    """Whether an open root is still the one that was watched first."""
    found = os.fstat(root.fd)
    return found.st_dev, found.st_ino


def is_reserved(path: bytes) -> bool:
    """Whether the first component belongs to instep, in any case."""
    return path[: len(CONTROL_NAME)].lower() == CONTROL_NAME


class Written(set[bytes]):
    """Paths that were written and not closed since. A hint: a second writer, or a write through a mapping, does not
    show in it."""

    def saw(self, path: bytes, *, is_write: bool) -> None:
        """Take in one event of a file: that it was written, or that it was closed, moved or removed."""
        if not is_write:
            self.discard(path)
        elif len(self) < _WRITTEN_MAX:
            self.add(path)
