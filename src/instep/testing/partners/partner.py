"""A simulated partner: the real ``FollowMachine`` over a disk and a network that fail."""

from __future__ import annotations

import msgspec

from instep.core.follow import vocabulary as f
from instep.core.follow.machine import FollowMachine
from instep.core.vocabulary import HookEnded, HookKind, RunHook, Trouble
from instep.errors import PeerError, Retry
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.manifest.diff import diff
from instep.net.messages import messages as m
from instep.testing.checkers.ledger import Ledger
from instep.testing.partners.partner_settings import SimPartnerSettings
from instep.testing.world.disk import content_digest
from instep.testing.world.hook_writes import WRITTEN
from instep.testing.world.network import Network
from instep.testing.world.node import trouble
from instep.testing.world.signatures import sign, verdict_of
from instep.testing.world.world import BrokenPromise, World

BAD = b"bad"
"""A file of this content makes the probe fail: a generation that an application cannot serve."""


class SimPartner(SimPartnerSettings):
    """Follows one line from ``sources``; a hub also serves what it has live."""

    def __init__(
        self, world: World, net: Network, name: str, line: LineId, sources: tuple[str, ...], ledger: Ledger
    ) -> None:
        super().__init__(world, net, name, line, sources)
        self.ledger = ledger
        self.staging = 0
        self.offered_to: dict[str, HeadRef | None] = {}

    def make_machine(self) -> FollowMachine:
        machine: FollowMachine = self.born(FollowMachine)
        self.ledger.woke(self.name, machine.facts, self.store)
        if self.rollouts is not None:
            self.rollouts.born()
        return machine

    # --- sessions -------------------------------------------------------------------------------------------

    def opened(self, other: str, *, is_dialer: bool) -> None:
        self.sessions[other] = None
        if is_dialer:
            self.post(f.SourceUp(NodeName(other), is_writer=other == self.line.origin), 1)
            head = self.head_message(other)
            if head is not None:
                self.net.send(self.name, other, m.encode(head))
        else:
            self.offer_to(other)
        if self.rollouts is not None:
            self.rollouts.opened(other)

    def heard_report(self, sender: str, message: m.Report) -> None:
        if self.rollouts is not None:
            self.rollouts.heard_report(sender, message)

    def heard_order(self, sender: str, message: m.OrderMessage) -> None:
        if self.rollouts is not None:
            self.rollouts.heard_order(sender, message)

    def closed(self, other: str) -> None:
        self.sessions.pop(other, None)
        if self.rollouts is not None:
            self.rollouts.closed(other)
        if other in self.sources:
            self.post(f.SourceDown(NodeName(other)), 1)

    def offered(self, other: str) -> HeadRef | None:
        """To others what is live here and can be served; to the line's own writer the highest head known, so
        that one which lost its state goes on above it."""
        facts: f.FollowFacts = self.machine.facts
        return facts.head if other == self.line.origin else facts.live

    def offer_to(self, other: str) -> None:
        head = self.head_message(other)
        if head is not None and other not in self.sources:
            sent = self._forged(head) if self.fails(self.world.options.forge) else head
            self.net.send(self.name, other, m.encode(sent))

    def _forged(self, head: m.Head) -> m.Head:
        """A forgery of a hostile hub: a higher number under its own signature, or the writer's name."""
        body = msgspec.structs.replace(head.generation.body(), number=head.generation.body().number + 5)
        forged = SignedGeneration(body.encoded(), head.generation.signature)
        if self.rng.random() < 0.5:
            forged = SignedGeneration(body.encoded(), sign(self.name, forged.id))
        return msgspec.structs.replace(head, generation=forged)

    def heard_head(self, sender: str, message: m.Head) -> None:
        if sender in self.sources:
            self._heard(sender, message)

    def _heard(self, sender: str, message: m.Head) -> None:
        self.post_epochs(sender, message.epochs)
        signed = message.generation
        self.post(f.HeadSeen(NodeName(sender), signed, verdict_of(signed), message.beside))

    # --- effects --------------------------------------------------------------------------------------------

    def act(self, effect: f.FollowEffect) -> None:  # noqa: C901  one line a kind
        self.may_write(effect)
        match effect:
            case f.SaveFollow():
                self._save(effect.facts)
            case f.Recover():
                self.later(self._io_ms(), lambda: self.recover(effect.req))
            case f.FetchPages():
                self._fetch_pages(effect)
            case f.StageContents():
                self.staging = effect.req
                self.later(self._io_ms(), lambda: self._stage(effect))
            case f.CheckGates():
                refused = trouble("gate_refused", 4) if self.fails(0.2) else None
                self.post(f.GatesChecked(effect.req, refused), self._io_ms())
            case RunHook():
                self.later(self.hook_ms(self._io_ms() * 3), lambda: self._hook(effect))
            case f.Switch():
                has_reload = self.config.has_reload
                self.later(self._io_ms(), lambda: self._switch(effect, has_reload=has_reload))
            case f.RecordLive():
                self._record(effect)
            case f.PutBack():
                self.later(self._io_ms(), lambda: self._put_back(effect))
            case f.CheckDrift():
                self.later(self._io_ms(), lambda: self._check_drift(effect))
            case f.Revert():
                self.later(self._io_ms(), lambda: self._revert(effect))
            case f.CompareTree():
                self.later(self._io_ms(), lambda: self._compare(effect))
            case f.AskHeads():
                self._ask_heads(effect)
            case f.OfferHead():
                reminder = self.head_message(effect.source)
                if reminder is not None:
                    self.net.send(self.name, effect.source, m.encode(reminder))
            case f.DropStage():
                self.place.drop_stage()
            case f.FollowReport():
                self.ledger.reported(self.name, effect)
                if self.rollouts is not None:
                    self.rollouts.tell(effect)
            case f.DrainNode():
                assert self.rollouts is not None
                self.rollouts.drain(effect)
            case f.Return():
                assert self.rollouts is not None
                self.rollouts.offer_again(effect)

    def _io_ms(self) -> float:
        return self.rng.uniform(0.5, 5)

    def _fetch_pages(self, effect: f.FetchPages) -> None:
        def done(failed: Trouble | None) -> None:
            if failed is None:
                self.post(f.PagesFetched(effect.req, self.ledger.policy_of(effect.head)))
            elif failed.code == "superseded":
                self.post(f.HeadSuperseded(effect.req))
            else:
                self.post(f.FetchFailed(effect.req, failed))

        self.later(1, lambda: self.fetch_pages(effect.req, effect.source, effect.head, done))

    def _stage(self, effect: f.StageContents) -> None:  # noqa: C901  one look at each fault
        """Local sources first, then one batch from the source; sealed means synced."""
        req, head, place = effect.req, effect.head, self.place
        if req != self.staging:
            self.post(f.Staged(req), 5)  # Cancelled work touches nothing; its answer may still come.
            return
        if not place.has_marker:
            self.post(f.StageFailed(req, trouble("marker_missing", 4)))
            return
        if self.fails(self.world.options.disk_full):
            self.post(f.StageFailed(req, trouble("disk_full", 8)))
            return
        place.sealed_for = None
        base_root = None if effect.base is None else effect.base.root
        wants: dict[Digest, dict[int, Digest]] = {}
        for change in diff(base_root, head.root, self.store.get_page):
            if change.new is None or change.new.digest in place.stage:
                continue
            local = place.content_of(change.new.digest)
            if local is not None:
                place.stage[change.new.digest] = local
            else:
                wants.setdefault(change.page, {})[change.index] = change.new.digest
        broken = self.breaks()
        if broken is not None:  # Objects laid so far stay, as in a real stage.
            self.post(f.StageFailed(req, trouble(broken, 8)))
            return
        if not wants:
            self._seal(req, head)
            return
        expected = [digest for page in wants for _, digest in sorted(wants[page].items())]
        request = m.ContentsRequest(
            self.line, head.id, tuple(m.PageWant(page, tuple(sorted(wants[page]))) for page in wants)
        )

        def arrived(raw: bytes | None) -> None:
            if self.is_cancelled(req):
                return
            if req != self.staging:
                self.post(f.Staged(req), 5)
                return
            if raw is None:
                self.post(f.StageFailed(req, trouble("unavailable")))
                return
            try:
                answers = msgspec.msgpack.decode(raw, type=list[bytes | None])
            except (msgspec.DecodeError, UnicodeDecodeError):
                self.post(f.StageFailed(req, trouble("bad_message", 9, Retry.ELSEWHERE)))
                return
            if len(answers) != len(expected) or None in answers:
                self.post(f.HeadSuperseded(req))
                return
            for digest, data in zip(expected, answers, strict=True):
                assert data is not None
                if content_digest(data) != digest and self.world.plant != "unverified":
                    self.post(f.StageFailed(req, trouble("content_mismatch", 10, Retry.NEVER)))
                    return
                place.stage[digest] = data
            self._seal(req, head)

        self.net.call(self.name, effect.source, m.encode(request), self.in_this_life(arrived))

    def _seal(self, req: int, head: HeadRef) -> None:
        broken = self.breaks()
        if broken is None:
            self.place.sealed_for = head.id
        self.post(f.Staged(req) if broken is None else f.StageFailed(req, trouble(broken, 8)))

    def _switch(self, effect: f.Switch, *, has_reload: bool) -> None:
        if self.place.sealed_for != effect.head.id:
            raise BrokenPromise(
                "P1", f"{self.name} switches to {effect.head.number}, which was not staged and sealed"
            )
        if self.fails(self.world.options.disk_full) or not self.place.has_marker:
            self.post(f.SwitchFailed(effect.req, trouble("disk_full", 8)))
            return
        if self.rollouts is not None:
            self.rollouts.watch.switches(self.name, effect.head, self.machine.facts, has_reload=has_reload)

        def switched(drifted: tuple[bytes, ...]) -> f.TreeSwitched:
            if effect.base is None:
                self.is_unproven = False  # What lay there was compared with the generation, whole.
            return f.TreeSwitched(effect.req, drifted)

        plan = self.plan_of(effect.base, effect.head)
        self.go(effect.head, plan, switched, lambda why: f.SwitchFailed(effect.req, why))

    def _record(self, effect: f.RecordLive) -> None:
        if self.fails(self.world.options.disk_full):
            self.post(f.RecordFailed(effect.req, trouble("disk_full", 8)))
            return
        if self.is_unproven and self.config.drift is f.DriftPolicy.REVERT:
            raise BrokenPromise("P2", f"{self.name} records a tree that was not compared after a recovery")
        if self.owes_a_reload(effect.head.id):
            raise BrokenPromise(
                "P2", f"{self.name} records {effect.head.number} live, its reload hook never ran"
            )
        broken = self.breaks()
        if broken is not None and self.rng.random() < 0.5:
            self.post(f.RecordFailed(effect.req, trouble(broken, 8)))
            return
        self._save(effect.facts)
        if broken is not None:  # Recorded, but the journal could not be taken away.
            self.post(f.RecordFailed(effect.req, trouble(broken, 8)))
            return
        self.place.close()
        self.post(f.LiveRecorded(effect.req), self._io_ms())

    def _save(self, facts: f.FollowFacts) -> None:
        before = self.store.facts or f.FollowFacts()
        self.ledger.saves(self.name, facts, self.store)
        self.ledger.leaves(self.name, self.sources == (self.line.origin,), before.head, facts.head)
        self.store.save(facts, is_durable=self.world.plant != "save_not_durable")
        if self.rollouts is not None:
            self.rollouts.watch.node_saved(self.name, before, facts)
            self.rollouts.saved(facts)

    def _put_back(self, effect: f.PutBack) -> None:
        plan = self.plan_of(effect.base, effect.head)
        for _, _, after in plan:
            if after is None:
                continue
            found = self._content(after, effect.source)
            if found is None:
                # A program had overwritten it in place before the switch: only another node can have it.
                self.post(f.PutBackFailed(effect.req, trouble("unavailable")))
                return
            self.place.stage[after] = found
        if self.fails(self.world.options.disk_full):
            self.post(f.PutBackFailed(effect.req, trouble("disk_full", 8)))
            return
        if self.rollouts is not None:
            self.rollouts.watch.goes_back(self.name)
        self.go(
            effect.head,
            plan,
            lambda _: f.PutBackDone(effect.req),
            lambda why: f.PutBackFailed(effect.req, why),
        )

    def _hook(self, effect: RunHook) -> None:
        assert effect.head is not None
        is_failing = self.fails(self.world.options.hook_fails)
        failed = trouble(f"{effect.kind.value}_failed", 1) if is_failing else None
        if effect.kind is HookKind.PROBE:
            is_bad_here = self.rollouts is not None and self.rollouts.probe_fails(effect.head)
            if self.place.tree.get(b"config") == BAD or is_bad_here:
                failed = trouble("probe_failed", 1)
            elif failed is not None and self.machine.facts.live is not None:
                failed = None
            if failed is None and self.rollouts is not None:
                self.rollouts.watch.probed(self.name)
        elif effect.kind is HookKind.VALIDATE:
            failed = None
        elif failed is None:
            self._reloaded(effect.head.id)
        if effect.kind is HookKind.RELOAD and self.hook_writes.run():
            self.post(f.TreeTouched((WRITTEN,)))
        self.post(HookEnded(effect.req, effect.kind, failed))

    def _ask_heads(self, effect: f.AskHeads) -> None:
        facts: f.FollowFacts = self.machine.facts
        holds = (m.KnownLine(self.line, facts.head),)
        request = m.HeadsRequest((m.KnownLine(self.line),) if effect.is_repeated else holds, holds=holds)

        def arrived(raw: bytes | None) -> None:
            if raw is None:
                self.post(f.AskFailed(effect.req, effect.source, trouble("unavailable")))
                return
            try:
                reply = m.decode(raw, m.HeadsReply)
            except PeerError as error:
                self.post(f.AskFailed(effect.req, effect.source, trouble(error.error_code, 9)))
                return
            for head in reply.heads:
                self._heard(effect.source, head)
            self.post(f.HeadsAnswered(effect.req, effect.source), 1)

        self.net.call(self.name, effect.source, m.encode(request), self.in_this_life(arrived))

    def after_step(self) -> None:
        self.check_offered()
        facts: f.FollowFacts = self.machine.facts
        for other in list(self.sessions):
            if self.offered_to.get(other) != facts.live:
                self.offered_to[other] = facts.live
                self.offer_to(other)
        if self.rollouts is not None:
            self.rollouts.order_those_behind()

    def begins_job(self, head: HeadRef) -> None:
        self.ledger.goes_to(self.name, head)

    def was_undone(self) -> None:
        if self.rollouts is not None:
            self.rollouts.watch.undone(self.name)
