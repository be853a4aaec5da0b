"""Which head of each line goes into the union: the newest one whose definition agrees."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from instep.model.definition import Definition
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.replication.union import UnionPart


class KnownHead(NamedTuple):
    """The newest head of a line whose pages are here, with the digest of its definition."""

    origin: NodeName
    head: HeadRef
    definition: Digest


class ChosenParts(NamedTuple):
    """The parts of the next union, and the origins of lines that are held back because their definition differs."""

    parts: tuple[UnionPart, ...]
    differing: tuple[NodeName, ...]


def choose_parts(
    known: Iterable[KnownHead], definition: Digest, before: Iterable[UnionPart] = ()
) -> ChosenParts:
    """Take each line's newest head if its definition is this one. Any other line stays where the union before had it: a
    path leaves a tree only by a head of its own line, so a line that is not known any more stays, too."""
    chosen = {part.origin: part for part in before}
    differing = []
    for each in known:
        part = chosen.get(each.origin)
        if part is not None and part.head.position >= each.head.position:
            continue
        if each.definition == definition:
            chosen[each.origin] = UnionPart(each.origin, each.head)
        else:
            differing.append(each.origin)
    return ChosenParts(tuple(chosen[origin] for origin in sorted(chosen)), tuple(sorted(differing)))


def differing_keys(one: Definition, other: Definition) -> tuple[str, ...]:
    """The keys of two definitions that differ, as operators write them."""
    names = {"fileset_class": "class"}
    return tuple(
        names.get(key, key)
        for key in (field.name for field in msgspec.structs.fields(Definition))
        if getattr(one, key) != getattr(other, key)
    )
