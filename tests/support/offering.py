"""Mirrors whose partners offer their local changes, for the services floor."""

from __future__ import annotations

from tests.support.fleet import tree_of
from tests.support.services import ServiceNode, Services
from tests.support.virtual_time import reached

__all__ = ["FILES", "OFFERS", "alike", "begun"]

FILES = {f"sub/f{number}": f"file {number}\n" for number in range(8)}
OFFERS = 'drift = "offer"'


async def begun(cluster: Services, partners: int = 2, *, drift: str = OFFERS) -> tuple[ServiceNode, ...]:
    names = [f"s{number}" for number in range(1, partners + 1)]
    taken = ", ".join(f'"{name}"' for name in names)
    cluster.make(partners, writer=(f"offers_from = [{taken}]",), partner=(drift,))
    main = cluster["main"]
    main.write(FILES)
    await cluster.followed(*names)
    await cluster.in_step(*names)
    return (main, *(cluster[name] for name in names))


async def alike(*nodes: ServiceNode) -> None:
    """Wait until all trees are equal and every node stands in step."""

    async def are() -> bool:
        trees = [tree_of(node.tree) for node in nodes]
        standings = [(await node.line())["standing"] for node in nodes]
        return all(tree == trees[0] for tree in trees) and set(standings) == {"in_step"}

    def shown() -> str:
        return "; ".join(f"{node.name}: {sorted(tree_of(node.tree))}" for node in nodes)

    await reached(are, shown)
