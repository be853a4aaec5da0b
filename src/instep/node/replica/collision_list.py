"""The collisions that the tree of a fileset of many homes showed: kept in the state, noted, and given to a hook.

``core/union/listing.py`` decides what is listed.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

import msgspec

from instep.core.union.listing import CollisionBook, ListedCollision, follow, reviewed
from instep.model.counts import counted
from instep.model.ids import NodeName
from instep.model.manifest.entry import Entry
from instep.model.paths import shown
from instep.model.replication.union import Collision
from instep.net.task_group import TaskGroup
from instep.node.config.filesets import FilesetSettings
from instep.node.config.hooks import ON_COLLISION
from instep.node.lines.hook_notices import PATHS_MAX, HookNotice, HookNotices, NoticeSlot
from instep.node.replica.laid import Laid, Unions
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime, Worker

CODE = "collisions"
NAMED_MAX = 3


class CollisionSide(NamedTuple):
    """What the tree has at one of the two names: the homes whose it is, and the entry. Both are empty where nothing is
    there any more."""

    path: bytes
    origins: tuple[NodeName, ...]
    entry: Entry | None


class CollisionList:
    """``settings`` gives those of the fileset. ``saw`` runs in the worker thread, with every union that the tree comes
    to hold; the others are for the event loop."""

    def __init__(self, runtime: Runtime, unions: Unions, settings: Callable[[], FilesetSettings]) -> None:
        self._runtime = runtime
        self._unions = unions
        self._settings = settings
        self._key = f"collisions/{settings().name}"
        raw = runtime.store.get(self._key)
        self.book = CollisionBook() if raw is None else msgspec.msgpack.decode(raw, type=CollisionBook)
        self._news: deque[tuple[ListedCollision, ...]] = deque()
        self.notices = HookNotices(runtime, lambda: (self._slot(),))
        unions.seen = self.saw

    async def run(self, worker: Worker) -> None:
        """Call the hook, and once a poll interval look which collisions stood for one; until cancelled."""
        async with TaskGroup() as group:
            group.create_task(self.notices.run())
            while True:
                self.tell()
                await asyncio.sleep(self._runtime.settings.poll_ms / 1000)
                await worker.run(self.look_again)

    def _slot(self) -> NoticeSlot:
        fileset = self._settings()
        name, hooks = fileset.name, fileset.hooks.on_collision
        return NoticeSlot(f"{self._key}/notice", ON_COLLISION, name, name, hooks, gathers=True)

    def saw(self, laid: Laid) -> None:
        """The tree holds this union. What the list becomes is durable, with the hook's notice of it. A union with kept
        names is followed by the one that says what became of them."""
        if laid.kept:
            return

        def has(origin: NodeName, path: bytes) -> bool:
            line = laid.lines.by_origin.get(origin)
            return line is not None and line.lookup(path) is not None

        wait_ms = self._runtime.settings.poll_ms
        book, news = follow(self.book, laid.united.collisions, has, wall_ms(), wait_ms)
        if book == self.book:
            return
        with self._runtime.store.transaction():
            self._runtime.store.put(self._key, msgspec.msgpack.encode(book))
            if news:
                paths = tuple(row.collision.component for row in news[:PATHS_MAX])
                self.notices.keep(self._slot(), HookNotice(CODE, self._said(news), paths))
        self.book = book
        if news:
            self._news.append(news)

    def look_again(self) -> None:
        """In the worker thread: time has passed, and a collision may have stood long enough."""
        if self._unions.now is not None and any(not row.is_listed for row in self.book.rows):
            self.saw(self._unions.now)

    def tell(self) -> None:
        """Note what was listed since the last call, and let the hook hear it."""
        while self._news:
            news = self._news.popleft()
            self._runtime.note("collision", self._said(news), self._settings().line, paths=len(news))
            self.notices.wake()

    def _said(self, news: tuple[ListedCollision, ...]) -> str:
        named = "; ".join(_said_of(row.collision) for row in news[:NAMED_MAX])
        more = f"; and {len(news) - NAMED_MAX} more" if len(news) > NAMED_MAX else ""
        return f"{counted(len(news), 'path')} of {self._settings().name} made on two homes: {named}{more}"

    @property
    def listed(self) -> tuple[ListedCollision, ...]:
        """The listed ones, in the order in which they came."""
        return tuple(row for row in self.book.rows if row.is_listed)

    @property
    def open_count(self) -> int:
        """How many no person has reviewed."""
        return sum(not row.reviewed_by for row in self.listed) + self.book.left_out

    def review(self, tag: str, by: str) -> bool:
        """In the worker thread: mark the collisions of this id as looked at; False where there are none."""
        book = reviewed(self.book, tag, by, wall_ms())
        if book is None:
            return False
        if book != self.book:
            self._runtime.store.put(self._key, msgspec.msgpack.encode(book))
            self.book = book
        return True

    def sides(self, collision: Collision) -> tuple[CollisionSide, ...]:
        """In the worker thread: what the tree has at the contested name, and at the one that was given."""
        laid = self._unions.required()
        return tuple(_side(laid, path) for path in (collision.component, collision.shown))


def _side(laid: Laid, path: bytes) -> CollisionSide:
    sources = laid.ownership.of(path)
    origins = tuple(each.origin for each in sources)
    return CollisionSide(path, origins, sources[0].entry if sources else None)


def _said_of(collision: Collision) -> str:
    name, other = shown(collision.component), shown(collision.shown)
    return f"{name} stays that of {collision.winner}, and that of {collision.origin} is {other}"
