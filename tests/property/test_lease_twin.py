"""The twin of the cluster's database, which the simulated nodes use, answers as the real statements do."""

from __future__ import annotations

import asyncio
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from instep.errors import ContentionError
from instep.model.lease import LeaseFence
from instep.store.cluster import eras, leases
from instep.store.cluster.sqlite import SqliteClusterStore
from instep.testing.leases.database import TwinDatabase, TwinDenied

WHO = ("a", "b", "c")
acts = st.one_of(
    st.tuples(st.sampled_from(("take", "renew", "give_back", "guard")), st.sampled_from(WHO)),
    st.tuples(st.just("break"), st.just("")),
    st.tuples(st.just("advance"), st.sampled_from((1, 400, 4_000, 5_000, 9_000, 31_000))),
    st.tuples(st.just("move"), st.integers(0, 3)),
)


class Both:
    """The same acts on both, and their answers in the same form."""

    def __init__(self, store: SqliteClusterStore, twin: TwinDatabase, world: dict[str, Any]) -> None:
        self.store, self.twin, self.world = store, twin, world
        self.fences = {who: LeaseFence(0, 0) for who in WHO}

    async def act(self, kind: str, what: Any) -> None:
        if kind == "advance":
            self.world["now"] += what
        elif kind == "move":
            self.world["server"] = self.twin.server = f"server {what}"
        else:
            real, twin = await getattr(self, kind)(what)
            assert real == twin, (kind, what)
            if isinstance(real, LeaseFence):
                self.fences[what] = real

    async def take(self, who: str) -> tuple[object, object]:
        async with self.store.transaction() as tx:
            real = await leases.take_lease(tx, await eras.current_era(tx), "x", who, who, 5_000)
        return _real(real), _twin(self.twin.take(0, "x", who, who, 5_000))

    async def renew(self, who: str) -> tuple[object, object]:
        fence = self.fences[who]
        async with self.store.transaction() as tx:
            real = await leases.renew_lease(tx, await eras.current_era(tx), "x", who, fence)
        return _real(real), _twin(self.twin.renew(0, "x", who, fence))

    async def give_back(self, who: str) -> tuple[object, object]:
        fence = self.fences[who]
        async with self.store.transaction() as tx:
            await eras.current_era(tx)
            real = await leases.give_back_lease(tx, "x", who, fence)
        return real, self.twin.give_back(0, "x", who, fence)

    async def guard(self, who: str) -> tuple[object, object]:
        fence = self.fences[who]
        real = True
        async with self.store.transaction() as tx:
            era = await eras.current_era(tx)
            try:
                await leases.check_lease(tx, era, "x", who, fence)
            except ContentionError:
                real = False
        return real, self.twin.guard(0, "x", who, fence)

    async def end(self) -> tuple[object, object]:
        async with self.store.transaction() as tx:
            await eras.current_era(tx)
            row = await leases.break_lease(tx, "x", "a test")
        return row is not None, self.twin.end(0, "x")


def _real(answer: leases.Granted | leases.Denied) -> object:
    return answer.fence if isinstance(answer, leases.Granted) else (answer.holder, answer.left_ms)


def _twin(answer: LeaseFence | TwinDenied) -> object:
    return answer if isinstance(answer, LeaseFence) else (answer.holder, answer.left_ms)


async def _compare(row: list[tuple[str, Any]]) -> None:
    world: dict[str, Any] = {"now": 1_000_000, "server": "first"}
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteClusterStore(Path(folder) / "db", lambda: world["now"], lambda: world["server"])
        await store.open()
        try:
            both = Both(store, TwinDatabase(lambda: world["now"]), world)
            for kind, what in row:
                if kind == "break":
                    real, twin = await both.end()
                    assert real == twin
                else:
                    await both.act(kind, what)
        finally:
            await store.close()


@settings(max_examples=60)
@given(st.lists(acts, max_size=30))
def test_the_twin_answers_as_the_statements_do(row: list[tuple[str, Any]]) -> None:
    asyncio.run(_compare(row))
