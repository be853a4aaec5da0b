"""The clock by which a fileset's archive grows old: written down, so that a jump of the wall clock prunes nothing."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from instep.core.retention import Batch, RetentionClock, looked_at
from instep.model.ids import FilesetName
from instep.node.runtime.driver import monotonic_ms, wall_ms
from instep.store.port import NodeStore


class RetentionTime:
    """One per daemon. Looks of several threads do not hurt: each goes on from the last record."""

    def __init__(self) -> None:
        self._looked: dict[FilesetName, int] = {}

    def now_ms(
        self, store: NodeStore, fileset: FilesetName, batches: Sequence[Batch], keep_within_ms: int
    ) -> int:
        """The time for the retention of ``fileset``; the look is recorded."""
        key = f"retention/{fileset}"
        raw = store.get(key)
        clock = msgspec.msgpack.decode(raw, type=RetentionClock) if raw is not None else None
        before, now = self._looked.get(fileset), monotonic_ms()
        elapsed = now - before if before is not None else None
        newest = max((batch.at_ms for batch in batches), default=wall_ms())
        clock = looked_at(clock, wall_ms(), elapsed, newest, keep_within_ms)
        store.put(key, msgspec.msgpack.encode(clock))
        self._looked[fileset] = now
        return clock.now_ms
