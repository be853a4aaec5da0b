"""Edits of other homes' files in a simulated home, and changes that it makes for others: the real machines of both.

It stands for ``node/replica/offers.py`` and the home's switch by compare-and-set, which is one step here. Requests and
answers may be lost, doubled or late; a hub that passes them on is as good as a link.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec

from instep.core.changes import home_vocabulary as c
from instep.core.changes import offer_vocabulary as o
from instep.core.changes.home import HomeMachine
from instep.core.changes.home_facts import HomeConfig, HomeFacts, Submission
from instep.core.changes.offer import OfferMachine
from instep.core.follow import vocabulary as f
from instep.core.guards.guards import DeletionPolicy
from instep.core.union.divide import Divided, ForeignChange
from instep.core.vocabulary import Trouble
from instep.model.change import OutcomeKind, PathChange, PathOutcome, change_set_of, is_alike, wanted_contents
from instep.model.ids import HeadRef, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.walk import totals
from instep.net.messages import changing as m
from instep.testing.unions.home_base import TREE, line_of
from instep.testing.unions.laid import SimLaid
from instep.testing.unions.own_side import OwnSide
from instep.testing.unions.process import trouble

HOME, OFFER = "home", "offer "
"""The machine of the home, and those of offers, behind which the origin stands."""
ANSWER_MS = 4_000
PARCEL = b"\xc1"
"""No message of a stream begins so."""
_NO_GUARD = DeletionPolicy(count=1_000_000)


class _Parcel(msgspec.Struct, frozen=True, array_like=True):
    """A request, its answer or the refusal of one, with the number of the request."""

    kind: str
    number: int
    raw: bytes


class OfferSide(OwnSide):
    """``owned`` are the paths of each line that its offers own."""

    def began_offers(self) -> None:
        self.owned: dict[NodeName, tuple[o.OwnedPath, ...]] = {}
        self._reached: dict[NodeName, HeadRef] = {}
        self._asked: dict[int, Callable[[_Parcel | None], None]] = {}
        self._askers: dict[int, tuple[str, int]] = {}
        self._last_parcel = 1_000_000 * self.incarnation  # an answer of another life is none
        if not self.options.offers:
            return
        facts: HomeFacts | None = self.disk.state.facts.get(HOME)
        others = tuple(NodeName(name) for name in self.net.peers if name != self.name)
        config = HomeConfig(self.me, others, _NO_GUARD)
        self.machines[HOME] = HomeMachine(line_of(self.me), config, self._jitter(HOME), facts)
        self.post(HOME, c.HomeStarted(f"boot {self.incarnation}", 1, self.own_facts.head, 1))

    def begin_offers_of(self, origin: NodeName) -> None:
        name = OFFER + origin
        if not self.options.offers or name in self.machines:
            return
        facts: o.OfferFacts | None = self.disk.state.facts.get(name)
        config = o.OfferConfig(self.me, deletions=_NO_GUARD, author=self.name, retry_max_ms=3_000)
        self.machines[name] = OfferMachine(line_of(origin), config, facts)
        self.owned[origin] = facts.owned if facts is not None else ()
        seed = self.rng.randbytes(16)
        self.post(name, o.OffersStarted(f"boot {self.incarnation}", seed, 1))
        self.post(name, o.HomeUp())

    def kept_paths(self) -> frozenset[bytes]:
        """The owned paths: no switch touches them."""
        return frozenset(each.path for owned in self.owned.values() for each in owned)

    # --- what the looks find ----------------------------------------------------------------------------------

    def look_taken(self, laid: SimLaid, divided: Divided) -> None:
        if not self.options.offers:
            return
        edits: dict[NodeName, list[o.Edit]] = {}
        of_line = {each.path: origin for origin, owned in self.owned.items() for each in owned}
        for change in divided.foreign:
            source = offered_source(change)
            if source is not None:
                edits.setdefault(source.origin, []).append(o.Edit(change.path, change.found, source.entry))
            elif not change.sources and change.path in of_line:
                edits.setdefault(of_line[change.path], []).append(o.Edit(change.path, change.found, None))
        for origin in self.owned:
            base, found = laid.part_of(origin), tuple(edits.get(origin, ()))
            if base is not None and (found or self.owned[origin]):
                self.post(OFFER + origin, o.TreeLooked(found, (), is_whole=True, entries=1, head=base))

    def tell_offers(self) -> None:
        """Which paths stay as they are, and which are put back."""
        owned = [each for owned in self.owned.values() for each in owned]
        pending = {each.path for each in owned if each.state is not o.EditState.LOSING}
        lost = {each.path for each in owned} - pending
        for path, change in self.foreign.items():
            if not self.options.offers or offered_source(change) is None:
                lost.add(path)
        told = f.OffersChanged(tuple(sorted(pending)), tuple(sorted(lost - pending)), None)
        self.post(TREE, told)

    def set_aside(self, paths: tuple[bytes, ...]) -> None:
        """These were archived, and are as the union has them."""
        for origin, owned in self.owned.items():
            losing = {each.path for each in owned if each.state is o.EditState.LOSING}
            done = tuple(path for path in paths if path in losing)
            if done:
                self.post(OFFER + origin, o.EditsSetAside(done))

    def parts_are_live(self) -> None:
        for origin, owned in self.owned.items():
            head = self.live_of(origin)
            if head is not None and self._reached.get(origin) != head and self.has_pages(head):
                self._reached[origin] = head
                has = tuple((each.path, self.unions.entry(head.root, each.path)) for each in owned)
                self.post(OFFER + origin, o.HeadReached(head, has))

    # --- offers -----------------------------------------------------------------------------------------------

    def perform_offer(self, origin: NodeName, effect: Any) -> None:
        match effect:
            case o.SaveOffers(facts):
                self.save(OFFER + origin, facts)
            case o.OwnPaths(owned):
                self.owned[origin] = owned
                self.tell_offers()
                lost = tuple(each.path for each in owned if each.state is o.EditState.LOSING)
                if lost:
                    self.post(TREE, f.TreeTouched(lost))
            case o.SubmitOffer(req, _, change_set):
                request = m.SubmitRequest(line_of(origin), change_set.encoded())
                self._ask(origin, request, partial(self._answered_offer, origin, req))
            case o.LookAtPaths(req, paths):
                self.later(
                    self.rng.uniform(0, self.options.job_ms), lambda: self._look_at(origin, req, paths)
                )
            case o.ReportOffers():
                pass
            case _:
                raise AssertionError(effect)

    def _answered_offer(self, origin: NodeName, req: int, answer: _Parcel | None) -> None:
        if answer is None:
            self.take(OFFER + origin, o.OfferFailed(req, trouble("unavailable")))
        elif answer.kind == "refusal":
            why = msgspec.msgpack.decode(answer.raw, type=Trouble)
            self.take(OFFER + origin, o.OfferFailed(req, why))
        else:
            reply = msgspec.msgpack.decode(answer.raw, type=m.SubmitReply)
            self.take(OFFER + origin, o.OfferAnswered(req, reply.answer))

    def _look_at(self, origin: NodeName, req: int, paths: tuple[bytes, ...]) -> None:
        now = self.unions.now
        line = None if now is None else now.lines.by_origin.get(origin)
        if now is None or line is None or not self.is_still:
            self.take(OFFER + origin, o.LookFailed(req, trouble("tree_is_switched", 6)))
            return
        pairs = [(path, self.disk.tree.get(path), line.lookup(path)) for path in paths]
        edits = tuple(o.Edit(path, here, base) for path, here, base in pairs if not is_alike(here, base))
        self.take(OFFER + origin, o.PathsLooked(req, edits, now.part_of(origin)))

    # --- parcels ----------------------------------------------------------------------------------------------

    def _ask(self, other: NodeName, request: Any, done: Callable[[_Parcel | None], None]) -> None:
        self._last_parcel += 1
        number, life = self._last_parcel, self.incarnation

        def ended(answer: _Parcel | None) -> None:
            if self.incarnation == life and self._asked.pop(number, None) is not None:
                done(answer)

        self._asked[number] = ended
        self.later(ANSWER_MS, lambda: ended(None))
        self._send(other, _Parcel("request", number, msgspec.msgpack.encode(request)))

    def _send(self, other: str, parcel: _Parcel) -> None:
        self.net.send(self.name, other, PARCEL + msgspec.msgpack.encode(parcel))

    def parcel(self, sender: str, raw: bytes) -> None:
        parcel = msgspec.msgpack.decode(raw, type=_Parcel)
        if parcel.kind == "request":
            self.later(0, lambda: self._asked_here(sender, parcel))
        elif parcel.number in self._asked:
            self.later(0, partial(self._asked[parcel.number], parcel))

    def _asked_here(self, sender: str, parcel: _Parcel) -> None:
        request = msgspec.msgpack.decode(parcel.raw, type=m.SubmitRequest)
        number = len(self._askers) + 1
        self._askers[number] = sender, parcel.number
        submission = Submission(NodeName(sender), change_set_of(request.change_set), request.releases)
        self.take(HOME, c.Submitted(number, submission))

    def _reply(self, req: int, kind: str, answer: Any) -> None:
        sender, number = self._askers[req]
        self._send(sender, _Parcel(kind, number, msgspec.msgpack.encode(answer)))

    # --- the home ---------------------------------------------------------------------------------------------

    def perform_home(self, effect: Any) -> None:
        state = self.disk.state
        match effect:
            case c.SaveHome(facts):
                self.save(HOME, facts)
            case c.LookUp(req, id_):
                self.post(HOME, c.LookedUp(req, state.answers.get(id_)))
            case c.KeepChange(id_, submission, decided):
                state.sets[id_] = submission, decided
            case c.KeepAnswer(answer):
                state.answers[answer.id] = answer
                state.sets.pop(answer.id, None)
            case c.FetchOffered(req, source, _, change_set):
                self.later(
                    self.rng.uniform(0, self.options.job_ms),
                    lambda: self._fetch_offered(req, source, change_set),
                )
            case c.ApplyChanges():
                self.later(self.rng.uniform(0, self.options.job_ms), lambda: self._apply_changes(effect))
            case c.RecoverChanges(req, id_):
                kept, decided = state.sets.get(id_, (None, ()))
                self.post(HOME, c.ChangesRecovered(req, kept, decided, self.disk.changed.get(id_)))
            case c.PublishPaths(req, paths):
                self.flush(lambda: self._published_paths(req, paths))
            case c.ReplyChange(req, answer):
                self._reply(req, "answer", m.SubmitReply(answer))
            case c.ReplyNotTaken(req, why):
                self._reply(req, "refusal", why)
            case c.DropOffered():
                pass
            case _:
                raise AssertionError(effect)

    def _fetch_offered(self, req: int, source: NodeName, change_set: Any) -> None:
        peer: Any = self.net.peers[source]
        is_open = self.net.is_open(self.name, source)
        wanted = [digest for digest, _ in wanted_contents(change_set)]
        if not is_open or any(peer.is_withheld(digest, self.name) for digest in wanted):
            self.take(HOME, c.ContentsFailed(req, trouble("cut")))
            return
        if not all(peer.disk.has(digest) for digest in wanted):
            self.take(HOME, c.ContentsFailed(req, trouble("contents_gone")))
            return
        self.disk.history.update(wanted)
        self.take(HOME, c.ContentsHere(req))

    def _apply_changes(self, effect: c.ApplyChanges) -> None:
        if self.chance(self.options.work_fails) or not self.is_still:
            self.take(HOME, c.ApplyFailed(effect.req, trouble("disk_full", 8)))
            return
        wanted = frozenset(effect.paths)
        changes = [change for change in effect.change_set.changes if change.path in wanted]
        outcomes = tuple(self._changed(change) for change in changes)
        self.disk.changed[effect.id] = outcomes
        self.step("changes applied")
        self.take(HOME, c.ChangesApplied(effect.req, outcomes))

    def _changed(self, change: PathChange) -> PathOutcome:
        """One path by compare-and-set."""
        now, here = self.unions.now, self.disk.tree.get(change.path)
        assert now is not None
        if is_alike(here, change.new):
            return PathOutcome(change.path, OutcomeKind.SAME)
        if not self.is_base(here, change):
            return PathOutcome(change.path, OutcomeKind.OUTDATED, here)
        if any(each.origin != self.me for each in now.ownership.of(change.path)):
            return PathOutcome(change.path, OutcomeKind.REFUSED, code="not_here")
        if here is not None and change.new is None:
            self.disk.take_away(change.path)
        elif change.new is not None:
            if here is not None:
                self.disk.take_away(change.path)
            if not self.disk.write(change.path, as_written(change.new)):
                return PathOutcome(change.path, OutcomeKind.REFUSED, code="not_a_directory")
        self.ledger.accepted(self.name, change, here)
        return PathOutcome(change.path, OutcomeKind.APPLIED)

    def is_base(self, here: Entry | None, change: PathChange) -> bool:
        """A planted bug has another."""
        return is_alike(here, change.base)

    def _published_paths(self, req: int, paths: tuple[bytes, ...]) -> None:
        head = self.own_facts.head
        is_there = (
            head is not None
            and self.has_pages(head)
            and all(is_alike(self.disk.tree.get(path), self.unions.entry(head.root, path)) for path in paths)
        )
        self.take(HOME, c.PathsPublished(req, head if is_there else None, "" if is_there else "held back"))

    def home_moved(self, head: HeadRef) -> None:
        if HOME in self.machines:
            entries = totals(head.root, self.disk.state.get_page).entries
            self.post(HOME, c.HeadMoved(head, entries))


def offered_source(change: ForeignChange) -> Any:
    """The one line that a changed file is offered to, None where it is put back."""
    if len(change.sources) != 1:
        return None
    (source,) = change.sources
    is_file = source.entry.kind is Kind.FILE and (change.found is None or change.found.kind is Kind.FILE)
    return source if source.path == change.path and is_file else None


def as_written(entry: Entry) -> Entry:
    """A change as the home lays it: it is born when the home publishes it."""
    return msgspec.structs.replace(entry, born_ms=0)
