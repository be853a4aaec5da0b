"""Three homes of one fileset at random: users write, rename and remove on all of them, links are cut, nodes restart. In the
end all trees are equal, and no contents are in two lines."""

from __future__ import annotations

import random
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
from blake3 import blake3

from instep.model.ids import fileset_name
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import iterate
from tests.support.replicas import alike, mesh, texts
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

NAMES = ("a", "b", "c")
PATHS = tuple(f"{folder}{name}.xml" for folder in ("", "x/", "x/y/", "z/") for name in ("1", "2", "3"))
STEPS = 40
KEPT = "of-"
"""Names of files that stay: a home that loses all of its files is stopped by its guard."""


class Swarm:
    """``chance`` decides all; each text is written once."""

    def __init__(self, cluster: Services, seed: int) -> None:
        self.cluster = cluster
        self.nodes = mesh(cluster, *NAMES)
        self.chance = random.Random(seed)
        self.written = 0
        self.cuts: set[tuple[str, str]] = set()
        self.said: list[str] = []
        self.renamed: set[str] = set()
        """Of a file that two users rename at once, both have one."""

    def _text(self) -> str:
        self.written += 1
        return f"text {self.written}"

    async def step(self) -> None:
        chance, node = self.chance, self.chance.choice(self.nodes)
        act = chance.choices(
            ("write", "edit", "remove", "rename", "cut", "heal", "restart", "publish"),
            (6, 6, 3, 3, 2, 3, 1, 4),
        )[0]
        self.said.append(f"{act} at {node.name}")
        match act:
            case "write":
                self._write(node, chance.choice(PATHS))
            case "edit" | "remove" | "rename":
                there = sorted(path for path in texts(node.tree) if not path.startswith(KEPT))
                if there:
                    self._change(node, act, chance.choice(there))
            case "cut":
                one, other = chance.sample(NAMES, 2)
                self.cluster.cut(one, other)
                self.cuts.add((one, other))
            case "heal":
                self.heal()
            case "restart":
                await node.stop()
                node.start()
            case _:
                await node.call("wait", fileset="data", timeout_s=2.0)

    def _write(self, node: ServiceNode, path: str) -> None:
        try:
            node.write({path: self._text()})
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            self.said[-1] += ": in the way"

    def _change(self, node: ServiceNode, act: str, path: str) -> None:
        file = node.tree / path
        if act == "edit":
            file.write_text(self._text())
        elif act == "remove":
            file.unlink()
        else:
            self.renamed.add(file.read_text())
            file.rename(file.with_name(f"moved{self.written}-{file.name}"))
            self.written += 1

    def heal(self) -> None:
        for one, other in self.cuts:
            self.cluster.heal(one, other)
        self.cuts.clear()


def lines_of(node: ServiceNode) -> set[bytes]:
    """The digests of the files in the line that a node writes."""
    service = node.node.services[fileset_name("data")]
    head = service.head
    if head is None:
        return set()
    entries = iterate(head.root, service.tree.get_page)
    return {entry.digest for entry in entries if entry.kind is Kind.FILE}


@pytest.mark.parametrize("seed", [*range(3), 74])
@in_virtual_time
async def test_homes_agree_after_any_history(tmp_path: Path, seed: int) -> None:
    async with services(tmp_path) as cluster:
        swarm = Swarm(cluster, seed)
        for node in swarm.nodes:
            node.write({f"{KEPT}{node.name}.xml": f"of {node.name}"})
            node.start()
        for _ in range(STEPS):
            await swarm.step()
        for one, other in combinations(NAMES, 2):
            cluster.heal(one, other)
        try:
            await alike(*swarm.nodes)
        except AssertionError as error:
            raise AssertionError("\n".join((*swarm.said, str(error)))) from error
        renamed = {blake3(text.encode()).digest() for text in swarm.renamed}

        def twice() -> list[bytes]:
            many = Counter(digest for node in swarm.nodes for digest in lines_of(node))
            return [digest for digest, lines in many.items() if lines > 1 and digest not in renamed]

        async def once() -> bool:  # a home lets go of a path a moment after its trees are alike
            return not twice()

        await reached(once, lambda: f"{len(twice())} contents are in two lines: {swarm.said}")
