"""Edits that were made in a followed tree: performs the effects of the line's ``OfferMachine``.

Its edits come from the looks of the ``FollowMachine``, and it says in turn which paths that machine leaves alone, and
which it archives and restores.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import assert_never

import msgspec

from instep.core.changes import offer_vocabulary as o
from instep.core.changes.offer import OfferMachine
from instep.core.follow.vocabulary import OffersChanged
from instep.core.guards.guards import DeletionPolicy
from instep.core.vocabulary import Note, SetTimer, TimerFired, Trouble, error_of, trouble_of
from instep.errors import PeerError, UnavailableError
from instep.model.change import ChangeAnswer, ChangeSet, Fence, wanted_contents
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.lock import LockGone, LockOwner, LockView
from instep.model.manifest.walk import Reader
from instep.model.paths import parent_of
from instep.net.messages import messages as m
from instep.net.service import BREAK_LOCK, LOCK, LOCKS, SUBMIT_HAVE, UNLOCK
from instep.node.config.filesets import FilesetSettings
from instep.node.following.home_link import OFFERS
from instep.node.following.offered_edits import contents_of, digest_at, edits_at, edits_of
from instep.node.lines.line_locks import LockOutcome, no_lock
from instep.node.lines.line_net import Source
from instep.node.runtime.boot import boot_id
from instep.node.runtime.driver import Driver
from instep.node.runtime.requests import Requests
from instep.node.runtime.runtime import Runtime
from instep.node.trees.drift_look import DriftFound
from instep.node.trees.fileset_tree import FilesetTree
from instep.store.port import ChangeSide
from instep.tree.root.failpoints import failpoint, register

SENT_UNASKED_BYTES = 1 << 20
"""Contents of up to so many bytes together are sent without asking which of them the home lacks."""
ANSWER_S = 600.0
LOCKS_SHOWN_MAX = 10_000
OFFERS_SAVED = register("offers.saved")
OFFERS_ANSWERED = register("offers.answered")
LOSING = o.EditState.LOSING


class Offering:
    """The edits of one followed line. ``tree_head`` is the generation that the tree holds; ``owns`` takes the paths
    that are owned; ``home`` is the link to the writer, None where it is not connected."""

    def __init__(
        self,
        tree: FilesetTree,
        home: Callable[[], Source | None],
        tree_head: Callable[[], HeadRef | None],
        owns: Callable[[OffersChanged], None],
        note: Callable[[Note], None],
    ) -> None:
        self.tree = self._tree = tree
        self._home = home
        self._tree_head = tree_head
        self._owns = owns
        self._note = note
        self._runtime: Runtime = tree.runtime
        self.facts = _saved(self._runtime, tree.line)
        self.owned: tuple[o.OwnedPath, ...] = self.facts.owned
        self.report: o.ReportOffers | None = None
        self.machine = OfferMachine(tree.line, offer_config(tree.fileset, self._runtime), self.facts)
        self.driver: Driver[o.OfferEvent, o.OfferEffect] = Driver(
            f"offer {tree.line}", self.machine, self._perform, TimerFired, self._runtime.directory.records
        )
        self._asks: Requests[o.OfferEvent, o.GiveLockAnswer] = Requests(self.driver.post)
        self._up: NodeName | None = None
        """The node that is asked now, the home or a hub."""
        self._told = OffersChanged()
        self._reached: HeadRef | None = None

    async def run(self) -> None:
        """Own the machine until cancelled."""
        self.driver.begin(o.OffersStarted(boot_id(), os.urandom(16), self._entries(self._tree_head())))
        self.reached(self._tree_head())
        try:
            await self.driver.run()
        finally:
            self._asks.close(
                lambda: UnavailableError("the fileset is no longer followed here", code="stopping")
            )

    # Events -------------------------------------------------------------------------------------------------

    def reconfigure(self, fileset: FilesetSettings) -> None:
        self.driver.post(o.OfferConfigChanged(offer_config(fileset, self._runtime)))

    def home_changed(self) -> None:
        """The link to the writer came, or went."""
        link = self._home()
        name = link.name if link is not None and OFFERS in link.takes else None
        if name != self._up:
            self._up = name
            self.driver.post(o.HomeUp() if name is not None else o.HomeDown())
        self._tell_owned()

    def retry(self) -> None:
        self.driver.post(o.OffersRetried())

    @property
    def listens(self) -> bool:
        """Whether looks at the tree matter: edits are offered, or paths are owned."""
        return self._tree.fileset.drift == "offer" or bool(self.owned)

    async def looked(self, base: HeadRef, found: DriftFound) -> None:
        """The tree was compared with ``base``."""
        if not self.listens:
            return
        edits = await self._tree.worker.run(edits_of, self._tree, base, found.differences)
        differing = {difference.path for difference in found.differences}
        is_all = len(found.differences) == found.total
        clean = self._clean(found, differing) if is_all else ()
        is_whole = found.cost is not None and is_all
        self.driver.post(o.TreeLooked(edits, clean, is_whole, self._entries(base), base))

    def _clean(self, found: DriftFound, differing: set[bytes]) -> tuple[bytes, ...]:
        """The owned paths that were looked at and do not differ."""
        looked, trees = set(found.looked), set(found.trees)
        owned = [each.path for each in self.owned if each.path not in differing]
        return tuple(
            path for path in owned if path in looked or any(above in trees for above in _upwards(path))
        )

    def reached(self, head: HeadRef | None) -> None:
        """The tree holds this generation."""
        if head is None or head == self._reached:
            return
        self._reached = head
        reader = Reader(self._tree.get_page)
        has = tuple((each.path, reader.lookup(head.root, each.path)) for each in self.owned)
        self.driver.post(o.HeadReached(head, has))

    def set_aside(self, paths: tuple[bytes, ...]) -> None:
        """These paths were archived and restored."""
        losing = {each.path for each in self.owned if each.state is LOSING}
        done = tuple(path for path in paths if path in losing)
        if done:
            self.driver.post(o.EditsSetAside(done))

    def lock_ended(self, news: m.LockNotice) -> None:
        gone = LockGone(news.why, news.by, news.reason)
        self.driver.post(o.LockNews(news.path, news.fence, gone))

    # What an apply leaves alone -----------------------------------------------------------------------------

    def kept(self) -> tuple[bytes, ...]:
        """The owned paths; asked in the tree's thread."""
        return tuple(each.path for each in self.owned)

    # Commands -----------------------------------------------------------------------------------------------

    async def lock(
        self, owner: LockOwner, path: bytes, ttl_ms: int, reason: str, *, steals: bool, fence: Fence | None
    ) -> LockOutcome:
        """Lock a path for a program here, or give its lock, that of ``fence`` alone, the whole time again."""
        base = self._tree_head()
        if base is None:
            raise UnavailableError("no generation is here yet", code="no_generation")
        self.require_home()
        digest = await self._tree.worker.run(digest_at, self._tree, base, path)
        wanted = partial(
            o.LockWanted, owner=owner, path=path, base=digest, ttl_ms=ttl_ms, reason=reason, steals=steals,
            fence=fence,
        )  # fmt: skip
        return await self._answered(lambda number: wanted(request=number), path, owner)

    async def release(self, owner: LockOwner, path: bytes, fence: Fence | None, message: str) -> LockOutcome:
        """Submit the edit of a path, if there is one, and end its lock. A token alone is no right: lists show it."""
        held = next((each for each in self.facts.held if each.path == path), None)
        if held is not None and held.owner != owner:
            raise no_lock(self._tree.name, path, owner)
        wanted = partial(o.ReleaseWanted, owner=owner, path=path, fence=fence, message=message)
        return await self._answered(lambda number: wanted(request=number), path, owner)

    async def break_lock(self, owner: LockOwner, path: bytes, reason: str) -> LockOutcome:
        """End another owner's lock at the home."""
        asked = m.BreakRequest(self._tree.line, path, owner.user, reason, owner.client)
        return LockOutcome((await self.require_home().client.call(BREAK_LOCK, asked)).answer)

    async def locks(self) -> tuple[LockView, ...]:
        """All locks of the line in force, asked at the home."""
        client, found = self.require_home().client, list[LockView]()
        while True:
            after = found[-1].path if found else b""
            reply = await client.call(LOCKS, m.LocksRequest(self._tree.line, after))
            found += reply.locks
            if reply.is_last or not reply.locks or len(found) >= LOCKS_SHOWN_MAX:
                return tuple(found[:LOCKS_SHOWN_MAX])

    async def _answered(
        self, wanted: Callable[[int], o.OfferEvent], path: bytes, owner: LockOwner
    ) -> LockOutcome:
        given = await self._asks.ask(wanted, ANSWER_S)
        if given.trouble is not None:
            raise error_of(given.trouble)
        if given.answer is None:
            raise no_lock(self._tree.name, path, owner)
        return LockOutcome(given.answer, given.outcome, given.head)

    def offered_edits(self) -> tuple[tuple[o.OwnedPath, ...], Trouble | None]:
        """The owned paths, and why they do not go on."""
        return self.owned, self._why_not() if self.owned else None

    def judge_removals(self, *, are_accepted: bool) -> None:
        self.driver.post(o.RemovalsJudged(are_accepted))

    def require_home(self) -> Source:
        """The link to the home, or ``UnavailableError``: no other node grants a lock or takes a change."""
        link, writer = self._home(), self._tree.fileset.writer
        if link is None:
            is_listed = writer in self._runtime.settings.partners
            why = (
                "is not connected"
                if is_listed
                else "is no partner of this node, and no hub here passes changes on"
            )
            raise UnavailableError(
                f"{writer}, the home of {self._tree.name}, {why}: only it takes changes and grants locks",
                hint="instep check" if is_listed else "instep partner list",
                code="home_unreachable",
                node=writer,
            )
        if OFFERS not in link.takes:
            raise UnavailableError(
                f"{writer} runs a version of instep that takes no changes",
                hint=f"upgrade {writer}",
                code="home_too_old",
                node=writer,
            )
        return link

    # Effects ------------------------------------------------------------------------------------------------

    async def _perform(self, effect: o.OfferEffect) -> None:
        match effect:
            case o.SaveOffers(facts):
                raw = msgspec.msgpack.encode(facts)
                self._runtime.store.save_changes(self._tree.line, ChangeSide.OFFERS, raw)
                self.facts = facts
                failpoint(OFFERS_SAVED)
            case o.OwnPaths(owned):
                self.owned = owned
                self._tell_owned()
            case o.SubmitOffer(req=req):
                self.driver.spawn(self._submit(effect), lambda e: o.OfferFailed(req, trouble_of(e)))
            case o.LookAtPaths(req=req):
                self.driver.spawn(self._look(effect), lambda e: o.LookFailed(req, trouble_of(e)))
            case o.AskLock(req=req):
                self.driver.spawn(self._ask_lock(effect), lambda e: o.LockAskFailed(req, trouble_of(e)))
            case o.AskRelease(req=req):
                self.driver.spawn(self._ask_release(effect), lambda e: o.LockAskFailed(req, trouble_of(e)))
            case o.GiveLockAnswer(request=request):
                self._asks.answer(request, effect)
            case o.ReportOffers():
                self.report = effect
                self._tell_owned()
            case Note():
                self._note(effect)
            case SetTimer(name, at_ms):
                self.driver.set_timer(name, at_ms)
            case _:
                assert_never(effect)

    def _tell_owned(self) -> None:
        lost = tuple(each.path for each in self.owned if each.state is LOSING)
        pending = tuple(each.path for each in self.owned if each.state is not LOSING)
        told = OffersChanged(pending, lost, self._why_not() if self.owned else None)
        if told != self._told:
            self._told = told
            self._owns(told)

    def _why_not(self) -> Trouble | None:
        """Why nothing goes on: the machine's trouble, or a home that cannot be asked."""
        if self.report is not None and self.report.trouble is not None:
            return self.report.trouble
        try:
            self.require_home()
        except UnavailableError as error:
            return trouble_of(error)
        return None

    async def _submit(self, effect: o.SubmitOffer) -> o.OfferEvent:
        self._runtime.read_only.require_off()
        client, change_set = self.require_home().client, effect.change_set
        wanted = wanted_contents(change_set)
        if sum(size for _, size in wanted) > SENT_UNASKED_BYTES:
            reply = await client.call(SUBMIT_HAVE, m.SubmitHave(self._tree.line, wanted))
            wanted = tuple(wanted[position] for position in reply.missing)
        request = m.SubmitRequest(self._tree.line, change_set.encoded(), wanted, effect.releases)
        contents = contents_of(self._tree.fileset.path, change_set, wanted)
        answer = (await client.submit(request, contents)).answer
        _check_answer(change_set, answer, effect)
        failpoint(OFFERS_ANSWERED)
        return o.OfferAnswered(effect.req, answer)

    async def _look(self, effect: o.LookAtPaths) -> o.OfferEvent:
        base = self._tree_head()
        if base is None:
            return o.PathsLooked(effect.req, ())
        edits = await self._tree.worker.run(edits_at, self._tree, base, effect.paths)
        return o.PathsLooked(effect.req, edits, base)

    async def _ask_lock(self, effect: o.AskLock) -> o.OfferEvent:
        if effect.fence is None or effect.wanted.steals:
            self._runtime.read_only.require_off()
        client, wanted, line = self.require_home().client, effect.wanted, self._tree.line
        owner = wanted.owner
        if wanted.steals and effect.fence is None:
            asked = m.BreakRequest(
                line,
                wanted.path,
                owner.user,
                wanted.reason,
                owner.client,
                steals=True,
                ttl_ms=wanted.ttl_ms,
                base=wanted.base,
            )
            return o.LockAnswered(effect.req, (await client.call(BREAK_LOCK, asked)).answer)
        request = m.LockRequest(
            line,
            wanted.path,
            owner.user,
            owner.client,
            wanted.base,
            wanted.ttl_ms,
            wanted.reason,
            effect.fence,
        )
        return o.LockAnswered(effect.req, (await client.call(LOCK, request)).answer)

    async def _ask_release(self, effect: o.AskRelease) -> o.OfferEvent:
        asked = m.UnlockRequest(self._tree.line, effect.path, effect.fence)
        return o.LockAnswered(effect.req, (await self.require_home().client.call(UNLOCK, asked)).answer)

    def _entries(self, head: HeadRef | None) -> int:
        signed = self._runtime.store.generation(head.id) if head is not None else None
        return signed.body().entries if signed is not None else 0


def _upwards(path: bytes) -> Iterator[bytes]:
    """The path, and all directories above it."""
    while path:
        yield path
        path = parent_of(path)


def offer_config(fileset: FilesetSettings, runtime: Runtime) -> o.OfferConfig:
    """As ``instep.toml`` says now."""
    deletions = fileset.max_deletions
    return o.OfferConfig(
        node=runtime.name,
        offers=fileset.drift == "offer" and not fileset.observe,
        deletions=DeletionPolicy(
            share_percent=int(deletions.percent) if deletions.percent is not None else 100,
            count=deletions.count,
        ),
        author=runtime.name,
    )


def _check_answer(change_set: ChangeSet, answer: ChangeAnswer, effect: o.SubmitOffer) -> None:
    paths = [change.path for change in change_set.changes]
    if answer.id != effect.id or [outcome.path for outcome in answer.outcomes] != paths:
        raise PeerError("the home answered about other changes than it was asked to make", code="bad_answer")


def _saved(runtime: Runtime, line: LineId) -> o.OfferFacts:
    """The facts that were saved last. Unreadable ones are let go: edits are found again by the next look."""
    raw = runtime.store.load_changes(line, ChangeSide.OFFERS)
    if raw is None:
        return o.OfferFacts()
    try:
        return msgspec.msgpack.decode(raw, type=o.OfferFacts)
    except DECODE_ERRORS:
        runtime.note(
            "state_unreadable", "the record of offered edits cannot be read: the tree is looked at anew"
        )
        return o.OfferFacts()
