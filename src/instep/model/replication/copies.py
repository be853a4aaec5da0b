"""Copies wanted at other nodes: a rule of a fileset's home about some of its documents. A check, it moves nothing."""

from __future__ import annotations

from dataclasses import dataclass

from instep.model.ids import NodeName

RULES_MAX = 64
WANTED_MAX = 1_000


@dataclass(frozen=True, slots=True)
class CopiesRule:
    """``paths`` are gitignore patterns. ``wanted`` copies are on nodes beside the home; a copy on a node of ``block``
    is none. Each node of ``prefer`` has to have every document."""

    paths: tuple[str, ...]
    wanted: int
    prefer: tuple[NodeName, ...] = ()
    block: tuple[NodeName, ...] = ()

    def __str__(self) -> str:
        return ", ".join(self.paths)
