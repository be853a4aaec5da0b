"""The cluster as a drawing: a tree for the terminal, a graph for Graphviz."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

from instep.api import members as api
from instep.cli.output import printable


def tree_lines(document: api.MapDocument) -> Iterator[str]:
    """One tree a fileset, from its first sender down; a node that nothing reaches stands alone."""
    links = document.links
    names = {node.name: node for node in document.nodes}
    drawn: set[str] = set()
    for fileset in sorted({link.fileset for link in links}):
        mine = [link for link in links if link.fileset == fileset]
        receivers = {link.to for link in mine}
        for top in sorted({link.sender for link in mine} - receivers):
            yield f"{printable(fileset)}: {_named(names, top)}"
            drawn.add(top)
            yield from _below(mine, names, top, "  ", drawn)
    for name in sorted(set(names) - drawn):
        yield f"{_named(names, name)}: nothing flows"


def _below(
    links: list[api.MapLinkDocument],
    names: Mapping[str, api.MapNodeDocument],
    top: str,
    indent: str,
    drawn: set[str],
) -> Iterator[str]:
    rows = sorted((link for link in links if link.sender == top), key=lambda link: link.to)
    for row in rows:
        is_last = row is rows[-1]
        live = f"live {row.live}" if row.live is not None else "live nothing"
        lost = "" if row.connected else ", not connected"
        corner = "`-" if is_last else "|-"
        yield f"{indent}{corner} {_named(names, row.to)}   {live}, {row.standing}{lost}"
        if row.to not in drawn:
            drawn.add(row.to)
            yield from _below(links, names, row.to, indent + ("   " if is_last else "|  "), drawn)


def _named(names: Mapping[str, api.MapNodeDocument], name: str) -> str:
    node = names[name]
    address = f" ({node.address})" if node.address else ""
    return printable(name) + address + (" (this node)" if node.self else "")


def dot_lines(document: api.MapDocument) -> Iterator[str]:
    """A directed graph: nodes with their addresses, an edge a fileset, dashed where nothing is connected."""
    yield "digraph instep {"
    yield "  rankdir=LR; node [shape=box];"
    for node in document.nodes:
        label = node.name + (f"\n{node.address}" if node.address else "")
        yield f"  {_quoted(node.name)} [label={_quoted(label)}];"
    for link in document.links:
        label = f"{link.fileset}: {link.standing}"
        style = "" if link.connected else ", style=dashed"
        yield f"  {_quoted(link.sender)} -> {_quoted(link.to)} [label={_quoted(label)}{style}];"
    yield "}"


def _quoted(text: str) -> str:
    """A DOT string: JSON's escapes are a subset of Graphviz's."""
    return json.dumps(text, ensure_ascii=False)
