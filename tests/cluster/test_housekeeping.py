"""Housekeeping beside real daemons' state: records that go, and records that must never go."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from instep.model.ids import Digest, FilesetName, LineId, NodeName
from instep.model.manifest.manifest import iterate
from instep.node.node import Node
from instep.node.upkeep.housekeeping import Housekeeping
from instep.store.sqlite import SqliteStore
from tests.support.fleet import Fleet

LINE = LineId(FilesetName("data"), NodeName("main"))


@pytest.mark.parametrize("phase", [None, "commit"])
async def test_a_sweep_spares_what_generations_name_and_waits_for_work(
    fleet: Fleet, phase: str | None
) -> None:
    """Goal: pages of forgotten generations go, pages of the head stay readable; while a line is at work nothing
    goes. Method: a real writer's state after three publishes, swept with the daemon stopped."""
    tree = fleet.tree("main")
    fleet.make(0)
    for number in range(3):
        for name in range(40):
            (tree / f"f{name}").write_text(f"{number} {name}")
        fleet.main.run("publish", "data", "--accept-deletions")
    fleet.main.stop()
    store = SqliteStore(fleet.main.directory / "state" / "node.db")
    try:
        newest, *older = store.generations(LINE, 100)
        store.delete_generations([signed.id for signed in older])
        before = store.pages_count()
        service = SimpleNamespace(is_written_here=True, is_at_work=phase is not None, page_roots=list)
        node = SimpleNamespace(services={"data": service}, runtime=SimpleNamespace(store=store))
        gone = await Housekeeping(cast("Node", node)).sweep()
        if phase is not None:
            assert gone is None
            assert store.pages_count() == before
            return
        assert gone == before - store.pages_count() > 0

        def get(digest: Digest) -> bytes:
            raw: Any = store.get_page(digest)
            assert raw is not None
            return cast("bytes", raw)

        assert [entry.path for entry in iterate(newest.body().root, get)] == sorted(
            b"f%d" % name for name in range(40)
        )
    finally:
        store.close()


def test_a_prune_that_is_killed_is_finished_by_the_next(fleet: Fleet) -> None:
    """Goal: death in the middle of pruning loses nothing that was to stay, and the next prune takes the rest.
    Method: SIGKILL at ``archive.pruning`` in a partner that prunes two batches."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("0")
    fleet.make(1)
    numbers = [fleet.wait()["generation"]["number"]]
    for number in (1, 2):
        fleet.write({"file": f"{number}"})
        numbers.append(fleet.wait()["generation"]["number"])
    first, second, _ = numbers
    s1 = fleet["s1"]
    items = s1.run("archive", "list", "data").json["items"]
    assert [item["generation"] for item in items] == [second, first]
    s1.stop()
    s1.environment["INSTEP_FAILPOINT"] = "archive.pruning:2"
    s1.start()
    s1.run("archive", "prune", "data", "--keep-last", "0", "--keep-within", "0s", expect=None)
    s1.await_death()
    del s1.environment["INSTEP_FAILPOINT"]
    s1.start()
    left = s1.run("archive", "list", "data").json["items"]
    assert [item["generation"] for item in left] == [second]
    s1.run("archive", "prune", "data", "--keep-last", "0", "--keep-within", "0s")
    assert s1.run("archive", "list", "data").json["items"] == []
    s1.await_standing("in_step")
    fleet.assert_same("s1")
