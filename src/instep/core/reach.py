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

PartnerRows = Mapping[NodeName, Mapping[NodeName, Link] | None]
"""The rows of each node, by partner; None for a node that has not told its rows."""

TABLE_CLASSES = (FilesetClass.METADATA, FilesetClass.DATA)
"""Rows of partners say where these go. A secret goes from its writer to the partners in ``to``, and no further."""
ACTS = ("insert", "update", "delete")
"""All three go the same way: a generation says what there is now."""


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
    of_sender, of_receiver = rows[sender], rows[receiver]
    if of_sender is None:
        return f"{sender} has not told its rows"
    link = of_sender.get(receiver)
    if link is None:
        return f"{sender} has no row of {receiver}"
    if of_receiver is not None and sender not in of_receiver:
        return f"{receiver} has no row of {sender}"
    if link.lets(fileset_class, own_line=own_line):
        return f"{receiver} has not told its rows" if of_receiver is None else None
    if not link.replicate:
        return f"{sender}'s row of {receiver} has replicate off"
    if fileset_class is FilesetClass.DATA and not link.data:
        return f"{sender}'s row of {receiver} has data off"
    if fileset_class is FilesetClass.SECRET:
        return f"{sender} passes on nothing of class secret"
    return f"{sender}'s row of {receiver} has hub off"


def reach(rows: PartnerRows, home: NodeName, fileset_class: FilesetClass) -> tuple[Reach, ...]:
    """Where the documents of ``home`` get to, in the order of nodes: by the fewest hops, of several ways the first by
    name. Every node of the topology has an entry in ``rows``, and every row names a node of it."""
    via: dict[NodeName, tuple[NodeName, ...]] = {home: ()}
    newest = [home]
    while newest:
        found: dict[NodeName, tuple[NodeName, ...]] = {}
        for sender in sorted(newest, key=lambda name: (via[name], name)):
            for receiver in sorted(rows[sender] or ()):
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
        if node in (rows[holder] or ()) or holder in (rows[node] or ()):
            why = why_stopped(rows, holder, node, fileset_class, own_line=holder == home)
            assert why is not None, "it would have reached the node"
            reasons.append(why)
    return "; ".join(reasons) or f"no node that has them has a row of {node}"


def contradictions(rows: PartnerRows) -> Iterator[str]:
    """Rows that say something that means nothing, in words."""
    for node in sorted(rows):
        for partner, link in sorted((rows[node] or {}).items()):
            void = [name for name, is_on in (("data", link.data), ("hub", link.hub)) if is_on]
            if void and not link.replicate:
                verb = "means" if len(void) == 1 else "mean"
                yield f"{node}'s row of {partner}: {' and '.join(void)} {verb} nothing while replicate is off"


class Carried(msgspec.Struct, frozen=True):
    """What flows from one node to another: the sender's own documents and those of others, of each class."""

    sender: NodeName
    receiver: NodeName
    own_metadata: bool
    own_data: bool
    others_metadata: bool
    others_data: bool
    because: str


def carried(rows: PartnerRows) -> Iterator[Carried]:
    """What each pair of nodes carries, in the order of names."""
    for sender, receiver in permutations(sorted(rows), 2):
        found = {
            (own, of): why_stopped(rows, sender, receiver, of, own_line=own)
            for own in (True, False)
            for of in TABLE_CLASSES
        }
        yield Carried(
            sender,
            receiver,
            own_metadata=found[True, FilesetClass.METADATA] is None,
            own_data=found[True, FilesetClass.DATA] is None,
            others_metadata=found[False, FilesetClass.METADATA] is None,
            others_data=found[False, FilesetClass.DATA] is None,
            because="; ".join(dict.fromkeys(why for why in found.values() if why is not None)),
        )


def ways(rows: PartnerRows) -> Iterator[Reach]:
    """Where the documents of each home get to, in the order of homes, classes and nodes."""
    for home in sorted(rows):
        for fileset_class in TABLE_CLASSES:
            yield from reach(rows, home, fileset_class)


def reach_table(rows: PartnerRows) -> str:
    """The truth table of a topology as text: what each link carries, and where the documents of each home get to."""
    links: list[tuple[str, ...]] = [
        ("from", "to", "own metadata", "own data", "others' metadata", "others' data", "because")
    ]
    links += [
        (
            each.sender, each.receiver,
            *map(_yes, (each.own_metadata, each.own_data, each.others_metadata, each.others_data)),
            each.because,
        )
        for each in carried(rows)
    ]  # fmt: skip
    found: list[tuple[str, ...]] = [("home", "at", "class", *ACTS, "way", "because")]
    for each in ways(rows):
        way = " > ".join((*each.via, each.node)) if each.gets else "-"
        acts = [_yes(each.gets)] * len(ACTS)
        found.append((each.home, each.node, each.fileset_class.value, *acts, way, each.why))
    lines = ["What each link carries", "", *_aligned(links), ""]
    lines += ["Where documents get to", "", *_aligned(found)]
    warnings = [f"warning: {each}" for each in contradictions(rows)]
    return "\n".join([*lines, "", *warnings] if warnings else lines) + "\n"


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"


def _aligned(table: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return ["  ".join(map(str.ljust, cells, widths)).rstrip() for cells in table]
