"""The definition that a stored generation names."""

from __future__ import annotations

from instep.model.definition import Definition, decode_definition
from instep.model.ids import HeadRef
from instep.store.port import NodeStore


def definition_of(store: NodeStore, head: HeadRef | None) -> Definition | None:
    """The definition of a generation; None where the generation or its definition is not here."""
    signed = store.generation(head.id) if head is not None else None
    raw = store.get_blob(signed.body().definition) if signed is not None else None
    return decode_definition(raw) if raw is not None else None
