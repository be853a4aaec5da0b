"""The promises of a node's state store, in every implementation. ``tests/contract/test_node_store.py`` is its exam.

The store holds data that can be rebuilt from the tree, the journal and the partners, and makes reading it quick: pages,
generations, epoch records, the state of each line's machine, the stat cache, partners' reports, events.

*Durability.* Writes are atomic. Writes of caches (pages, stat rows, reports, events, heads for showing) may be
lost by a power cut, latest first; ``save_line``, ``save_rollout``, ``save_changes``, ``keep_change``,
``answer_change``, ``add_generation``, ``add_epoch``, ``put`` and a ``transaction()`` are on disk when they return,
unless the caller says that they need not be ``durable``: then the next durable write takes them along.
Nothing is ever reordered: when a durable write has returned, everything written before it, by any connection of the
node, is on disk too. So a caller only has to write pages before the generation that names them, and the generation
before the head.

*Threads.* An object may be used from any thread, one call at a time; a call made meanwhile waits, and fails with
``UnavailableError`` (``state_busy``) at a deadline. A thread that works long opens a store of its own on the same
file. Iterators never hold a transaction between two steps.

*Errors.* ``DamagedError`` (``state_damaged``), ``ResourceError``, ``UnavailableError``; never exceptions of the
library.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import NamedTuple, Protocol

from instep.model.generation import SignedEpoch, SignedGeneration
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.statrow import StatRow

EVENTS_KEPT = 10_000
"""Older events are pruned as new ones are appended."""
ROLLOUTS_KEPT = 200
"""Finished rollouts of a line; older ones are pruned as new ones are kept."""


class LineRow(NamedTuple):
    """What ``status`` can say of a line while the daemon is down."""

    line: LineId
    head: HeadRef | None
    live: HeadRef | None


class ChangeSide(enum.Enum):
    """The two machines of changes from elsewhere."""

    HOME = "home"
    OFFERS = "offers"


class ChangeRow(NamedTuple):
    """A change set at a home: ``kept`` until it is answered, then the ``answer``."""

    kept: bytes | None
    answer: bytes | None


class EventRow(NamedTuple):
    """One line of the events log; ``number`` rises by one with each, ``facts`` are JSON values."""

    number: int
    at_ms: int
    kind: str
    line: LineId | None
    text: str
    facts: Mapping[str, object]


class NodeStore(Protocol):
    """See the module for durability, threads and errors."""

    def transaction(self, *, durable: bool = True) -> AbstractContextManager[None]:
        """Everything inside happens or, when an exception leaves it, nothing does. Inner ones
        are parts of the outer, undone alone."""

    def check(self) -> None:
        """``DamagedError`` (``state_lost``) when the file was removed or replaced behind this object. Durable
        writes check it themselves."""

    def close(self) -> None:
        """Give up files and locks; again is harmless."""

    # pages: the nodes of manifests and chunk lists

    def get_page(self, digest: Digest) -> bytes | None: ...

    def has_pages(self, digests: Iterable[Digest]) -> set[Digest]:
        """The present ones of ``digests``; a sweep that began earlier spares them."""

    def put_pages(self, pages: Iterable[tuple[Digest, bytes]]) -> None:
        """Keep pages; the caller has verified each against its digest. Any number, in bounded batches."""

    def delete_pages(self, digests: Iterable[Digest]) -> None: ...

    def pages_count(self) -> int: ...

    def begin_sweep(self) -> int:
        """Take a ticket *before* collecting what to keep; pages put or found from then on are spared."""

    def sweep_pages(self, keep: Iterable[Digest], ticket: int) -> int:
        """Drop every page that is neither in ``keep`` nor spared by ``ticket``; how many went."""

    # blobs: small contents named by digest, as definitions are

    def get_blob(self, digest: Digest) -> bytes | None: ...

    def put_blob(self, digest: Digest, raw: bytes) -> None: ...

    # generations and epoch records

    def add_generation(self, generation: SignedGeneration, *, durable: bool = True) -> None:
        """Keep a generation; again with a newer signature replaces the old. ``PeerError``
        (``generation_conflict``) when the line has another one with its epoch and number. Not
        ``durable`` where a durable write follows that names it."""

    def generation(self, generation_id: Digest) -> SignedGeneration | None: ...

    def generation_at(self, line: LineId, epoch: int, number: int) -> SignedGeneration | None: ...

    def generations(self, line: LineId, limit: int = 100) -> list[SignedGeneration]:
        """The newest ``limit``, newest first, by (epoch, number)."""

    def delete_generations(self, generation_ids: Iterable[Digest]) -> None: ...

    def add_epoch(self, epoch: SignedEpoch) -> None:
        """Keep an epoch record; two different ones for one epoch can both be kept, so that both can be named."""

    def epochs(self, line: LineId) -> list[SignedEpoch]:
        """All of the line, by epoch, then id."""

    # lines

    def load_line(self, line: LineId) -> bytes | None:
        """The state that the line's machine last saved."""

    def save_line(self, line: LineId, state: bytes, *, durable: bool = True) -> None: ...

    def set_head(self, line: LineId, head: HeadRef) -> None: ...

    def set_live(self, line: LineId, live: HeadRef | None) -> None: ...

    def lines(self) -> list[LineRow]:
        """All known lines, by fileset and origin."""

    # rollouts of lines that are written here

    def load_rollout(self, line: LineId) -> bytes | None:
        """The state that the line's rollout machine last saved."""

    def save_rollout(self, line: LineId, state: bytes, *, durable: bool = True) -> None:
        """Not ``durable`` for a state that permits nothing yet and is derived anew from the head."""

    def keep_rollout(self, line: LineId, finished: bytes, *, durable: bool = True) -> None:
        """Append a finished rollout and prune the line's to the newest ``ROLLOUTS_KEPT``."""

    def rollouts(self, line: LineId, limit: int = 50) -> list[bytes]:
        """The newest ``limit`` finished rollouts, newest first."""

    # changes from elsewhere

    def load_changes(self, line: LineId, side: ChangeSide) -> bytes | None:
        """The state that the line's machine of this side last saved."""

    def save_changes(self, line: LineId, side: ChangeSide, state: bytes) -> None: ...

    def change(self, change_id: Digest) -> ChangeRow | None: ...

    def keep_change(self, line: LineId, change_id: Digest, kept: bytes, at_ms: int, source: NodeName) -> None:
        """Keep a change set of this node's until it is answered; one that is answered stays so."""

    def answer_change(
        self, line: LineId, change_id: Digest, answer: bytes, at_ms: int, source: NodeName
    ) -> None:
        """Keep the answer in the place of the change set."""

    def changes_of(self, line: LineId, source: NodeName) -> tuple[int, int]:
        """The number of this node's change sets of which something is kept, and its bytes."""

    def delete_changes(self, line: LineId, before_ms: int) -> int:
        """Forget what was kept or answered before that moment; how many."""

    # odds and ends by name

    def get(self, key: str) -> bytes | None: ...

    def put(self, key: str, value: bytes, *, durable: bool = True) -> None:
        """Not ``durable`` for a record that the next durable write is the first to need."""

    def delete(self, key: str) -> None: ...

    # the stat cache, in path order (``model.paths.sort_key``)

    def stat_rows(self, fileset: FilesetName, after: bytes = b"", below: bytes = b"") -> Iterator[StatRow]:
        """Rows in path order, those after the path ``after``, those below the directory ``below``. Sees each
        row at most once; changes made meanwhile ahead of it may show."""

    def stat_row(self, fileset: FilesetName, path: bytes) -> StatRow | None: ...

    def stat_by_inode(self, fileset: FilesetName, dev: int, ino: int) -> StatRow | None:
        """A row with this inode: the first in path order where hard links share one."""

    def put_stat_rows(self, fileset: FilesetName, rows: Iterable[StatRow]) -> None:
        """Add or replace; any number, in any order (path order is fastest), in batches of at least 1,000."""

    def delete_stat_rows(self, fileset: FilesetName, paths: Iterable[bytes]) -> None: ...

    def delete_stat_trees(self, fileset: FilesetName, directories: Iterable[bytes]) -> None:
        """Drop each directory itself and all below it; the empty path drops all rows of the fileset."""

    # partners' reports and the events log

    def save_report(self, line: LineId, partner: NodeName, report: bytes) -> None: ...

    def reports(self, line: LineId) -> dict[NodeName, bytes]: ...

    def delete_report(self, line: LineId, partner: NodeName) -> None: ...

    def delete_reports(self, partner: NodeName) -> None:
        """Forget a partner that was removed, in every line."""

    def append_event(
        self, at_ms: int, kind: str, line: LineId | None, text: str, facts: Mapping[str, object]
    ) -> int:
        """Append one event and prune to the newest ``EVENTS_KEPT``; its number."""

    def events(self, since_ms: int = 0, limit: int = 1000, after: int = 0) -> Sequence[EventRow]:
        """The newest ``limit`` events at or after ``since_ms`` with a number above ``after``, oldest first."""
