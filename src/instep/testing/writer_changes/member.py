"""A simulated node that may write the line today and follow it tomorrow: one disk, two machines, one of them awake.

It does what ``node/upkeep/writer_change.py`` does: a record that was accepted and saved reaches the file (``toml``),
and the file decides which machine runs. The file and the store survive a crash, at any moment between the two.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from instep.core.follow import vocabulary as f
from instep.core.follow.vocabulary import FollowFacts
from instep.core.publish import vocabulary as p
from instep.core.publish.vocabulary import PublishFacts
from instep.core.writer_change import base_of, follows_by_itself, to_follow, to_publish, writer_by
from instep.errors import PeerError
from instep.model.generation import SignedEpoch
from instep.model.ids import EMPTY_DIGEST, HeadRef, LineId, NodeName
from instep.net.messages import messages as m
from instep.testing.checkers.ledger import Ledger
from instep.testing.partners.partner import SimPartner
from instep.testing.world.network import Network
from instep.testing.world.node import SimNode
from instep.testing.world.world import BrokenPromise, World
from instep.testing.writers.writer import SimWriter

RETELL_MS = 1_500


class _Follows(SimPartner):
    """The member while its file names another writer."""

    member: SimMember

    def make_machine(self) -> Any:
        self.config = self.member.follow_config(self.config)
        self.member.convert(FollowFacts)
        return super().make_machine()

    def opened(self, other: str, *, is_dialer: bool) -> None:
        self.sessions[other] = None
        peer = self.member.peer(other)
        if is_dialer and (peer.is_writing or peer.serves_its_writer(self.member)):
            self.post(f.SourceUp(NodeName(other), is_writer=other == self.config.writer), 1)
        self.member.tell_epochs(other)

    def closed(self, other: str) -> None:
        self.sessions.pop(other, None)
        self.post(f.SourceDown(NodeName(other)), 1)

    def offered(self, other: str) -> HeadRef | None:
        facts: FollowFacts = self.machine.facts
        return facts.head if other == self.config.writer else None

    def heard_head(self, sender: str, message: m.Head) -> None:
        self._heard(sender, message)

    def hear(self, sender: str, raw: bytes) -> None:
        if not self.member.hears_epochs(self, sender, raw):
            super().hear(sender, raw)

    def perform(self, effect: Any) -> None:
        if isinstance(effect, f.SaveFollow):
            self.member.checks(effect.facts.epochs, self.store.facts, None)
        super().perform(effect)

    def after_step(self) -> None:
        self.member.look()


class _Writes(SimWriter):
    """The member while its file names itself."""

    member: SimMember

    def make_machine(self) -> Any:
        self.member.convert(PublishFacts)
        journal = self.place.journal
        if journal is not None and not journal.is_finished:
            list(
                self.place.undo(journal, lambda _: None)
            )  # A writer's recovery ends what a follower left half done.
        self.place.journal = None
        return super().make_machine()

    def opened(self, other: str, *, is_dialer: bool) -> None:
        super().opened(other, is_dialer=is_dialer)
        self.member.tell_epochs(other)

    def hear(self, sender: str, raw: bytes) -> None:
        if not self.member.hears_epochs(self, sender, raw):
            super().hear(sender, raw)

    def perform(self, effect: Any) -> None:
        if isinstance(effect, p.SavePublish):
            self.member.checks(effect.facts.epochs, self.store.facts, effect.facts.head)
        if isinstance(effect, p.Announce):
            self.member.announced[effect.head] = None
        if isinstance(effect, p.Commit):
            self.member.on_commit(self.member, effect)
        super().perform(effect)

    def after_step(self) -> None:
        super().after_step()
        self.member.look()


class SimMember:
    """Name, disk, file and the awake one of two roles."""

    def __init__(
        self, world: World, net: Network, name: str, line: LineId, others: tuple[str, ...], ledger: Ledger
    ) -> None:
        self.world, self.net, self.name, self.line, self.ledger = world, net, name, line, ledger
        self.follows = _Follows(world, net, name, line, (str(line.origin),), ledger)
        self.writes = _Writes(world, net, name, line, others, ledger)
        self.writes.store, self.writes.place = self.follows.store, self.follows.place
        self.follows.member = self.writes.member = self
        self.toml = str(line.origin)
        self.dials: dict[str, None] = {str(line.origin): None}
        self.members: dict[str, SimMember] = {}
        self.on_commit: Callable[[SimMember, p.Commit], None] = lambda _, __: None
        self.is_legitimate: Callable[[SimMember, SignedEpoch], bool] = lambda _, __: True
        self.announced: dict[HeadRef, None] = {}
        self.is_dead = False
        self.was_restored = False
        """Its store was once put back to an older state: it may have published generations that no other member
        took."""
        self._is_looking = False
        self._rng = world.stream(f"member {name}")

    @property
    def active(self) -> SimNode:
        return self.writes if self.toml == self.name else self.follows

    @property
    def is_writing(self) -> bool:
        return self.toml == self.name and self.writes.is_alive

    @property
    def is_alive(self) -> bool:
        return self.active.is_alive

    @property
    def incarnation(self) -> int:
        return self.follows.incarnation + self.writes.incarnation

    @property
    def facts(self) -> Any:
        return self.active.machine.facts

    @property
    def held(self) -> HeadRef | None:
        facts = self.facts
        return facts.live if isinstance(facts, FollowFacts) else facts.head

    def opened(self, other: str, *, is_dialer: bool) -> None:
        self.active.opened(other, is_dialer=is_dialer)

    def closed(self, other: str) -> None:
        self.active.closed(other)

    def serves_its_writer(self, asker: SimMember) -> bool:
        """Contents may always go back to the line's own writer, when it greets with less than is live here."""
        held, has = self.held, asker.facts.head
        return self.toml == asker.name and held is not None and (has is None or has.position < held.position)

    def peer(self, name: str) -> SimMember:
        return self.members[name]

    def boot(self) -> None:
        self.net.peers[self.name] = self.active
        if not self.is_dead:
            self.active.boot()

    def follow_config(self, config: f.FollowConfig) -> f.FollowConfig:
        return replace(config, writer=NodeName(self.toml), overrules=self.world.plant == "stale_file_counts")

    def convert(self, kind: type[Any]) -> None:
        """The facts of the role that wakes, from the facts of the one that slept; saved before it acts."""
        store = self.follows.store
        facts = store.facts
        if kind is PublishFacts and isinstance(facts, FollowFacts):
            store.save(to_publish(facts))
        elif kind is FollowFacts and isinstance(facts, PublishFacts):
            changed = to_follow(facts)
            store.save(changed)
            self.ledger.last[self.name] = changed
            self.follows.loaded = changed.head.id if changed.head is not None else None

    # --- what node/upkeep/writer_change.py does -----------------------------------------------------------------------

    def look(self) -> None:
        """Settle a change of writer soon: not in the step that accepted it."""
        facts = self.active.store.facts
        if facts is None or self._is_looking:
            return
        writer = writer_by(facts.epochs)
        if writer is not None and writer != self.toml:
            self._is_looking = True
            self.active.later(self._rng.uniform(1, 400), self._settle)
            born = self.incarnation
            self.world.at(500, lambda: self._look_again(born))

    def _look_again(self, born: int) -> None:
        self._is_looking = False
        if self.is_alive:
            self.look()

    def _settle(self) -> None:
        facts = self.active.store.facts
        book = facts.epochs
        writer = writer_by(book)
        if writer is None or writer == self.toml:
            return
        if isinstance(facts, PublishFacts) and not follows_by_itself(facts, book):
            return
        is_at_base = book.current is not None and base_of(self.held) == book.current.base
        if writer == self.name and not is_at_base:
            return
        self.rewrite(writer)

    def rewrite(self, writer: str) -> None:
        """The file names another writer from now on; a crash may come before anything else."""
        old = self.active
        self.world.record(self.name, "!", f"instep.toml names {writer}")
        self.toml = writer
        self.dials[writer] = None
        if old.fails(self.world.options.crash_at_effect * 5):
            old.is_alive = False
            old.sessions.clear()
            old.store.crash()
            old.place.crash(old.rng)
            old.on_crash()
            self.world.at(self._rng.uniform(100, 2_000), self.boot)
            return
        old.is_alive = False
        old.sessions.clear()
        old.on_crash()
        self.boot()

    # --- epochs ---------------------------------------------------------------------------------------------

    def tell_epochs(self, other: str) -> None:
        book = self.facts.epochs
        if self.is_alive and book.current is not None and book.current.epoch >= 2:
            self.net.send(self.name, other, m.encode(m.Epochs(self.line, self.active.epoch_records())))

    def retell(self) -> None:
        """A stream loses nothing while it stands: messages that the simulated one loses come again."""
        if self.is_alive:
            for other in list(self.active.sessions):
                self.tell_epochs(other)
        self.world.at(RETELL_MS, self.retell)

    def hears_epochs(self, node: SimNode, sender: str, raw: bytes) -> bool:
        try:
            message = m.decode_stream(raw)
        except PeerError:
            return True
        if not isinstance(message, m.Epochs):
            return False
        node.post_epochs(sender, message.records)
        return True

    def checks(self, book: Any, before: Any, head: HeadRef | None) -> None:
        """A member makes a book of epochs durable: each record in it came from a member that may give one, and a
        writer that gives its line away leaves no generation behind."""
        old = before.epochs if before is not None else None
        for claim in (book.current, *book.rivals):
            if claim is None or (old is not None and claim in (old.current, *old.rivals)):
                continue
            record = self.active.store.epochs.get(claim.id)
            if record is None:
                raise BrokenPromise(
                    "P4", f"{self.name} names epoch {claim.epoch}, whose record it does not have"
                )
            signer = record.signature.signer
            known = old.current.writer if old is not None and old.current is not None else self.toml
            if signer == claim.writer == known:
                continue  # The writer that this member knows, or its own file names, spoke for itself.
            if not self.is_legitimate(self, record):
                raise BrokenPromise(
                    "epoch",
                    f"{self.name} accepts epoch {claim.epoch} from {record.signature.signer}, which may not",
                )
            is_given_away = signer == self.name and claim.writer != self.name and not self.was_restored
            if head is not None and is_given_away and claim.base not in (head.id, EMPTY_DIGEST):
                text = f"{self.name} gives away less than it published: {head.number}"
                raise BrokenPromise("epoch", text)
