"""Edits of ``instep.toml`` that follow another node: one that left, or has another name."""

from __future__ import annotations

from typing import Any

from instep.node.config.editing.edits import Document, edit
from instep.node.directory import NodeDirectory


def forget_node(node: NodeDirectory, name: str) -> bool:
    """Take a node out of every place that names it as one to serve, to follow orders of, or to ask."""

    def change(document: Document) -> None:
        document.get("partners", {}).pop(name, None)
        balancers = document.get("balancers", {}).values()
        named = _named_partners(document)
        named += [table.get("nodes") for table in balancers]
        for row in (document.get("allow_drain"), *named):
            while isinstance(row, list) and name in row:
                row.remove(name)
        for table in balancers:
            table.get("backends", {}).pop(name, None)

    return edit(node, change)


def rename_node(node: NodeDirectory, old: str, new: str) -> bool:
    """Put another name in every place that ``forget_node`` empties, in rules about copies, and in this node's own."""

    def change(document: Document) -> None:
        if document.get("name") == old:
            document["name"] = new
        partners = document.get("partners", {})
        balancers = document.get("balancers", {}).values()
        for rows in (partners, *(table.get("backends", {}) for table in balancers)):
            if old in rows:
                row = rows.pop(old).unwrap()
                if new not in rows:
                    rows[new] = row
        named = _named_partners(document)
        named += [table.get("nodes") for table in balancers]
        named += _named_in_copies(document)
        for row in (document.get("allow_drain"), *named):
            if isinstance(row, list) and old in row:
                row[row.index(old)] = new

    return edit(node, change)


def _named_partners(document: Document) -> list[Any]:
    """The lists of partners in filesets: those that get it, and those whose changes are taken."""
    filesets = document.get("filesets", {}).values()
    return [table.get(key) for table in filesets for key in ("to", "offers_from")]


def _named_in_copies(document: Document) -> list[Any]:
    """The lists of nodes in the rules about copies. A node that left stays there: it still has no copy."""
    rules = [rule for table in document.get("filesets", {}).values() for rule in table.get("copies", [])]
    return [rule.get(key) for rule in rules for key in ("prefer", "block")]
