"""The edit of ``instep.toml`` that writes a sync profile."""

from __future__ import annotations

from collections.abc import Mapping

import tomlkit

from instep.node.config.editing.edits import Document, edit
from instep.node.directory import NodeDirectory


def set_sync(node: NodeDirectory, name: str, wanted: Mapping[str, object]) -> bool:
    """Write a sync profile, or change the given keys of one."""

    def change(document: Document) -> None:
        profiles = document.setdefault("sync", tomlkit.table(is_super_table=True))
        if name not in profiles:
            profiles[name] = tomlkit.table()
        row = profiles[name]
        for key, value in wanted.items():
            if row.get(key) != value:
                row[key] = value

    return edit(node, change)
