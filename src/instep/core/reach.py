"""Where the documents of each home get to, over which hops, and which row stops them: from the partner lists of all
nodes.

A row is the word of one node about one partner (``model/link.py``). Nothing flows between two nodes unless both have a
row of the other; the sender's row says what. A node passes on other nodes' documents over rows with ``hub`` only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import permutations

import msgspec

from instep.model.definition import FilesetClass
from instep.model.ids import NodeName
from instep.model.link import Link

PartnerRows = Mapping[NodeName, Mapping[NodeName, Link]]
"""The rows of each node, by partner."""

ACTS = ("insert", "update", "delete")
"""All three go the same way: a generation says what there is now."""


_CARRIED = tuple(
    (whose, of, own) for whose, own in (("own", True), ("others'", False)) for of in FilesetClass
)


class Reach(msgspec.Struct, frozen=True):
    """Whether ``node`` gets the documents of ``home`` that are of this class. ``via`` are the nodes that they come
    over, the home first; ``why`` says which rows let them pass or stop them."""

    home: NodeName
    node: NodeName
    fileset_class: FilesetClass
    gets: bool
    via: tuple[NodeName, ...]
    why: str


def why_stopped(
    rows: PartnerRows, sender: NodeName, receiver: NodeName, fileset_class: FilesetClass, *, own_line: bool
) -> str | None:
    """Which row stops what ``sender`` has from reaching ``receiver``; None when nothing does."""
    link = rows[sender].get(receiver)
    if link is None:
        return f"{sender} has no row of {receiver}"
    if sender not in rows[receiver]:
        return f"{receiver} has no row of {sender}"
    if link.lets(fileset_class, own_line=own_line):
        return None
    if not link.replicate:
        return f"{sender}'s row of {receiver} has replicate off"
    if fileset_class is FilesetClass.DATA and not link.data:
        return f"{sender}'s row of {receiver} has data off"
    return f"{sender}'s row of {receiver} has hub off"


def reach(rows: PartnerRows, home: NodeName, fileset_class: FilesetClass) -> tuple[Reach, ...]:
    """Where the documents of ``home`` get to, in the order of nodes: by the fewest hops, of several ways the first by
    name. Every node of the topology has an entry in ``rows``, and every row names a node of it."""
    via: dict[NodeName, tuple[NodeName, ...]] = {home: ()}
    newest = [home]
    while newest:
        found: dict[NodeName, tuple[NodeName, ...]] = {}
        for sender in sorted(newest, key=lambda name: (via[name], name)):
            for receiver in sorted(rows[sender]):
                if receiver in via or receiver in found:
                    continue
                if why_stopped(rows, sender, receiver, fileset_class, own_line=sender == home) is None:
                    found[receiver] = (*via[sender], sender)
        via.update(found)
        newest = list(found)
    return tuple(
        Reach(home, node, fileset_class, True, via[node], _passed(via[node], node))
        if node in via
        else Reach(home, node, fileset_class, False, (), _stopped(rows, home, node, fileset_class, list(via)))
        for node in sorted(rows)
        if node != home
    )


def _passed(via: Sequence[NodeName], node: NodeName) -> str:
    hops = [f"{hub}'s row of {then} has hub on" for hub, then in zip(via[1:], (*via[2:], node), strict=False)]
    return "; ".join(hops) or f"{via[0]}'s row of {node}"


def _stopped(
    rows: PartnerRows,
    home: NodeName,
    node: NodeName,
    fileset_class: FilesetClass,
    holders: Sequence[NodeName],
) -> str:
    """Why no node that has the documents sends them. Nodes that have nothing to do with this one are left out, unless
    it is all that there is to say."""
    reasons = []
    for holder in sorted(holders, key=lambda name: (name != home, name)):
        if node in rows[holder] or holder in rows[node]:
            why = why_stopped(rows, holder, node, fileset_class, own_line=holder == home)
            assert why is not None, "it would have reached the node"
            reasons.append(why)
    return "; ".join(reasons) or f"no node that has them has a row of {node}"


def contradictions(rows: PartnerRows) -> Iterator[str]:
    """Rows that say something that means nothing, in words."""
    for node in sorted(rows):
        for partner, link in sorted(rows[node].items()):
            void = [name for name, is_on in (("data", link.data), ("hub", link.hub)) if is_on]
            if void and not link.replicate:
                verb = "means" if len(void) == 1 else "mean"
                yield f"{node}'s row of {partner}: {' and '.join(void)} {verb} nothing while replicate is off"


def reach_table(rows: PartnerRows) -> str:
    """The truth table of a topology as text: what each link carries, and where the documents of each home get to."""
    nodes = sorted(rows)
    links: list[tuple[str, ...]] = [
        ("from", "to", *(f"{whose} {of.value}" for whose, of, _ in _CARRIED), "because")
    ]
    links += [_link_cells(rows, *ends) for ends in permutations(nodes, 2)]
    ways: list[tuple[str, ...]] = [("home", "at", "class", *ACTS, "way", "because")]
    for home in nodes:
        for fileset_class in FilesetClass:
            for each in reach(rows, home, fileset_class):
                way = " > ".join((*each.via, each.node)) if each.gets else "-"
                ways.append(
                    (home, each.node, fileset_class.value, *[_yes(each.gets)] * len(ACTS), way, each.why)
                )
    lines = [
        "What each link carries",
        "",
        *_aligned(links),
        "",
        "Where documents get to",
        "",
        *_aligned(ways),
    ]
    warnings = [f"warning: {each}" for each in contradictions(rows)]
    return "\n".join([*lines, "", *warnings] if warnings else lines) + "\n"


def _link_cells(rows: PartnerRows, sender: NodeName, receiver: NodeName) -> tuple[str, ...]:
    found = [why_stopped(rows, sender, receiver, of, own_line=own) for _, of, own in _CARRIED]
    because = "; ".join(dict.fromkeys(why for why in found if why is not None))
    return (sender, receiver, *(_yes(why is None) for why in found), because)


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
