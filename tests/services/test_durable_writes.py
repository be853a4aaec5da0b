"""How often the state is synced for one update of another home: each sync is a wait of several ms on a common disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from instep.store.memory import MemoryStore
from tests.support.replicas import alike, mesh
from tests.support.services import services
from tests.support.virtual_time import in_virtual_time

UPDATES = 10


class CountingStore(MemoryStore):
    """Counts writes that are on disk when they return: parts of one transaction count once."""

    durable = 0
    _is_inside = _is_due = False

    @contextmanager
    def transaction(self, *, durable: bool = True) -> Iterator[None]:
        is_outermost, self._is_inside = not self._is_inside, True
        self._is_due = self._is_due or durable
        try:
            with super().transaction(durable=durable):
                yield
        finally:
            if is_outermost:
                self.durable += self._is_due
                self._is_inside = self._is_due = False

    def _count(self, durable: bool) -> None:
        if self._is_inside:
            self._is_due = self._is_due or durable
        else:
            self.durable += durable

    def put(self, key: str, value: bytes, *, durable: bool = True) -> None:
        self._count(durable)
        super().put(key, value, durable=durable)

    def add_generation(self, generation: Any, *, durable: bool = True) -> None:
        self._count(durable)
        super().add_generation(generation, durable=durable)

    def save_line(self, line: Any, state: bytes, *, durable: bool = True) -> None:
        self._count(durable)
        super().save_line(line, state, durable=durable)


@in_virtual_time
async def test_an_update_of_another_home_is_synced_only_where_a_promise_needs_it(tmp_path: Path) -> None:
    """Goal: one sync of the state for each of: the known head, the next union, the tree's union, the live union. Each write
    by itself would be seven."""
    async with services(tmp_path) as cluster:
        a, b = nodes = mesh(cluster, "a", "b")
        store = b.store = CountingStore()
        for node in nodes:
            node.write({f"{node.name}.xml": "1"})
            node.start()
        await alike(*nodes)
        before = store.durable
        for number in range(UPDATES):
            a.write({"a.xml": f"update {number}"})
            await b.holds("a.xml", f"update {number}")
        await alike(*nodes)
        assert store.durable - before <= 4 * UPDATES, store.durable - before
