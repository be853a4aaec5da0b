"""The shared part of a node's services: its directory, settings, keys, state and worker threads."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from logging import INFO, WARNING
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from instep.api.event_kinds import WARNINGS
from instep.errors import InstepError, UnavailableError
from instep.model.ids import LineId, NodeName
from instep.net.trust.pki import Pki
from instep.node.config.settings import Settings
from instep.node.directory import NodeDirectory
from instep.node.facts.cache import FactCache
from instep.node.runtime.deferred import Deferred
from instep.node.runtime.draining import Draining
from instep.node.runtime.driver import monotonic_ms, own_error, wall_ms
from instep.node.runtime.event_throttle import Quiet
from instep.node.runtime.read_only import ReadOnly
from instep.node.runtime.retention_time import RetentionTime
from instep.store.port import NodeStore
from instep.store.sqlite import SqliteStore

TEXT_MAX = 1_000
_TRIED = "tried"
log = logging.getLogger(__name__)
P = ParamSpec("P")
R = TypeVar("R")


class Worker:
    """One thread for one fileset's tree: scans, stages and switches never run side by side on a tree."""

    def __init__(self, name: str, named: Callable[[InstepError | OSError], InstepError] = own_error) -> None:
        """``named`` gives an error of a call the names of what it met."""
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._named = named

    async def run(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """The result of ``call``, made in the thread. Cancelling the wait lets the call finish by itself.
        ``UnavailableError`` once the service has ended, also when that ends the wait."""
        loop = asyncio.get_running_loop()
        try:
            made = loop.run_in_executor(self._pool, lambda: self._called(call, *args, **kwargs))
        except RuntimeError as error:  # the pool takes no more
            raise _ended() from error
        try:
            return await made
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if made.cancelled() and task is not None and not task.cancelling():
                raise _ended() from None  # it stood in the queue when the pool was closed
            raise

    def _called(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return call(*args, **kwargs)
        except OSError as error:
            raise self._named(error) from error
        except InstepError as error:
            self._named(error)
            raise

    def close(self) -> None:
        """Wait for the call under way; later ones are refused, as are queued ones."""
        self._pool.shutdown(wait=True, cancel_futures=True)


def _ended() -> UnavailableError:
    return UnavailableError(
        "the service of this tree has ended", code="line_stopped", hint="see why: instep status"
    )


def _open_checked(path: Path) -> NodeStore:
    """``open_state`` has checked the file."""
    return SqliteStore(path, is_checked=True)


class Runtime:
    """Lives as long as the daemon. ``store`` is a connection of the calling thread's own."""

    def __init__(
        self,
        directory: NodeDirectory,
        settings: Settings,
        pki: Pki,
        session: bytes,
        state_note: str | None = None,
        open_store: Callable[[Path], NodeStore] | None = None,
    ) -> None:
        self.directory = directory
        self.state_note = state_note
        """That the state was lost or damaged when this daemon began, for status."""
        self.settings = settings
        self.pki = pki
        self.session = session
        self.refused_config = ""
        """Why ``instep.toml`` is not in use as it is now."""
        """Random, fresh at each start: two live streams of one name with two sessions are a copied identity."""
        self._open_store = open_store or _open_checked
        self._local = threading.local()
        self._stores: list[NodeStore] = []
        self._opening = threading.Lock()
        self.deferred = Deferred(lambda: self.store, self.note)
        self.changed = asyncio.Event()
        """Set and replaced whenever something that ``status`` or ``wait`` shows has changed."""
        self._quiet = Quiet()
        self.noted: Counter[tuple[str, str]] = Counter()
        """How many events of each kind and fileset (empty: of none) there were since the start."""
        self.on_note: Callable[[str, str, LineId | None, Mapping[str, Any]], None] = lambda *_: None
        """Hears each event, in the thread that notes it."""
        self.is_ours: Callable[[NodeName], bool] = lambda _: False
        """Whether a node of this cluster has a name; the members say it."""
        self.facts = FactCache()
        self.retention = RetentionTime()
        self.draining = Draining(lambda: self.store, self.tell, ran_out=self._drain_ran_out)
        """Whether this node wants new work, and which balancers know."""
        self.read_only = ReadOnly(lambda: self.store, self.tell, lambda: self.name)
        """Whether this node takes edits, its own and those of others."""

    @property
    def name(self) -> NodeName:
        return self.settings.name

    @property
    def store(self) -> NodeStore:
        store: NodeStore | None = getattr(self._local, "store", None)
        if store is None:
            store = self._open_store(self.directory.database)
            self._local.store = store
            with self._opening:
                self._stores.append(store)
        return store

    def close(self) -> None:
        """Close the connections of all threads; the threads have ended."""
        for store in self._stores:
            store.close()
        self._stores.clear()

    def try_state(self) -> None:
        """Write to the state, durably; raises the obstacle before any command reports a retry."""
        self.store.put(_TRIED, str(wall_ms()).encode())
        self.deferred.flush()

    def note(self, kind: str, text: str, line: LineId | None = None, **facts: Any) -> None:
        """One line of the events and of the daemon's log; the event waits while the state cannot be written."""
        at_ms = wall_ms()
        self.on_note(kind, text, line, facts)
        self.noted[kind, line.fileset if line is not None else ""] += 1
        about = {"event": kind, "fileset": line.fileset if line is not None else None, **facts}
        log.log(WARNING if kind in WARNINGS else INFO, "%s", text, extra={"about": about})
        self.deferred.append(lambda store: store.append_event(at_ms, kind, line, text, facts))

    def note_of_peer(
        self, source: str, kind: str, text: str, line: LineId | None = None, **facts: Any
    ) -> None:
        """As ``note``, about what a peer or a stranger did; a peer that does it again and again is noted now and then,
        with the count."""
        hushed = self._quiet.take((source, kind, line, facts.get("code")), monotonic_ms())
        if hushed is None:
            return
        more = f" (and {hushed} more like it)" if hushed else ""
        self.note(kind, text[:TEXT_MAX] + more, line, **facts)

    def _drain_ran_out(self, reason: str) -> None:
        self.note(
            "undrained", f"{self.name} is not drained any more: the time has passed", reason=reason or None
        )

    def tell(self) -> None:
        """Wake all tasks that wait for a change."""
        self.changed.set()
        self.changed = asyncio.Event()
