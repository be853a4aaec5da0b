"""The partner lists of all nodes that this one has heard of, its own among them: the topology that ``explain`` shows.

A node sends its rows with its own member record. They are shown and explained, and open nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from instep.core.reach import PartnerRows
from instep.model.ids import NodeName
from instep.model.link import Link
from instep.net.messages import messages as m
from instep.node.config.settings import Settings


def own_rows(settings: Settings) -> m.Rows:
    """This node's rows as its file has them, contradictions too."""
    rows = ((name, partner.row) for name, partner in sorted(settings.partners.items()))
    return tuple(rows)[: m.ROWS_MAX]


def dialled_as(settings: Settings) -> set[tuple[NodeName, bool, int | None]]:
    """What a new link to a partner begins with: whether its introductions are believed, and how often it is asked."""
    return {(name, each.introduces, each.poll_ms) for name, each in settings.partners.items()}


def rows_of_topology(settings: Settings, members: Mapping[NodeName, m.Member]) -> PartnerRows:
    """The rows of every node that rows lead to from here, in either direction. A node that has told none is there
    with None."""
    told: dict[NodeName, Mapping[NodeName, Link]] = {
        name: dict(member.rows) for name, member in members.items() if member.rows is not None
    }
    told[settings.name] = dict(own_rows(settings))
    found: dict[NodeName, Mapping[NodeName, Link] | None] = {}
    waiting = [settings.name]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found[name] = told.get(name)
            waiting += told.get(name, ())
            waiting += (other for other, rows in told.items() if name in rows)
    return found
