"""The night of mode replicate: one home is in trouble, and the others go on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.node.replica.own_line import OWN_COMMITTED
from instep.tree.root import failpoints
from tests.support.replicas import alike, mesh
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm_all()


@in_virtual_time
async def test_a_full_disk_behind_a_commit_makes_no_further_generations(tmp_path: Path) -> None:
    """Goal: the generation counts, though the tree's own record of it could not be written; it is written later."""
    async with services(tmp_path) as cluster:
        a, b = mesh(cluster, "a", "b")
        for node in (a, b):
            node.start()
        a.write({"fa": "a"})
        b.write({"fb": "b"})
        await alike(a, b, holding={"fa": "a", "fb": "b"})
        before = await a.head()
        assert before is not None
        failpoints.arm(OWN_COMMITTED, "enospc")
        a.write({"later": "a"})
        await b.holds("later", "a")
        failpoints.disarm_all()
        await alike(a, b, holding={"fa": "a", "fb": "b", "later": "a"})
        assert await a.head() == before + 1
        await a.stop()
        a.start()
        a.write({"last": "a"})
        await alike(a, b, holding={"fa": "a", "fb": "b", "later": "a", "last": "a"})
        assert await a.head() == before + 2
