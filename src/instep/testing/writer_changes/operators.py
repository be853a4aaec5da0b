"""The operators of a simulated line: they hand over, promote, restore old backups, and one has a stolen key."""

from __future__ import annotations

from functools import partial

from instep.core.follow.vocabulary import FollowFacts
from instep.core.publish import vocabulary as p
from instep.core.publish.right_to_write import owes_a_generation
from instep.core.vocabulary import EpochSeen
from instep.core.writer_change import base_of, lost_generations, next_epoch, rests_on, writer_by
from instep.model.generation import EpochBody, SignedEpoch
from instep.model.ids import HeadRef, NodeName
from instep.model.standing import Standing
from instep.net.messages import messages as m
from instep.testing.world.signatures import signed_by, verdict_of
from instep.testing.writer_changes.checks import Given, LineChecks
from instep.testing.writer_changes.member import SimMember

STEP_MS = 60
PATIENCE = 200


class LineOperators(LineChecks):
    """The acts of operators on the line, by the same steps as the commands."""

    def _restore_former(self, named: str | None = None) -> None:
        """A node that wrote once comes back as it was then: store and file."""
        fit = [one for one in self._backups if named in (None, one[0])]
        if not fit or not self.world.is_faulty:
            return
        name, backup = self.rng.choice(fit)
        member = self.members[name]
        facts = member.follows.store.facts
        is_past = isinstance(facts, FollowFacts) or named is not None
        if not member.is_alive or not is_past or facts.epochs.disputed is not None:
            return
        assert isinstance(backup, tuple)
        member.active.is_alive = False
        member.active.sessions.clear()
        member.follows.store.restore(backup)
        member.toml = name
        self.ledger.last.pop(name, None)
        member.was_restored = True
        for key in [key for key in self._signers if key[0] == name]:
            del self._signers[key]
        self.world.record(name, "!", "is restored from a backup of when it wrote")
        self.world.at(self.rng.uniform(100, 2_000), member.boot)

    def _sign_back(self) -> None:
        """A former writer signs itself the epoch above the newest, and sends it to every member."""
        bodies = [one.record.body() for one in self.given.values()]
        newest = max((body.epoch for body in bodies), default=0)
        # Two, where an epoch was given twice.
        writers = [body.writer for body in bodies if body.epoch == newest]
        former = [name for name in self.members if name not in writers]
        if not writers or not former:
            return
        name = self.rng.choice(former)
        self.taken[name] = None
        record = self._record(name, newest + 1, None, name, is_ours=False)
        for other, member in self.members.items():
            # A member that knows no record believes the writer that its file names: only that file protects it.
            knows = member.is_alive and member.facts.epochs.current is not None
            if other != name and knows and self.net.is_open(name, other):
                self.net.send(name, other, m.encode(m.Epochs(self.line, (record,))))

    def _record(
        self, writer: str, epoch: int, base: HeadRef | None, signer: str, *, is_ours: bool = True
    ) -> SignedEpoch:
        key = writer.encode() if is_ours else b"taken " + writer.encode()
        body = EpochBody(1, self.line.fileset, self.line.origin, epoch, NodeName(writer), key, base_of(base))
        return signed_by(signer, SignedEpoch, body)

    # --- handover -------------------------------------------------------------------------------------------

    def _hand_over(self) -> None:
        writers = [
            one for one in self.members.values() if one.is_writing and one.facts.epochs.disputed is None
        ]
        if not writers:
            return
        writer = self.rng.choice(writers)
        fit = [name for name in self.members if name != writer.name and name not in self.taken]
        if not fit:
            return
        target = self.rng.choice(fit)
        writer.writes.ask_publish()
        self._give(writer, target, writer.incarnation, 0, False)

    def _give(self, writer: SimMember, target: str, life: int, tried: int, was_paused: bool) -> None:
        """The command's loop: pause, wait until nothing is under way and the target is in step, sign, resume."""
        if writer.incarnation != life or not writer.is_writing:
            return
        machine, facts = writer.writes.machine, writer.facts
        if tried > PATIENCE or facts.epochs.current is None or facts.epochs.current.writer != writer.name:
            writer.writes.take(p.Resumed())
            return
        if not was_paused:
            writer.writes.take(p.Paused("handing over"))
            self._give_later(writer, target, life, tried)
            return
        # What a node reported while it followed says nothing once it writes itself.
        report = None if self.members[target].is_writing else self.ledger.reports.get(target)
        is_there = report is not None and facts.head is not None and report.live == facts.head
        is_still = machine.phase is None and not owes_a_generation(facts, NodeName(writer.name))
        base = facts.head
        if self.world.plant == "gives_what_target_has" and report is not None and report.live is not None:
            is_there, base = report.standing is Standing.IN_STEP, report.live
        if (
            facts.is_paused
            and is_still
            and is_there
            and report is not None
            and report.standing is Standing.IN_STEP
        ):
            record = self._record(target, facts.epoch + 1, base, writer.name)
            self.given[record.id] = Given(record, base, False)
            self.world.record(
                writer.name, "!", f"hands over to {target} on {facts.head and facts.head.number}"
            )
            writer.writes.take(EpochSeen(NodeName(writer.name), record, verdict_of(record)))
            if writer.incarnation == life and writer.is_writing:
                writer.writes.take(p.Resumed())
            return
        self._give_later(writer, target, life, tried)

    def _give_later(self, writer: SimMember, target: str, life: int, tried: int) -> None:
        self.world.at(STEP_MS, lambda: self._give(writer, target, life, tried + 1, True))

    # --- promotion ------------------------------------------------------------------------------------------

    def _home_dies(self, *, is_split: bool = False) -> None:
        """The writer is gone, or only seems so behind a cut; a member is promoted, now and then two of them, which
        may not hear each other."""
        writers = [one for one in self.members.values() if one.is_writing]
        if not writers:
            return
        home = self.rng.choice(writers)
        if self.rng.random() < 0.5:
            home.is_dead = True
            home.active.crash("the machine is gone")
            self.world.at(self.rng.uniform(5_000, 20_000), lambda: self._revive(home))
        else:
            for name in self.members:
                self.net.cut(home.name, name)
                self.net.cut(name, home.name)
        heirs = [one for one in self.members.values() if one is not home and one.name not in self.taken]
        count = min(len(heirs), 2 if is_split or self.rng.random() < 0.3 else 1)
        chosen = self.rng.sample(heirs, count)
        if count > 1 and (is_split or self.rng.random() < self.world.options.heirs_apart):
            self.net.cut(chosen[0].name, chosen[1].name)
            self.net.cut(chosen[1].name, chosen[0].name)
        for heir in chosen:
            self.world.at(500 if is_split else self.rng.uniform(500, 2_500), partial(self._promote, heir, 0))

    def _revive(self, member: SimMember) -> None:
        if member.is_dead:
            member.is_dead = False
            if not member.is_alive:
                member.boot()

    def _promote(self, member: SimMember, tried: int) -> None:
        """The command: hold still, name what may be lost, let the CA sign."""
        if not member.is_alive or tried > PATIENCE:
            return
        facts = member.facts
        phase = member.active.machine.phase
        is_follower = isinstance(facts, FollowFacts)
        is_still = phase not in ("switch", "reload", "probe", "record", "put_back", "revert") and (
            not is_follower or rests_on(facts) is not None
        )
        if not is_still or member.held is None:
            self.world.at(STEP_MS, lambda: self._promote(member, tried + 1))
            return
        book = facts.epochs
        if book.disputed is None and (member.is_writing and writer_by(book) in (None, member.name)):
            return
        recorded = [signed.ref() for signed in member.follows.store.generations.values()]
        told = [
            (NodeName(name), said.head) for name, said in self.ledger.reports.items() if said.head is not None
        ]
        told = [(name, ref) for name, ref in told if self.net.is_open(str(name), member.name)]
        named = lost_generations(member.held, told, recorded, book.disputed)
        near = [one.facts.epochs.current for one in self.members.values() if self._reaches(member, one)]
        heard = max((claim.epoch for claim in near if claim is not None), default=0)
        epoch = next_epoch(book, [ref for _, ref in told], heard)
        record = self._record(member.name, epoch, member.held, "ca")
        known = dict.fromkeys([ref.id for ref in recorded] + [ref.id for _, ref in told])
        self.given[record.id] = Given(record, member.held, True, named, known)
        self.world.record(member.name, "!", f"is promoted to epoch {epoch} on {member.held.number}")
        member.active.take(EpochSeen(NodeName(member.name), record, verdict_of(record)))

    def _reaches(self, member: SimMember, other: SimMember) -> bool:
        return other is not member and other.is_alive and self.net.is_open(other.name, member.name)
