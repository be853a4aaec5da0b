"""The names that losers of other homes have in a tree, when the own line lets go of what they had lost against.

A commit of the own line makes no switch: the tree has its contents already. It has a loser under its other name still,
though, also when nothing stands against the first one any more.
"""

from __future__ import annotations

from collections.abc import Iterable

from instep.core.union.unite import United
from instep.model.ids import NodeName
from instep.model.replication.union import Collision, KeptName


def kept_names(
    laid: United, moved: United, own: NodeName, before: Iterable[KeptName]
) -> tuple[KeptName, ...]:
    """The names that a tree keeps in which ``laid`` lies, of other homes than ``own``, while the lines make ``moved``.
    ``before`` are those that it keeps already. The union with these may move others, so it is asked for again until
    there are no more."""
    names = {*before, *map(name_of, moved.collisions)}
    gone = (each for each in map(name_of, laid.collisions) if each.origin != own and each not in names)
    return (*before, *gone)


def name_of(collision: Collision) -> KeptName:
    return KeptName(collision.origin, collision.component, collision.shown)
