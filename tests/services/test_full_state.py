"""The disk of the node directory is full: a command whose record cannot be written ends with that, and is not done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from instep.errors import ResourceError
from instep.model.ids import fileset_name
from instep.store.memory import MemoryStore
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

DATA = fileset_name("data")
WRITES = (
    "transaction", "put", "delete", "save_line", "set_head", "set_live", "save_rollout", "keep_rollout",
    "add_generation", "add_epoch", "put_blob", "put_pages", "save_report", "append_event", "put_stat_rows",
)  # fmt: skip


class FullStore(MemoryStore):
    """A store whose disk is full while ``is_full``; what it holds can be read."""

    def __init__(self) -> None:
        super().__init__()
        self.is_full = False

    def __getattribute__(self, name: str) -> Any:
        if name in WRITES and self.is_full:
            raise ResourceError("no space for the state", code="store_full", hint="free space")
        return super().__getattribute__(name)


async def _made(cluster: Services) -> tuple[ServiceNode, FullStore]:
    """A writer whose newest generation waits to be confirmed, and its store."""
    main, store = cluster.add("main"), FullStore()
    main.store = store
    main.writes()
    cluster.add("s1").follows(main)
    cluster.link("main", "s1")
    for node in cluster.nodes.values():
        node.start()
    main.write({"a": "1"})
    await cluster.followed("s1")
    await cluster.in_step("s1")
    main.tail = '[filesets.data.rollout]\nstrategy = "rolling"\nconfirm_within = "1h"'
    await main.reload()
    main.write({"a": "2"})
    await main.publish()

    async def is_confirming() -> bool:
        shown = await main.call("rollout_show", fileset="data")
        return bool(shown["rollout"]["state"] == "confirming")

    await reached(is_confirming, lambda: "the rollout waits to be confirmed")
    return main, store


ACTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("pause", {"reason": "migration"}),
    ("drain", {"reason": "migration"}),
    ("rollout_confirm", {}),
    ("rollout_abort", {"keep": True}),
    ("retry", {}),
)


@pytest.mark.parametrize(("command", "params"), ACTS, ids=[command for command, _ in ACTS])
@in_virtual_time
async def test_an_act_that_cannot_be_recorded_is_not_called_done(
    tmp_path: Path, command: str, params: dict[str, Any]
) -> None:
    """Goal: ``pause`` said "paused" with exit 0 while the record waited for room, and a restart forgot it."""
    async with services(tmp_path) as cluster:
        main, store = await _made(cluster)
        asked = params if command == "drain" else {"fileset": "data", **params}
        store.is_full = True
        await main.refuses("store_full", command, **asked)
        store.is_full = False
        assert not main.node.services[DATA].facts.is_paused
        assert (await main.call(command, **asked))["changed"] is (command != "retry")


@in_virtual_time
async def test_a_pause_is_ended_only_where_that_is_recorded(tmp_path: Path) -> None:
    async with services(tmp_path) as cluster:
        main, store = await _made(cluster)
        await main.call("pause", fileset="data")
        assert main.node.services[DATA].facts.is_paused, "the answer came after the record"
        store.is_full = True
        await main.refuses("store_full", "resume", fileset="data")
        store.is_full = False
        assert main.node.services[DATA].facts.is_paused
        assert (await main.call("resume", fileset="data"))["changed"]
        await main.stands("in_step")
