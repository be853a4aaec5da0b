"""Writes to the state that may come late: events, partners' reports, addresses. A full disk ends no task that makes
one.

The store promises no more for these than that they are written in order and may be lost by a power cut. While the state
cannot be written, the newest write of each key waits here, bounded, and a task writes them as soon as it can.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from instep.errors import InstepError, ResourceError, UnavailableError
from instep.model.counts import counted, which
from instep.store.port import NodeStore

WAITING_MAX = 2_000
"""More writes are dropped, oldest first, and counted."""
AGAIN_MIN_S = 0.5
AGAIN_MAX_S = 5.0

Write = Callable[[NodeStore], object]


class Deferred:
    """May be used from any thread; ``run`` belongs to the event loop. ``trouble`` is why writes wait."""

    def __init__(self, store: Callable[[], NodeStore], note: Callable[[str, str], None]) -> None:
        """``note`` makes an event, which comes back here as a write."""
        self._store = store
        """The calling thread's own."""
        self._note = note
        self._lock = threading.RLock()
        self._waiting: OrderedDict[Hashable, Write] = OrderedDict()
        self._wake = asyncio.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._count = 0
        self.dropped = 0
        self.trouble: InstepError | None = None

    def write(self, key: Hashable, write: Write) -> None:
        """Write now, or behind what waits already. A later write of the same key replaces one that waits."""
        with self._lock:
            if not self._waiting and self._attempt(write):
                return
            self._waiting.pop(key, None)
            self._waiting[key] = write
            if len(self._waiting) > WAITING_MAX:
                self._waiting.popitem(last=False)
                self.dropped += 1
            if self._loop is not None:
                self._loop.call_soon_threadsafe(self._wake.set)

    def append(self, write: Write) -> None:
        """As ``write``, for a write that replaces nothing."""
        with self._lock:
            self._count += 1
            self.write(self._count, write)

    def _attempt(self, write: Write) -> bool:
        try:
            write(self._store())
        except (ResourceError, UnavailableError) as error:
            before, self.trouble = self.trouble, error
            if before is None:
                text = f"the state cannot be written, so events and reports wait: {error.reason}"
                self._note("state_unwritable", text)
            return False
        return True

    def flush(self) -> bool:
        """Write what waits, in order; whether nothing waits any more."""
        with self._lock:
            while self._waiting:
                key, write = next(iter(self._waiting.items()))
                if not self._attempt(write):
                    return False
                del self._waiting[key]
            if self.trouble is not None:
                dropped, self.trouble, self.dropped = self.dropped, None, 0
                text = f"the state can be written again; {counted(dropped, 'event or report', 'events or reports')} "
                self._note("state_writable", text + f"{which(dropped, 'was', 'were')} dropped")
            return True

    async def run(self) -> None:
        """Try again, with growing pauses, for as long as something waits."""
        self._loop = asyncio.get_running_loop()
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            pause = AGAIN_MIN_S
            while not self.flush():
                await asyncio.sleep(pause)
                pause = min(pause * 2, AGAIN_MAX_S)
