"""Nodes of one cluster that all write: a fileset of many homes, on the services floor and on that of clusters."""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path
from typing import Any

from instep.model.ids import fileset_name
from instep.model.manifest.manifest import iterate
from tests.support.fleet import Fleet, tree_of
from tests.support.services import ServiceNode, Services
from tests.support.virtual_time import reached

HOMES = ("main", "s1", "s2")
"""Of the cluster floor."""
MODE = 'mode = "replicate"'


def link_both(cluster: Services, one: str, other: str, *, hub: bool = False) -> None:
    """Both dial each other, and both let the other have everything."""
    for here, there in ((one, other), (other, one)):
        address = cluster[there].address
        rights = f"replicate = true\ndata = true\nhub = {str(hub).lower()}"
        cluster[here].partners[there] = f'{rights}\naddress = "{address}"'


def mesh(cluster: Services, *names: str, keys: tuple[str, ...] = ()) -> tuple[ServiceNode, ...]:
    """Nodes that are linked with each other, each a home of ``data``; they do not run yet."""
    nodes = tuple(cluster.add(name) for name in names)
    for node in nodes:
        node.writes(MODE, *keys)
    for one, other in combinations(names, 2):
        link_both(cluster, one, other)
    return nodes


async def alike(*nodes: ServiceNode, holding: dict[str, str] | None = None) -> None:
    """Wait until all trees are equal byte for byte, hold these files and no others, and all lines stand in step."""
    last: dict[str, Any] = {}

    async def are_alike() -> bool:
        last.clear()
        trees = [files_of(node.tree) for node in nodes]
        last["trees"] = [sorted(tree) for tree in trees]
        last["standings"] = {node.name: await standings(node) for node in nodes}
        if any(tree != trees[0] for tree in trees):
            return False
        if holding is not None and texts(nodes[0].tree) != holding:
            return False
        return all(set(each.values()) == {"in_step"} for each in last["standings"].values())

    await reached(are_alike, lambda: f"trees are alike: {last}")


def files_of(root: Path) -> dict[bytes, Any]:
    """The tree without the times of its directories, which no line carries."""
    return {
        path: found for path, found in tree_of(root).items() if not Path(root, os.fsdecode(path)).is_dir()
    } | {path: b"directory" for path in tree_of(root) if Path(root, os.fsdecode(path)).is_dir()}


def texts(root: Path) -> dict[str, str]:
    return {
        str(path.relative_to(root)): path.read_text()
        for path in root.rglob("*")
        if path.is_file() and not any(part.startswith(".instep") for part in path.relative_to(root).parts)
    }


async def standings(node: ServiceNode) -> dict[str, str]:
    """How each line of ``data`` stands at a node, by origin."""
    lines = (await node.status())["filesets"][0]["lines"]
    return {line["origin"]: line["standing"] for line in lines}


async def own_paths(node: ServiceNode) -> set[str]:
    """The paths of the line that a node writes itself."""
    service = node.node.services[fileset_name("data")]
    head = service.head
    if head is None:
        return set()
    return {os.fsdecode(entry.path) for entry in iterate(head.root, service.tree.get_page)}


def homes_of(fleet: Fleet) -> None:
    """Each lists the others with all rights, and has the fileset in mode replicate."""
    main = fleet.node("main")
    main.init()
    fleet.set_poll(main, "1s")
    main.start()
    for name in HOMES[1:]:
        fleet.join(name, accept=False)
    fleet.acquaint(*HOMES)
    for name in HOMES:
        fleet.tree(name).mkdir(parents=True, exist_ok=True)
        for other in HOMES:
            if other != name:
                at = f"127.0.0.1:{fleet[other].port}"
                fleet[name].run("partner", "set", other, "--replicate", "--data", "--address", at)
        fleet[name].run(
            "fileset", "add", "data", str(fleet.tree(name)), "--mode", "replicate", "--settle", "20ms"
        )


def put(root: Path, files: dict[str, str]) -> None:
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
