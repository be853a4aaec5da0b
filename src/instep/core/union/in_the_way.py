"""Unpublished files of this node in the way of another home's: those are withheld until the own ones are published.

A switch would take the place of a file that no line has yet. Once it is published, the two collide by name, and both
are shown. Implements "A name that is taken here" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

from collections.abc import Iterator

from instep.core.union.lines import KnownLines
from instep.core.union.ownership import Ownership
from instep.model.ids import NodeName
from instep.model.manifest.entry import Entry, Kind, has_same_contents
from instep.model.replication.union import Withheld


def is_own_place(path: bytes, own: NodeName, laid: Ownership) -> bool:
    """Whether what lies at ``path`` beside the union is this node's own: no other line has the path."""
    return all(source.origin == own for source in laid.of(path))


def is_same_object(found: Entry | None, wanted: Entry) -> bool:
    """Whether the file that lies there is the wanted one already, but for its mode and times."""
    return found is not None and has_same_contents(found, wanted)


def withheld_at(
    path: bytes, own: NodeName, target: Ownership, target_lines: KnownLines, laid_lines: KnownLines
) -> Iterator[Withheld]:
    """The entries of other lines that ``target`` would show at ``path``: of a directory also everything below it, which
    needs it."""
    for source in target.of(path):
        if source.origin == own:
            continue
        line, before = target_lines.by_origin[source.origin], laid_lines.by_origin.get(source.origin)
        for entry in line.within(source.path):
            kept = before.lookup(entry.path) if before is not None else None
            is_kept = kept is not None and kept.kind is not Kind.DIR
            yield Withheld(source.origin, entry, kept if is_kept else None)
