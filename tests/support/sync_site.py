"""A site of one staging server with a mirror and one production server, for the services floor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.services import ServiceNode, Services

PROFILE = """
[sync.site]
left = "data@s1"
right = "data@p1"
initiators = ["s1", "s2"]
"""
KINDS = """
[sync.site.kinds.templates]
paths = ["/templates/"]
direction = "up"
locked = "right"
[sync.site.kinds.uploads]
paths = ["/uploads/"]
direction = "down"
"""


class Site:
    """Staging ``s1`` with its mirror ``s2``, and production ``p1``, which ``s1`` dials, perhaps with its mirror ``p2``."""

    def __init__(self, cluster: Services, kinds: str = "", keys: str = "", *, has_p2: bool = False) -> None:
        """``kinds`` are tables, and ``keys`` keys, that are added to the profile on both of staging."""
        self.cluster = cluster
        self.profile = PROFILE + keys + KINDS + kinds
        self.s1, self.s2, self.p1 = (cluster.add(name) for name in ("s1", "s2", "p1"))
        self.production = [self.p1, *([cluster.add("p2")] if has_p2 else [])]

    async def begin(self) -> None:
        self.s1.writes('to = ["s2"]')
        self.s2.follows(self.s1)
        mirrors = self.production[1:]
        self.p1.writes(f"to = {[node.name for node in mirrors]}", 'offers_from = ["s1"]')
        for node in mirrors:
            node.follows(self.p1)
            self.cluster.link("p1", node.name)
        self.cluster.link("s1", "s2")
        self.cluster.link("p1", "s1")
        for node in (self.s1, self.s2):
            node.tail += self.profile
        for node in (self.s1, self.s2, *self.production):
            node.start()
        self.s1.write({"a": "1", "d/x": "1", "templates/t": "1", "uploads/u": "1"})
        await self.s1.publish()
        await self.p1.publish(over=True)
        await self.run(initial="left")

    async def run(self, node: ServiceNode | None = None, **params: Any) -> dict[str, Any]:
        return await (node or self.s1).call("sync_run", profile="site", **params)

    def same(self) -> dict[str, str]:
        """The files of both sides, which are equal."""
        left, right = files(self.s1.tree), files(self.p1.tree)
        assert left == right
        return left


def files(tree: Path) -> dict[str, str]:
    found = (path for path in tree.rglob("*") if path.is_file() and ".instep" not in path.parts)
    return {str(path.relative_to(tree)): path.read_text() for path in found}
