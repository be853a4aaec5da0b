"""The map of nodes as lines and boxes: senders on the left, each node right of all that send to it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from instep.api.members import MapDocument, MapLinkDocument

BOX_WIDTH = 190
BOX_STEP = 320
ROW_STEP = 64
MARGIN = 16
BOX_HEIGHT = 36
LABEL_MAX = 22
SINGLE_NODES_MAX = 60
"""With more nodes, followers that stand alike below one sender become one box with their number."""


@dataclass(frozen=True, slots=True)
class Box:
    """A node, or several that stand alike."""

    name: str
    label: str
    x: int
    y: int
    width: int = BOX_WIDTH


@dataclass(frozen=True, slots=True)
class Edge:
    """A sender to a receiver; one that is not well has a label."""

    path: str
    bad: bool
    label: str
    x: int
    y: int


@dataclass(frozen=True, slots=True)
class Drawing:
    """All of it, with its size."""

    nodes: Sequence[Box]
    edges: Sequence[Edge]
    width: int
    height: int


def draw(told: MapDocument) -> Drawing:
    groups, links = _grouped(told)
    columns = _columns(groups, links)
    boxes: dict[str, Box] = {}
    heights: dict[int, int] = {}
    for name in sorted(groups, key=lambda one: (columns[one], one)):
        column = columns[name]
        row = heights.get(column, 0)
        heights[column] = row + 1
        label = groups[name] if len(groups[name]) <= LABEL_MAX else f"{groups[name][: LABEL_MAX - 1]}…"
        boxes[name] = Box(name, label, MARGIN + column * BOX_STEP, MARGIN + row * ROW_STEP)
    edges = [_edge(boxes[a], boxes[b], rows) for (a, b), rows in sorted(links.items())]
    width = MARGIN * 2 + BOX_WIDTH + BOX_STEP * max(heights, default=0)
    height = MARGIN * 2 + ROW_STEP * max(heights.values(), default=1)
    return Drawing(list(boxes.values()), edges, width, height)


_Links = Mapping[tuple[str, str], list[MapLinkDocument]]


def _grouped(told: MapDocument) -> tuple[dict[str, str], _Links]:
    """The label of each box, and the links between boxes."""
    senders = {link.sender for link in told.links}
    boxes: dict[str, str] = {}
    if len(told.nodes) <= SINGLE_NODES_MAX:
        boxes = {node.name: node.name for node in told.nodes}
    members: dict[str, str] = {name: name for name in boxes}
    if not boxes:
        crowd: dict[str, set[str]] = {}
        for link in told.links:
            if link.to not in senders:
                crowd.setdefault(f"{link.sender} {link.standing}", set()).add(link.to)
                members[link.to] = f"{link.sender} {link.standing}"
        boxes = {name: name for name in senders}
        members.update({name: name for name in senders})
        boxes |= {
            key: f"{len(names)} {key.rpartition(' ')[2].replace('_', ' ')}" for key, names in crowd.items()
        }
    links: dict[tuple[str, str], list[MapLinkDocument]] = {}
    for link in told.links:
        links.setdefault((members[link.sender], members[link.to]), []).append(link)
    return boxes, links


def _columns(boxes: Mapping[str, str], links: _Links) -> dict[str, int]:
    """Each box right of its senders; a circle of senders ends where the boxes do."""
    columns = dict.fromkeys(boxes, 0)
    for _ in range(min(len(boxes), 12)):
        moved = False
        for sender, to in links:
            if sender != to and columns[to] <= columns[sender] < len(boxes) - 1 and columns[to] < 11:
                columns[to] = columns[sender] + 1
                moved = True
        if not moved:
            break
    return columns


def _edge(a: Box, b: Box, rows: Sequence[MapLinkDocument]) -> Edge:
    bad = [
        row for row in rows if not row.connected or row.standing not in ("in_step", "applying", "observing")
    ]
    x1, y1, x2, y2 = a.x + BOX_WIDTH, a.y + BOX_HEIGHT // 2, b.x, b.y + BOX_HEIGHT // 2
    middle = (x1 + x2) // 2
    label = "" if not bad else f"{bad[0].fileset}: {bad[0].standing.replace('_', ' ')}"
    return Edge(
        f"M{x1} {y1}C{middle} {y1} {middle} {y2} {x2} {y2}", bool(bad), label, middle, (y1 + y2) // 2 - 6
    )
