"""The node's connection with the cluster's database: opened when it is needed, watched, and opened again.

Everything goes through ``transaction``, which hands out the era beside the transaction. While the database is away
there is an error with a name, and the node serves on.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from instep import __version__
from instep.core.backoff import Backoff
from instep.core.vocabulary import Trouble, trouble_of
from instep.errors import InstepError
from instep.node.cluster.address_file import cluster_address
from instep.node.cluster.identity import identity_of
from instep.node.cluster.memory import ClusterMemory, load_memory, save_memory
from instep.node.runtime.driver import monotonic_ms, own_error, run_all, wall_ms
from instep.node.runtime.runtime import Runtime
from instep.store.cluster.address import ClusterAddress
from instep.store.cluster.eras import Era, current_era
from instep.store.cluster.members import be_seen
from instep.store.cluster.opening import open_cluster_store
from instep.store.cluster.port import ClusterStore, Transaction

BEAT_S = 10.0
"""How often the node is recorded in the database, and looks whether it is reached."""
LISTEN_AGAIN_S = 2.0
AGAIN_MS, AGAIN_MS_MAX = 500, 10_000
_OPEN = "open"
_COPIED = "identity_in_use"
_AWAY = ("old_primary", _COPIED)
"""Codes of a database that cannot be used, beside those that begin with ``cluster_``."""
_OF_THE_FILE = ("cluster_file", "bad_cluster_address")
"""Beginnings of the codes of ``cluster_address``: faults that a look at the file shows."""
_IN_THE_WAY = "cluster_busy"


@dataclass(frozen=True, slots=True)
class ClusterState:
    """How the node stands to the database. Without ``shown`` nothing here has needed it yet."""

    shown: str = ""
    trouble: Trouble | None = None
    since_ms: int = 0
    """By the wall clock: since when it is reached, or is not."""
    era: Era | None = None
    """As of the last transaction."""


class ClusterService:
    """One per node; ``run`` keeps the connection until it is cancelled."""

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        self.session = runtime.session.hex()
        self.state = ClusterState()
        self._wanted = asyncio.Event()
        self._is_reached = asyncio.Event()
        self._store: ClusterStore | None = None
        self._address: ClusterAddress | None = None
        self._opening = asyncio.Lock()
        self._error: InstepError | None = None
        """Why the last attempt to open the database failed, or why this node may not use it."""
        self._memory: ClusterMemory | None = None
        self._listeners: list[Callable[[str], None]] = []
        self._backoff = Backoff(random.Random())

    # For those who use it -------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[tuple[Transaction, Era]]:
        """A transaction and its era; committed at the end of the block. ``UnavailableError`` while the database is
        away, and the error that names why this node may not use it."""
        error = self._error
        if error is not None and (error.error_code == _COPIED or not self._is_tried_now(error)):
            raise error  # tried again with growing pauses by the one task that looks, not by each caller
        store = await self._opened()
        try:
            async with store.transaction() as transaction:
                era = await self._era(store, transaction)
                yield transaction, era
        except (InstepError, OSError) as error:
            self._failed(store.shown, own_error(error))
            raise
        self._reached(store.shown, era)

    def on_change(self, heard: Callable[[str], None]) -> None:
        """Call ``heard`` with the topic of each announcement, or ``""`` where anything may have changed."""
        self._listeners.append(heard)

    def forget(self, heard: Callable[[str], None]) -> None:
        """End an ``on_change``."""
        self._listeners.remove(heard)

    def _is_tried_now(self, error: InstepError) -> bool:
        """Whether the pause after ``error`` is over. A fault of the ``cluster_file`` has none: a caller looks at the
        file, so that what a person mended there works at once. ``ConfigError`` while the file may not be used."""
        if error.error_code.startswith(_OF_THE_FILE):
            cluster_address(self.runtime.settings, self.runtime.directory)
            return True
        return self._backoff.is_ready(_OPEN, monotonic_ms())

    # The connection -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Keep the connection once it is wanted, and follow a changed ``cluster_file``."""
        try:
            await run_all(self._beat(), self._listen())
        finally:
            await self._close()

    async def _beat(self) -> None:
        while True:
            changed = self.runtime.changed
            file, is_wanted = self._need
            pause_s: float | None = None  # a node that needs no database sleeps until it does
            if is_wanted:
                pause_s = BEAT_S
                with suppress(InstepError):
                    await self._be_seen()
                if self.state.trouble is not None:
                    pause_s = max(0.05, self._backoff.wait_ms(_OPEN, monotonic_ms()) / 1000)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    while (file, is_wanted) == self._need:
                        await changed.wait()
                        changed = self.runtime.changed

    @property
    def _need(self) -> tuple[Path | None, bool]:
        """The ``cluster_file``, and whether the node needs the database: it is named, or a caller has asked for it."""
        file = self.runtime.settings.cluster_file
        return file, file is not None or self._wanted.is_set()

    async def _be_seen(self) -> None:
        """Record that this node runs; whatever is wrong with the database, or with this node there, is found here."""
        await self._follow_address()
        if self._store is None:
            await self._opened()
        else:
            await self._record(self._store)

    async def _record(self, store: ClusterStore) -> None:
        try:
            async with store.transaction() as transaction:
                era = await self._era(store, transaction)
                identity = identity_of(self.runtime.directory)
                await be_seen(transaction, self.runtime.name, identity, self.session, __version__)
        except (InstepError, OSError) as error:
            self._failed(store.shown, own_error(error))
            raise
        self._error = None
        self._reached(store.shown, era)

    async def _follow_address(self) -> None:
        """Close the connection when the file, or the line in it, names another database; or may not be used."""
        try:
            address = cluster_address(self.runtime.settings, self.runtime.directory)
        except InstepError as error:
            await self._close()
            self._failed(str(self.runtime.settings.cluster_file), error)
            raise
        if address != self._address:
            await self._close()

    async def _opened(self) -> ClusterStore:
        if self._store is not None:
            return self._store
        self._wanted.set()
        async with self._opening:
            if self._store is None:
                address = cluster_address(self.runtime.settings, self.runtime.directory)
                try:
                    expected = self._remembered().expected(address.shown)
                    store = await open_cluster_store(address, cluster=expected)
                except (InstepError, OSError) as error:
                    self._failed(address.shown, own_error(error))
                    raise
                try:
                    await self._record(store)
                except BaseException:
                    await store.close()
                    raise
                self._store, self._address = store, address
            return self._store

    async def _listen(self) -> None:
        while True:
            await self._is_reached.wait()
            store = self._store
            if store is not None:
                with suppress(InstepError):
                    await store.listen(self._heard)
            await asyncio.sleep(LISTEN_AGAIN_S)

    def _heard(self, topic: str) -> None:
        for heard in tuple(self._listeners):
            heard(topic)

    async def _close(self) -> None:
        store, self._store, self._address = self._store, None, None
        self._is_reached.clear()
        if store is not None:
            await store.close()

    # The known state --------------------------------------------------------------------------------------------

    async def _era(self, store: ClusterStore, transaction: Transaction) -> Era:
        memory = self._remembered()
        return await current_era(transaction, memory.known, memory.expected(store.shown))

    def _remembered(self) -> ClusterMemory:
        if self._memory is None:
            self._memory = load_memory(self.runtime.store)
        return self._memory

    def _reached(self, shown: str, era: Era) -> None:
        if self._error is not None and self._error.error_code == _COPIED:
            return  # a transaction that was under way says nothing about this node's right to another one
        before, self.state = self.state, ClusterState(shown, None, self.state.since_ms, era)
        assert self._memory is not None
        memory = self._memory.with_era(shown, era)
        if memory != self._memory:
            save_memory(self.runtime.store, memory)
            self._memory = memory
        if before.era is not None and before.era.cluster == era.cluster and before.era.era < era.era:
            self.runtime.note(
                "cluster_era",
                f"the cluster database has another server, and era {era.era} begins: nothing changes hands"
                f" for {max(0, era.quiet_until_ms - era.now_ms) / 1000:g} s",
                era=era.era,
            )
        if before.trouble is not None or before.shown != shown:
            self.state = ClusterState(shown, None, wall_ms(), era)
            self.runtime.note("cluster_back", f"the cluster database {shown} is reached", database=shown)
            self.runtime.tell()
        self._error = None
        self._backoff.clear_all()
        self._is_reached.set()

    def _failed(self, shown: str, error: InstepError) -> None:
        """An error that says nothing of the database, as one of a caller, changes nothing here."""
        code = error.error_code
        if code == _IN_THE_WAY or not (code.startswith(("cluster_", "bad_cluster_")) or code in _AWAY):
            return
        self._is_reached.clear()
        self._error = error
        self._backoff.fail(_OPEN, monotonic_ms(), AGAIN_MS, AGAIN_MS_MAX)
        before, trouble = self.state, trouble_of(error)
        self.state = ClusterState(shown, trouble, before.since_ms, before.era)
        if before.trouble is None or before.trouble.code != code:
            self.state = ClusterState(shown, trouble, wall_ms(), before.era)
            self.runtime.note("cluster_away", error.reason, code=code, database=shown)
            self.runtime.tell()
