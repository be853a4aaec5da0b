"""The lines that own a path of the union. No table says it: it is looked up in the lines and the collisions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from instep.core.union.lines import KnownLines
from instep.core.union.merge import moved
from instep.model.ids import NodeName
from instep.model.limits import PATH_MAX
from instep.model.manifest.entry import Entry
from instep.model.paths import is_below
from instep.model.replication.union import Collision


class PathOfLine(NamedTuple):
    """One path as one line has it."""

    origin: NodeName
    path: bytes
    entry: Entry


class Ownership:
    """The way from a shown path to the lines that have it, and back."""

    def __init__(self, lines: KnownLines, collisions: Sequence[Collision]) -> None:
        self._lines = lines
        self._lost = {(each.component, each.origin): each for each in collisions}
        self._shown = {each.shown: each for each in collisions}

    def of(self, path: bytes) -> tuple[PathOfLine, ...]:
        """The lines that have what the union shows at ``path``, in the order of origins: one for a file or symlink, one
        or more for a directory, none where nothing is shown."""
        collision = self.renamed(path)
        if collision is not None:
            line = self._lines.by_origin[collision.origin]
            source = moved(path, collision.shown, collision.component)
            entry = line.lookup(source)
            return () if entry is None or len(path) > PATH_MAX else (PathOfLine(line.origin, source, entry),)
        return tuple(
            PathOfLine(line.origin, path, entry)
            for line, entry in self._lines.at(path)
            if self._loss(line.origin, path) is None
        )

    def shown(self, origin: NodeName, path: bytes) -> bytes:
        """Where the union shows what the line of ``origin`` has at ``path``."""
        collision = self._loss(origin, path)
        return path if collision is None else moved(path, collision.component, collision.shown)

    def renamed(self, path: bytes) -> Collision | None:
        """The loser under whose new name ``path`` is shown; None for a path that is shown as it is in its line."""
        return next((self._shown[each] for each in from_top(path) if each in self._shown), None)

    def _loss(self, origin: NodeName, path: bytes) -> Collision | None:
        return next(
            (self._lost[each, origin] for each in from_top(path) if (each, origin) in self._lost), None
        )


def from_top(path: bytes) -> Iterator[bytes]:
    """The path and the directories above it, the outermost first."""
    at = path.find(b"/")
    while at >= 0:
        yield path[:at]
        at = path.find(b"/", at + 1)
    yield path


def is_within(path: bytes, other: bytes) -> bool:
    """Whether ``path`` is ``other`` or lies below it."""
    return path == other or is_below(path, other)
