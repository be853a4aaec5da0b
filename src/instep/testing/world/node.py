"""The base of every simulated node: a process that can die at any effect, a store, a place, timers, an ear.

The driver is as boring as the real one: take an event, step the machine, perform the effects in order.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from itertools import takewhile
from typing import Any

import msgspec

from instep.core import vocabulary as w
from instep.errors import PeerError, Retry
from instep.model.generation import SignedEpoch
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.manifest.check import check_tree, missing
from instep.model.manifest.pages import digest_of
from instep.model.manifest.walk import iterate
from instep.net.messages import messages as m
from instep.testing.world.disk import ERRNOS, SMALL, SimPlace, SimStore, StepFailed, content_digest
from instep.testing.world.network import Network
from instep.testing.world.signatures import verdict_of
from instep.testing.world.world import World


class Crashed(Exception):
    """The process died while it performed an effect."""


def trouble(code: str, exit_code: int = 7, retry: Retry = Retry.LATER) -> w.Trouble:
    return w.Trouble(code, f"{code} (simulated)", retry, exit_code)


class SimNode(ABC):
    """Base of writer and partner. Subclasses make the machine and perform its effects."""

    def __init__(self, world: World, net: Network, name: str, line: LineId) -> None:
        self.world = world
        self.net = net
        self.name = name
        self.line = line
        self.store = SimStore()
        self.place = SimPlace(name)
        self.machine: Any = None
        self.config: Any = None
        self.world_machine: Callable[..., Any] | None = None
        """A planted machine."""
        self.is_alive = False
        self.is_member = True
        """Whether the writer lists it; the writer itself always is one."""
        self.incarnation = 0
        self.rng = world.stream(f"node {name}")
        self.missed: Callable[[bytes], None] | None = None
        """Called with the path of contents that a peer asked for and that have gone."""
        self.sessions: dict[str, None] = {}
        self._timers: dict[str, int] = {}
        self._cancelled: dict[int, None] = {}
        self._clock_rate = 1 + self.rng.uniform(-1, 1) * world.options.clock_drift
        self._booted_at = 0
        net.peers[name] = self

    # --- the process ----------------------------------------------------------------------------------------

    def boot(self) -> None:
        self.incarnation += 1
        self.is_alive = True
        self._booted_at = self.world.now
        self._timers.clear()
        self._cancelled.clear()
        self.world.record(self.name, "!", "starts")
        self.machine = self.make_machine()
        self.take(w.Started())

    def crash(self, why: str) -> None:
        if not self.is_alive:
            return
        self.world.record(self.name, "!", f"dies: {why}")
        self.is_alive = False
        self.sessions.clear()
        self.store.crash()
        self.place.crash(self.rng)
        self.on_crash()
        self.world.at(self.rng.uniform(100, 3_000), self.boot)

    def now_ms(self) -> int:
        """This node's monotonic clock, which drifts."""
        return int((self.world.now - self._booted_at) * self._clock_rate) + 1_000_000 * self.incarnation

    def later(self, delay_ms: float, do: Callable[[], None]) -> None:
        """Do it in this process's life, or never."""
        born = self.incarnation

        def alive() -> None:
            if self.is_alive and self.incarnation == born:
                try:
                    do()
                except Crashed as death:
                    self.crash(str(death))

        self.world.at(delay_ms, alive)

    def post(self, event: Any, delay_ms: float = 0) -> None:
        """An event into the inbox. Messages of others and answers may come twice, the second time late; the
        process's own observations (a session that opened or broke) come once and in order."""
        self.later(delay_ms, lambda: self.take(event))
        is_said = hasattr(event, "req") or hasattr(event, "signed")
        if is_said and self.world.is_faulty and self.rng.random() < self.world.options.duplicate:
            self.later(delay_ms + self.rng.uniform(0, 500), lambda: self.take(event))

    def take(self, event: Any) -> None:
        self.drive(self.machine, event, self.perform)

    def drive(self, machine: Any, event: Any, perform: Callable[[Any], None]) -> None:
        """One event into a machine of this node, its effects in order; the process may die before each."""
        self.world.events += 1
        self.world.record(self.name, ">", event)
        effects = machine.step(event, self.now_ms())
        try:
            for effect in effects:
                if self.world.is_faulty and self.rng.random() < self.world.options.crash_at_effect:
                    raise Crashed(f"before {type(effect).__name__}")
                self.world.record(self.name, "<", effect)
                perform(effect)
        except Crashed as death:
            self.crash(str(death))
            return
        self.after_step()

    def born(self, kind: Callable[..., Any]) -> Any:
        """A machine of this kind, or the planted one, with the facts that the store saved last."""
        rng = self.world.stream(f"jitter {self.name} {self.incarnation}")
        return (self.world_machine or kind)(self.line, self.config, rng, self.store.facts)

    def perform(self, effect: Any) -> None:
        """Carry out one effect of the node's first machine."""
        match effect:
            case w.KeepGeneration():
                self.store.put(self.store.generations, effect.signed.id, effect.signed)
            case w.KeepEpoch():
                self.store.put(self.store.epochs, effect.signed.id, effect.signed)
            case w.Cancel():
                self.cancel(effect.req)
            case w.SetTimer():
                self.set_timer(effect)
            case w.Refuse() | w.Note():
                pass
            case _:
                self.act(effect)

    def set_timer(self, effect: w.SetTimer, take: Callable[[Any], None] | None = None) -> None:
        """``take`` gets the event when it is not this node's first machine that set the timer."""
        name = effect.name if take is None else f"{effect.name} of another machine"
        number = self._timers.get(name, 0) + 1
        self._timers[name] = number
        if effect.at_ms is None:
            return
        delay = max(0, effect.at_ms - self.now_ms()) / self._clock_rate + 1

        def fire() -> None:
            if self._timers.get(name) == number:
                (take or self.take)(w.TimerFired(effect.name))

        self.later(delay, fire)

    def cancel(self, req: int) -> None:
        """Half of the time the work goes on and its answer comes late: requests have numbers for that."""
        if self.rng.random() < 0.5:
            self._cancelled[req] = None

    def is_cancelled(self, req: int) -> bool:
        return req in self._cancelled

    def fails(self, share: float) -> bool:
        return self.world.is_faulty and self.rng.random() < share

    def fault(self, path: bytes) -> None:
        """Before each step of a tree job: a stuck path fails every time, any other now and then."""
        lasting = self.place.stuck.get(path)
        if lasting is None and self.fails(self.world.options.step_fails):
            lasting = self.rng.choice(ERRNOS)
        if lasting is not None:
            raise StepFailed(lasting, path)

    def walk(
        self,
        steps: Iterator[bytes | None],
        delay_ms: Callable[[], float],
        done: Callable[[tuple[bytes, ...]], None],
        broke: Callable[[StepFailed], None],
        drifted: tuple[bytes, ...] = (),
    ) -> None:
        """One step a moment, so that a crash, an edit or any error can fall between two."""
        try:
            path = next(steps)
        except StopIteration:
            done(drifted)
            return
        except StepFailed as error:
            broke(error)
            return
        found = drifted if path is None else (*drifted, path)
        self.later(delay_ms(), lambda: self.walk(steps, delay_ms, done, broke, found))

    def content_of_others(self, digest: Digest, names: Iterable[str]) -> bytes | None:
        """From history, tree or archive of the first of these nodes in reach that has it."""
        peers = (self.net.peers.get(name) for name in names if self.net.is_open(self.name, name))
        others = (peer for peer in peers if isinstance(peer, SimNode))
        found = (each.store.history.get(digest) or each.place.content_of(digest) for each in others)
        return next((data for data in found if data is not None), None)

    def hook_ms(self, least_ms: float) -> float:
        """How long a hook runs: in some seeds so long that much happens meanwhile."""
        most = self.world.options.hook_ms
        return least_ms + self.rng.uniform(0, most) if most else least_ms

    def in_this_life(self, do: Callable[[bytes | None], None]) -> Callable[[bytes | None], None]:
        """An answer from outside, dropped when the process that asked is dead."""
        born = self.incarnation

        def guarded(raw: bytes | None) -> None:
            if self.is_alive and self.incarnation == born:
                do(raw)

        return guarded

    def fetch_pages(
        self, req: int, source: str, head: HeadRef, done: Callable[[w.Trouble | None], None]
    ) -> None:
        """Level by level, verified, then the whole manifest is checked; ``done`` gets what went wrong."""
        if self.is_cancelled(req):
            return
        if self.fails(self.world.options.disk_full):
            done(trouble("disk_full", 8))
            return
        absent = missing(head.root, self.store.pages.get)
        if not absent:
            failed = self._wrong_manifest(head)
            if failed is None:
                self.store.flush()
            done(failed)
            return
        wanted = tuple(absent[: m.DIGESTS_MAX])

        def arrived(raw: bytes | None) -> None:
            failed = self._take_pages(raw, wanted)
            if failed is None:
                self.fetch_pages(req, source, head, done)
            else:
                done(failed)

        request = m.PagesRequest(self.line, head.id, wanted)
        self.net.call(self.name, source, m.encode(request), self.in_this_life(arrived))

    def _take_pages(self, raw: bytes | None, wanted: tuple[Digest, ...]) -> w.Trouble | None:
        if raw is None:
            return trouble("unavailable")
        try:
            pages = m.decode(raw, m.PagesReply).pages
        except PeerError as error:
            return trouble(error.error_code, 9, Retry.ELSEWHERE)
        if not pages:
            return trouble("superseded", 6)
        for digest, page in zip(wanted, pages, strict=False):
            try:
                is_right = digest_of(page) == digest
            except PeerError:
                is_right = False
            if not is_right:
                return trouble("wrong_page", 9, Retry.ELSEWHERE)
            self.store.put_page(digest, page)
        return None

    def _wrong_manifest(self, head: HeadRef) -> w.Trouble | None:
        try:
            check_tree(head.root, self.store.get_page, SMALL)
        except PeerError as error:
            return trouble(error.error_code, 9, Retry.ELSEWHERE)
        return None

    # --- for subclasses -------------------------------------------------------------------------------------

    @abstractmethod
    def make_machine(self) -> Any:
        """A machine born with the facts that the store saved last."""

    @abstractmethod
    def act(self, effect: Any) -> None:
        """Carry out one effect that only a machine of this kind has."""

    def after_step(self) -> None:  # noqa: B027  not every node looks
        """Checkers hook in here."""

    def on_crash(self) -> None:  # noqa: B027  not every node has more to lose
        """Drop the other state that dies with the process."""

    # --- serving --------------------------------------------------------------------------------------------

    @abstractmethod
    def offered(self, other: str) -> HeadRef | None:
        """The head that this node reports to ``other``."""

    def head_message(self, other: str, known: HeadRef | None = None) -> m.Head | None:
        """The message to ``other``, which reported the head ``known`` itself."""
        head = self.offered(other)
        if head is None or head.id not in self.store.generations:
            return None
        beside = self.beside(known, head)
        return m.Head(self.line, self.store.generations[head.id], self.epoch_records(), beside=beside)

    def beside(self, known: HeadRef | None, head: HeadRef) -> HeadRef | None:
        """Only a line's writer knows what its head descends from."""
        return None

    def post_epochs(self, sender: str, records: Iterable[SignedEpoch]) -> None:
        for record in records:
            self.post(w.EpochSeen(NodeName(sender), record, verdict_of(record)))

    def epoch_records(self) -> tuple[SignedEpoch, ...]:
        return tuple(sorted(self.store.epochs.values(), key=lambda e: (e.body().epoch, e.raw)))

    def serve(self, asker: str, raw: bytes) -> bytes | None:
        try:
            request = msgspec.msgpack.decode(raw, type=m.HeadsRequest | m.PagesRequest | m.ContentsRequest)
        except (msgspec.DecodeError, ValueError):
            return None
        self.world.record(self.name, "=", f"serves {type(request).__name__} to {asker}")
        if isinstance(request, m.HeadsRequest):
            head = self.head_message(asker, next((held.head for held in request.holds), None))
            if head is not None and self.world.options.leaves_known_out:
                head = None if head.generation.ref() == request.lines[0].head else head
            return m.encode(m.HeadsReply(() if head is None else (head,)))
        if isinstance(request, m.PagesRequest):
            known = takewhile(self.store.pages.__contains__, request.digests)
            return m.encode(m.PagesReply(tuple(self.store.pages[digest] for digest in known)))
        return self._serve_contents(request)

    def _serve_contents(self, request: m.ContentsRequest) -> bytes:
        """Contents by position, hashed as they are sent: None where the file moved on."""
        answers: list[bytes | None] = []
        for want in request.wants:
            try:
                entries = list(iterate(want.page, self.store.get_page))
            except (KeyError, PeerError):
                answers += [None] * len(want.positions)
                continue
            for position in want.positions:
                entry = entries[position]
                data = self.place.tree.get(entry.path)
                if data is None or content_digest(data) != entry.digest:
                    data = self.store.history.get(entry.digest) or self.place.content_of(entry.digest)
                if data is None and self.missed is not None:
                    self.missed(entry.path)
                answers.append(data)
        return msgspec.msgpack.encode(answers)

    def hear(self, sender: str, raw: bytes) -> None:
        try:
            message = m.decode_stream(raw)
        except PeerError:
            return
        if isinstance(message, m.Head):
            self.heard_head(sender, message)
        elif isinstance(message, m.Report) and sender in self.sessions:
            self.heard_report(sender, message)
        elif isinstance(message, m.OrderMessage) and sender in self.sessions:
            self.heard_order(sender, message)

    @abstractmethod
    def heard_head(self, sender: str, message: m.Head) -> None:
        """A head came over the stream."""

    def heard_report(self, sender: str, message: m.Report) -> None:  # noqa: B027  not every node is reported to
        """A node reported the line's standing there."""

    def heard_order(self, sender: str, message: m.OrderMessage) -> None:  # noqa: B027  not every node takes orders
        """A node ordered what to do with a head."""

    @abstractmethod
    def opened(self, other: str, *, is_dialer: bool) -> None:
        """A stream with ``other`` is open."""

    @abstractmethod
    def closed(self, other: str) -> None:
        """The stream with ``other`` broke."""
