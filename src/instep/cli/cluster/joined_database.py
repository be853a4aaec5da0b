"""The cluster's database that a joining node brings: the one that the inviting node uses, or nothing is changed."""

from __future__ import annotations

import asyncio
from pathlib import Path

from instep.errors import RefusedError
from instep.node.cluster.address_file import address_in
from instep.node.config.editing.edits import Document, edit
from instep.node.directory import NodeDirectory
from instep.store.cluster.members import members
from instep.store.cluster.opening import open_cluster_store


def check_database(file: Path, inviter: str) -> None:
    """``RefusedError`` ``cluster_other`` unless the inviting node is recorded in the database whose address is in this
    file; the errors of the file and of the database itself."""
    shown, names = asyncio.run(_nodes(file))
    if inviter not in names:
        raise RefusedError(
            f"{inviter}, which invited this node, does not use the cluster database {shown}",
            code="cluster_other",
            hint=f"give the address that is in the cluster_file of {inviter}; or set it there first",
            inviter=inviter,
            nodes=names,
        )


async def _nodes(file: Path) -> tuple[str, list[str]]:
    store = await open_cluster_store(address_in(file), is_only_looked_at=True)
    try:
        async with store.transaction() as transaction:
            return store.shown, [member.name for member in await members(transaction)]
    finally:
        await store.close()


def use_database(node: NodeDirectory, file: Path) -> bool:
    """Name the file in ``instep.toml``."""

    def change(document: Document) -> None:
        if document.get("cluster_file") != str(file):
            document["cluster_file"] = str(file)

    return edit(node, change)
