"""The simulated writer: the real ``PublishMachine``, operators who edit its tree, restored backups."""

from __future__ import annotations

from functools import partial
from random import Random
from typing import Any

from msgspec.structs import replace

from instep.core.publish import restore_vocabulary as s
from instep.core.publish import vocabulary as p
from instep.core.publish.commit_facts import LastCommit, committed
from instep.core.publish.machine import PublishMachine
from instep.core.publish.own_line import own_at
from instep.core.rollout import vocabulary as v
from instep.core.vocabulary import HookAdded, HookEnded, HookKind, RunHook, SignerVerdict, Trouble
from instep.errors import PeerError
from instep.model.generation import EpochBody, GenerationBody, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, HeadRef, LineId, NodeName
from instep.model.manifest.walk import iterate
from instep.model.rollout import RolloutPolicy
from instep.net.messages import messages as m
from instep.testing.checkers.ledger import Ledger
from instep.testing.checkers.outside_guard import DELETIONS, OutsideGuard
from instep.testing.world.disk import content_digest
from instep.testing.world.hook_writes import WRITTEN
from instep.testing.world.network import Network
from instep.testing.world.node import SimNode, trouble
from instep.testing.world.options import policy_words
from instep.testing.world.signatures import signed_by, verdict_of
from instep.testing.world.world import BrokenPromise, World
from instep.testing.writers.restores import SimRestores
from instep.testing.writers.rollouts import SimRollouts
from instep.testing.writers.writer_base import WriterBase
from instep.testing.writers.writer_scan import HOT, scanned


class SimWriter(WriterBase):
    """Publishes the line; ``unreadable`` are paths that a scan cannot read at the moment."""

    def __init__(
        self, world: World, net: Network, name: str, line: LineId, partners: tuple[str, ...], ledger: Ledger
    ) -> None:
        super().__init__(world, net, name, line, partners, ledger)
        self.missed = self.content_missed
        self.restores = SimRestores(self)
        self.announced: HeadRef | None = None
        self.guard = OutsideGuard(self, self.unreadable, lambda: self.is_accepting)
        self._told_heads: dict[str, HeadRef | None] = {}
        self.rollouts: SimRollouts | None = None
        self.definition = world.options.policy.encoded()
        self.config = self._own_config()

    @property
    def is_accepting(self) -> bool:
        """An operator accepts a loss at the moment."""
        return bool(self.accepting or self.restores.accepting)

    def _own_config(self) -> p.PublishConfig:
        options = self.world.options
        return p.PublishConfig(
            node=NodeName(self.name),
            settle_ms=50,
            settle_max_ms=1_000,
            rescan_ms=15_000,
            deletions=DELETIONS,
            has_validate=options.has_hooks,
            has_reload=options.has_hooks,
            partners=tuple(NodeName(n) for n in self.partners),
            ask_wait_ms=4_000,
            retry_min_ms=100,
            retry_max_ms=options.poll_ms,
        )

    def toggle_a_setting(self, rng: Random) -> None:
        """The file was edited, and is read while the node runs or at its next start."""
        what = rng.choice(("has_validate", "has_reload"))
        changed: dict[str, Any] = {what: not getattr(self.config, what)}
        self._reconfigure(replace(self.config, **changed))

    def change_partners(self, partners: tuple[NodeName, ...]) -> None:
        """The list of partners was edited: they come and go without a restart."""
        self.partners = partners
        self._reconfigure(replace(self.config, partners=partners))
        if self.rollouts is not None and self.is_alive:
            self.rollouts.say(v.PartnersChanged(partners))

    def restore_settings(self) -> None:
        """Restore the file's first settings."""
        self._reconfigure(self._own_config())

    def _reconfigure(self, config: p.PublishConfig) -> None:
        old, self.config = self.config, config
        if self.is_alive and config != old:
            self.take(p.PublishConfigChanged(config))
            if config.has_reload and not old.has_reload:
                self.take(HookAdded())

    def make_machine(self) -> PublishMachine:
        self.announced = None
        self._last_commit = LastCommit()
        machine: PublishMachine = self.born(PublishMachine)
        if self.rollouts is not None:
            facts = machine.facts
            self.rollouts.boot(facts.head if facts.head == facts.base else None)
        return machine

    def on_crash(self) -> None:
        # The callers get an error from the broken connection; the machine answers none of them any more.
        self.ledger.answered.update(self.asked_here)
        self.asked_here.clear()
        self.accepting.clear()
        self.restores.accepting.clear()
        if self.rollouts is not None:
            self.rollouts.watch.near.clear()

    # --- sessions -------------------------------------------------------------------------------------------

    def opened(self, other: str, *, is_dialer: bool) -> None:
        self.sessions[other] = None
        peer = self.net.peers[other]
        if isinstance(peer, SimNode):
            self._told_heads[other] = peer.machine.facts.head  # as its greeting says
        self._offer_to(other)
        if self.rollouts is not None:
            self.rollouts.watch.near[other] = self.world.now

    def closed(self, other: str) -> None:
        self.sessions.pop(other, None)
        if self.rollouts is not None:
            self.rollouts.watch.near.pop(other, None)
            self.rollouts.say(v.PartnerLost(NodeName(other)))

    def heard_report(self, sender: str, message: m.Report) -> None:
        self._told_heads[sender] = message.head
        if self.rollouts is not None:
            self.rollouts.reported(sender, message)

    def offered(self, other: str) -> HeadRef | None:
        return self.announced

    def _offer_to(self, other: str) -> None:
        head = self.head_message(other, self._told_heads.get(other))
        if head is not None:
            self.net.send(self.name, other, m.encode(head))

    def beside(self, known: HeadRef | None, head: HeadRef) -> HeadRef | None:
        facts: p.PublishFacts = self.machine.facts
        if known is None or known.position < facts.descends_from <= head.position:
            return None
        return self._stored_at(known)

    def _stored_at(self, ref: HeadRef) -> HeadRef | None:
        stored = self.store.generations
        places = {signed.ref().position: signed for signed in stored.values()}
        return own_at(ref, lambda epoch, number: places.get((epoch, number)), stored.get)

    def heard_head(self, sender: str, message: m.Head) -> None:
        self._heard(sender, message)
        self.post(p.PartnerSeen(NodeName(sender)), 2)

    def _heard(self, sender: str, message: m.Head) -> None:
        self.post_epochs(sender, message.epochs)
        signed = message.generation
        try:
            ours = self._stored_at(signed.ref())
        except PeerError:
            ours = None
        id_ = None if ours is None else ours.id
        self.post(p.HeadOfOursSeen(NodeName(sender), signed, verdict_of(signed), id_), 1)

    # --- effects --------------------------------------------------------------------------------------------

    def act(self, effect: s.WriterEffect) -> None:  # noqa: C901  one line a kind
        match effect:
            case p.SavePublish():
                self.store.save(self._last_commit.saved(effect.facts))
            case p.Scan():
                self.later(self.rng.uniform(1, 20), lambda: self._scan(effect))
            case p.Commit():
                self._commit(effect)
            case s.PlanRestore():
                self.later(2, lambda: self.restores.plan(effect))
            case s.Restore():
                self.later(5, lambda: self.restores.restore(effect))
            case s.Recover():
                self.later(self.rng.uniform(1, 10), lambda: self.restores.recover(effect.req))
            case RunHook():
                failed = trouble("hook_failed", 1) if self.fails(self.world.options.hook_fails) else None
                if effect.kind is HookKind.RELOAD and self.hook_writes.run():
                    self.post(p.TreeChanged((WRITTEN,)))
                self.post(HookEnded(effect.req, effect.kind, failed), self.hook_ms(3))
            case p.Announce():
                replaced, self.announced = self.announced, effect.head
                if self.rollouts is not None:
                    self.rollouts.say(v.HeadPublished(effect.head, replaced))
                for other in self.sessions:
                    self._offer_to(other)
            case p.AskPartners():
                self._ask_partners(effect.req)
            case p.FetchPages():
                self._fetch(effect)
            case p.GiveAnswer():
                if effect.request in self.ledger.answered:
                    raise BrokenPromise("P9", f"request {effect.request} was answered twice")
                self.ledger.answered[effect.request] = None
            case p.PublishReport():
                if effect.standing.value in ("blocked", "failing", "damaged", "held") and not effect.reason:
                    raise BrokenPromise("P9", f"{self.name} is {effect.standing.value} without a reason")

    def _scan(self, effect: p.Scan) -> None:
        self.restores.looks(effect)
        if not self.place.has_marker:
            self.post(p.ScanFailed(effect.req, trouble("marker_missing", 4)))
        elif self.fails(self.world.options.read_error):
            self.post(p.ScanFailed(effect.req, trouble("read_error", 8)))
        else:
            self.guard.looked()
            is_other = self._is_definition_changed(effect.base)
            self.post(p.TreeScanned(effect.req, scanned(self, effect, definition_changed=is_other)))

    def _is_definition_changed(self, base: HeadRef | None) -> bool:
        signed = None if base is None else self.ledger.committed.get(base.id)
        return signed is not None and signed.body().definition != content_digest(self.definition)

    def _commit(self, effect: p.Commit) -> None:
        if self.fails(self.world.options.disk_full):
            self.post(p.CommitFailed(effect.req, trouble("disk_full", 8)), 2)
            return
        self.guard.check(effect)
        self.restores.commits(effect)
        self._first_epoch(effect)
        parent = EMPTY_DIGEST if effect.parent is None else effect.parent.id
        definition = content_digest(self.definition)
        self.ledger.definitions[definition] = self.definition
        body = GenerationBody(
            1,
            self.line.fileset,
            self.line.origin,
            effect.epoch,
            effect.number,
            parent,
            effect.root,
            definition,
            effect.author,
            effect.message,
            self.world.now,
            effect.entries,
            effect.size_bytes,
        )
        signed = signed_by(self.name, SignedGeneration, body)
        head = signed.ref()
        self.ledger.committed[head.id] = signed
        if self.rollouts is not None:
            self.rollouts.watch.policies[head.id] = self.ledger.policy_of(head)
        self.store.put(self.store.generations, head.id, signed)
        for entry in iterate(effect.root, self.store.get_page):
            data = self.place.tree.get(entry.path)
            is_kept = not self.fails(self.world.options.history_loss)
            if entry.path == HOT:
                data, is_kept = self.hot_copies.get(entry.digest), True
            if data is not None and content_digest(data) == entry.digest and is_kept:
                self.store.put(self.store.history, entry.digest, data)
        self.guard.committed(head, effect)
        self.store.save(committed(effect.facts, head))
        self._last_commit.is_durable(effect.parent, head)
        self.post(p.Committed(effect.req, head), self.rng.uniform(0.5, 3))

    def _first_epoch(self, effect: p.Commit) -> None:
        body = EpochBody(
            1, self.line.fileset, self.line.origin, 1, NodeName(self.name), self.name.encode(), EMPTY_DIGEST
        )
        record = signed_by(self.name, SignedEpoch, body)
        if effect.epoch == 1 and record.id not in self.store.epochs:
            self.store.put(self.store.epochs, record.id, record)
            verdict = SignerVerdict(True, NodeName(self.name))
            self.post(p.EpochSeen(NodeName(self.name), record, verdict))

    def _ask_partners(self, req: int) -> None:
        answered: list[NodeName] = []
        waiting = dict.fromkeys(self.partners)

        def arrived(name: str, raw: bytes | None) -> None:
            waiting.pop(name)
            if raw is not None:
                try:
                    for head in m.decode(raw, m.HeadsReply).heads:
                        self._heard(name, head)
                    answered.append(NodeName(name))
                except PeerError:
                    pass
            if not waiting:
                self.post(p.PartnersAnswered(req, tuple(answered)), 3)

        for name in self.partners:
            request = m.encode(m.HeadsRequest((m.KnownLine(self.line),)))
            self.net.call(self.name, name, request, self.in_this_life(partial(arrived, name)))

    def _fetch(self, effect: p.FetchPages) -> None:
        def done(failed: Trouble | None) -> None:
            self.post(p.ManifestFetched(effect.req) if failed is None else p.FetchFailed(effect.req, failed))

        self.later(1, lambda: self.fetch_pages(effect.req, effect.source, effect.head, done))

    def content_missed(self, path: bytes) -> None:
        if self.is_alive:
            self.post(p.ContentMissed(path))

    # --- operators ------------------------------------------------------------------------------------------

    def edit_tree(self, path: bytes, data: bytes | None) -> None:
        self.hook_writes.touched(path)
        if data is None:
            self.place.tree.pop(path, None)
        else:
            self.place.tree[path] = data
        if self.is_alive and not self.fails(self.world.options.watch_loss):
            self.post(p.TreeChanged((path,)), self.rng.uniform(0, 2))

    def change_policy(self, policy: RolloutPolicy) -> None:
        """An operator edits ``[filesets.catalog.rollout]``."""
        assert self.rollouts is not None
        self.world.record(self.name, "!", f"the policy is {policy_words(policy)}")
        self.definition = policy.encoded()
        self.rollouts.policy = policy
        if self.is_alive:
            self.rollouts.say(v.PolicyChanged(policy))
            self.overflow()

    def overflow(self) -> None:
        if self.is_alive:
            self.post(p.TreeChanged((), is_overflow=True), 1)

    def ask_publish(self, *, accept_deletions: bool = False, is_over: bool = False) -> None:
        """An operator types ``instep publish``."""
        if not self.is_alive:
            return
        request = self.new_request()
        if is_over:
            self.restores.decided()
        if accept_deletions:
            self.accepting[request] = None
        self.take(p.PublishAsked(request, "ana", "by hand", accept_deletions, is_over=is_over))

    def after_step(self) -> None:
        for accepting in (self.accepting, self.restores.accepting):
            for request in list(accepting):
                if request in self.ledger.answered:
                    del accepting[request]
