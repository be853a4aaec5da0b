"""Homes in a ring, a mesh and a chain of hubs: each content crosses into each node once, and no head goes back to the node
that it came from."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from instep.errors import PeerError
from instep.model.ids import Digest, NodeName
from instep.net.messages import messages as m
from tests.support.replicas import MODE, alike, link_both
from tests.support.services import Services, services
from tests.support.virtual_time import in_virtual_time

SIZE, TOKEN = 2_000, 64
"""Of a content, in random bytes that no compression hides, and of its beginning, by which it is known again."""
DOCUMENTS = 6
"""Of each home, half of them before the nodes meet."""
LINKS = {
    "ring": ("a-b", "b-c", "c-d", "d-a"),
    "mesh": ("a-b", "a-c", "a-d", "a-e", "b-c", "b-d", "b-e", "c-d", "c-e", "d-e"),
    "chain": ("a-b", "b-c", "c-d", "d-e"),
}


class Crossings:
    """How often each content came to each node, and where its heads came from first."""

    def __init__(self, cluster: Services) -> None:
        self.contents: Counter[tuple[NodeName, bytes]] = Counter()
        self.returned: list[str] = []
        self._tokens: list[bytes] = []
        self._first: dict[tuple[NodeName, Digest], NodeName] = {}
        cluster.net.heard = self._heard

    def made(self, chance: random.Random) -> bytes:
        content = chance.randbytes(SIZE)
        self._tokens.append(content[:TOKEN])
        return content

    def _heard(self, receiver: NodeName, sender: NodeName, raw: bytes) -> None:
        self.contents.update((receiver, token) for token in self._tokens if token in raw)
        try:
            message = m.decode_stream(raw)
        except PeerError:
            return
        if isinstance(message, m.Head):
            head = message.generation.ref()
            if self._first.get((sender, head.id)) == receiver:
                self.returned.append(
                    f"{sender} sent {receiver} generation {head.number} of {message.line} back"
                )
            self._first.setdefault((receiver, head.id), sender)


@pytest.mark.parametrize("shape", LINKS)
@in_virtual_time
async def test_each_content_crosses_into_each_node_once(tmp_path: Path, shape: str) -> None:
    """Once all run, homes publish one after another: a head that interrupts a fetch lets contents that were on the way be asked for
    once more."""
    links = [link.split("-") for link in LINKS[shape]]
    names = sorted({name for link in links for name in link})
    chance = random.Random(shape)
    async with services(tmp_path) as cluster:
        crossings = Crossings(cluster)
        nodes = tuple(cluster.add(name) for name in names)
        for node in nodes:
            node.writes(MODE)
        for one, other in links:
            link_both(cluster, one, other, hub=True)
        wanted = {}
        for half in range(2):
            for node in nodes:
                for number in range(half, DOCUMENTS, 2):
                    content = wanted[f"{node.name}{number}.bin"] = crossings.made(chance)
                    (node.tree / f"{node.name}{number}.bin").write_bytes(content)
                if not half:
                    node.start()
                else:
                    await alike(*nodes)
            await alike(*nodes)
        for node in nodes:
            assert {path.name: path.read_bytes() for path in node.tree.glob("*.bin")} == wanted
            came = {path: crossings.contents[node.name, content[:TOKEN]] for path, content in wanted.items()}
            assert came == {path: int(not path.startswith(node.name)) for path in wanted}, node.name
        assert crossings.returned == []
