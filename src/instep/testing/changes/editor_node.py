"""A simulated node whose tree is edited: the real ``OfferMachine``, its disk, persons who write and programs with
locks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from instep.core import vocabulary as w
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer import OfferMachine
from instep.core.vocabulary import Trouble
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, LineId, NodeName
from instep.model.lock import LockGone, LockGranted, LockOwner
from instep.model.manifest.entry import Entry, Kind
from instep.net.messages import changing as m
from instep.net.messages.parts import Message
from instep.testing.changes.editor_disk import EditorDisk
from instep.testing.changes.ledger import ChangeLedger
from instep.testing.changes.options import ChangeOptions
from instep.testing.changes.process import Parcel, SimProcess, trouble
from instep.testing.world.disk import content_digest
from instep.testing.world.network import Network
from instep.testing.world.world import World

ANSWER_MS = 4_000
LOOK_MS = 2_000
LINK_MS = 500


@dataclass(slots=True)
class LockSession:
    """A program that works under a lock."""

    owner: LockOwner
    path: bytes


class SimEditor(SimProcess):
    """``generation_of`` gives what a head has, once it is known here."""

    def __init__(
        self,
        world: World,
        net: Network,
        name: str,
        line: LineId,
        options: ChangeOptions,
        ledger: ChangeLedger,
    ) -> None:
        super().__init__(world, net, name, options)
        self.line = line
        self.ledger = ledger
        self.config = o.OfferConfig(NodeName(name), author=name)
        self.hold(EditorDisk())
        self.generation_of: Callable[[HeadRef], dict[bytes, Entry]] = lambda _: {}
        self.make_machine: type[OfferMachine] = OfferMachine
        self._wanted: HeadRef | None = None
        self._asked: dict[int, Callable[[Any], None]] = {}
        self._last_number = 0
        self._sessions: dict[int, LockSession] = {}
        self._last_session = 0
        self._is_up = False
        self._writes = 0

    def hold(self, disk: EditorDisk) -> None:
        """Have this disk."""
        self.disk = disk
        disk.on_replace = lambda path, here: self.ledger.replaced(self.name, disk, path, here)

    def began(self) -> None:
        self._asked.clear()
        self._sessions.clear()
        self._is_up = False
        self.disk.owned = self.disk.facts.owned if self.disk.facts is not None else ()
        self.machine = self.make_machine(self.line, self.config, self.disk.facts)
        seed = self.rng.randbytes(16)
        self.post(o.OffersStarted(f"boot {self.boot}", seed, len(self.disk.generation)))
        if self.disk.head is not None:
            self.post(self.disk.reached())
        self._look_again()
        self._mind_link()
        self._follow_again()

    # --- the follower's part ----------------------------------------------------------------------------------

    def head_seen(self, head: HeadRef) -> None:
        """The newest generation of the home; only the newest is wanted."""
        if self._wanted is None or head.number > self._wanted.number:
            self._wanted = head

    def _follow_again(self) -> None:
        self.later(self.rng.uniform(50, 500), self._follow_again)
        head = self._wanted
        if head is None or head == self.disk.head or not self.net.is_open("main", self.name):
            return
        if self._inbox:
            return  # An apply waits until the machine has heard of every look, for owned paths are not laid.
        generation = self.generation_of(head)
        if self.chance(self.options.withheld):
            self.disk.withheld.update(path for path in generation if path not in self.disk.tree)
        self.world.record(self.name, "!", f"holds generation {head.number}")
        self.post(self.disk.apply(head, generation))
        self.later(self.rng.uniform(10, 600), self.look)

    def _look_again(self) -> None:
        self.later(LOOK_MS, self._look_again)
        self.look()
        if not self.chance(0.6):
            self.disk.restore_unlaid()

    def look(self) -> None:
        self.post(self.disk.look())
        self._mind_losing()

    def _mind_losing(self) -> None:
        done = self.disk.set_aside()
        if done is not None:
            self.post(done)

    def _mind_link(self) -> None:
        """Both ends notice late that the link broke."""
        self.later(self.rng.uniform(0.5, 1.5) * LINK_MS, self._mind_link)
        is_up = self.net.is_open(self.name, "main") and self.net.is_open("main", self.name)
        if is_up != self._is_up:
            self._is_up = is_up
            self.post(o.HomeUp() if is_up else o.HomeDown())

    # --- effects ----------------------------------------------------------------------------------------------

    def act(self, effect: Any) -> None:
        match effect:
            case o.SubmitOffer(req, _, change_set, releases):
                asked: Message = m.SubmitRequest(self.line, change_set.encoded(), releases=releases)
                self._ask(asked, m.SubmitReply, o.OfferAnswered, o.OfferFailed, req)
            case o.AskLock(req):
                self._ask(self._lock_request(effect), m.LockReply, o.LockAnswered, o.LockAskFailed, req)
            case o.AskRelease(req, path, fence):
                asked = m.UnlockRequest(self.line, path, fence)
                self._ask(asked, m.LockReply, o.LockAnswered, o.LockAskFailed, req)
            case o.GiveLockAnswer():
                self._given(effect)
            case o.OwnPaths():
                self.disk.perform(effect)
                self.later(self.rng.uniform(1, 300), self._mind_losing)
            case o.LookAtPaths(req):
                answer: Any = self.disk.perform(effect)
                if self.chance(self.options.work_fails):
                    answer = o.LookFailed(req, trouble("io"))
                self.later(self.rng.uniform(0, self.options.job_ms), lambda: self.post(answer))
            case o.SaveOffers():
                self.disk.perform(effect)
            case w.Note() | o.ReportOffers():
                pass
            case _:
                raise AssertionError(effect)

    def _lock_request(self, effect: o.AskLock) -> Message:
        wanted = effect.wanted
        user, client = wanted.owner.user, wanted.owner.client
        if wanted.steals and effect.fence is None:
            return m.BreakRequest(
                self.line, wanted.path, user, "needed now", client, steals=True, ttl_ms=wanted.ttl_ms,
                base=wanted.base,
            )  # fmt: skip
        return m.LockRequest(
            self.line, wanted.path, user, client, wanted.base, wanted.ttl_ms, "", effect.fence
        )

    def _ask(self, asked: Message, reply: Any, answered: Any, failed: Any, req: int) -> None:
        """The first answer counts; without one the request fails after a while."""
        self._last_number += 1
        number = self._last_number

        def done(raw: bytes | None, kind: str = "") -> None:
            if self._asked.pop(number, None) is None:
                return
            if raw is None:
                self.post(failed(req, trouble("unavailable")))
            elif kind == "refusal":
                self.post(failed(req, msgspec.msgpack.decode(raw, type=Trouble)))
            else:
                self.post(answered(req, msgspec.msgpack.decode(raw, type=reply).answer))

        self._asked[number] = lambda parcel: done(parcel.raw, parcel.kind)
        self.later(ANSWER_MS, lambda: done(None))
        self.send("main", "request", number, msgspec.msgpack.encode(asked))

    def got(self, sender: str, parcel: Parcel) -> None:
        if parcel.kind == "notice":
            notice = msgspec.msgpack.decode(parcel.raw, type=m.LockNotice)
            gone = LockGone(notice.why, notice.by, notice.reason)
            self.post(o.LockNews(notice.path, notice.fence, gone))
        elif parcel.number in self._asked:
            self._asked[parcel.number](parcel)

    # --- persons and programs here ----------------------------------------------------------------------------

    def write(self, path: bytes, entry: Entry | None) -> None:
        """A person changes a file, whether or not the daemon runs."""
        if entry is None and path not in self.disk.tree:
            return
        self.world.record(self.name, "!", f"a person {'removes' if entry is None else 'writes'} {path!r}")
        self.ledger.writes(self.name, path, entry)
        self.disk.edit(path, entry)
        if self.is_alive:
            self.later(self.rng.uniform(200, 800), self.look)

    def new_file(self, path: bytes) -> Entry:
        """Contents that nothing else has."""
        self._writes += 1
        text = b"%s %d" % (self.name.encode(), self._writes)
        return Entry(path, Kind.FILE, 0o644, len(text), self._writes, content_digest(text), 0)

    def begin_session(self, path: bytes) -> None:
        """A program locks a path, writes, waits, and releases it; or dies, or the lock is not to be had."""
        if not self.is_alive or self.is_stopped:
            return
        self._last_session += 1
        owner = LockOwner(NodeName(self.name), "ana", f"program {self._last_session}")
        self._sessions[self._last_session] = LockSession(owner, path)
        here = self.disk.tree.get(path)
        base = EMPTY_DIGEST if here is None else Digest(here.digest)
        steals = self.chance(self.options.steals)
        self.post(
            o.LockWanted(
                self._last_session, owner, path, base, self.options.ttl_ms, "", steals, is_operator=True
            )
        )

    def _given(self, given: o.GiveLockAnswer) -> None:
        session = self._sessions.pop(given.request, None)
        if session is None or not isinstance(given.answer, LockGranted):
            return
        ttl_ms = self.options.ttl_ms
        for _ in range(self.rng.randrange(3)):
            self.later(
                self.rng.uniform(0, ttl_ms), lambda: self.write(session.path, self.new_file(session.path))
            )
        if self.rng.random() < 0.7 or not self.world.is_faulty:
            self.later(self.rng.uniform(0, 1.5 * ttl_ms), lambda: self._release(session))

    def _release(self, session: LockSession) -> None:
        self._last_session += 1
        self.post(o.ReleaseWanted(self._last_session, session.owner, session.path))
