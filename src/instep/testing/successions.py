"""A simulated cluster whose writer changes: handed over, promoted, claimed twice, back with a restored backup.

``simulate_succession(seed)`` draws faults and operators as ``simulation.simulate`` does, with its own checkers: no
member takes generations of two writers in one epoch; what a writer published before it handed over stays in the line;
what a promotion named is not in it, and nothing else that its node knew of is missing; after the faults one member
writes and all others are in step with it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial

from instep.core import follow_vocabulary as f
from instep.core import publish_vocabulary as p
from instep.core.accept import EpochBook
from instep.core.follow import FollowMachine
from instep.core.follow_vocabulary import FollowFacts
from instep.core.publish import PublishMachine
from instep.core.publish_vocabulary import PublishFacts
from instep.core.succession import (
    Lost,
    base_of,
    follows_by_itself,
    lost_generations,
    next_epoch,
    rests_on,
    writer_by,
)
from instep.core.vocabulary import Trouble
from instep.errors import InstepError, PeerError
from instep.model.generation import EpochBody, SignedEpoch
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.standing import Standing
from instep.net import messages as m
from instep.testing.ledger import Ledger
from instep.testing.member import Member
from instep.testing.network import Network
from instep.testing.node import sign, verdict_of
from instep.testing.options import Options
from instep.testing.rest import REST_MS
from instep.testing.simulation import SESSION_MS, Result
from instep.testing.world import BrokenPromise, World

__all__ = ["SUCCESSION_PLANTS", "simulate_succession"]


class _PublishesBelowTheBase(PublishMachine):
    """Believes that a record which names it is all that a writer needs."""

    def _not_the_writer(self) -> Trouble | None:
        trouble = super()._not_the_writer()
        return None if trouble is not None and trouble.code == "base_missing" else trouble


class _FirstClaimWins(FollowMachine):
    """Takes the first record of an epoch and does not look at a second."""

    def _epoch_seen(self, event: f.EpochSeen) -> None:
        if not _is_second(event.signed, self._facts.epochs):
            super()._epoch_seen(event)


class _FirstClaimWinsHere(PublishMachine):
    def _epoch_seen(self, event: p.EpochSeen) -> None:
        if not _is_second(event.signed, self._facts.epochs):
            super()._epoch_seen(event)


def _is_second(record: SignedEpoch, book: EpochBook) -> bool:
    try:
        return book.current is not None and record.body().epoch == book.current.epoch
    except PeerError:
        return False


_WRITERS: dict[str, type[PublishMachine]] = {
    "publishes_below_base": _PublishesBelowTheBase,
    "first_claim_wins": _FirstClaimWinsHere,
}
_FOLLOWERS: dict[str, type[FollowMachine]] = {"first_claim_wins": _FirstClaimWins}
SUCCESSION_PLANTS = ("gives_what_target_has", "stale_file_counts", *_WRITERS)
"""Rules of the change of writer that are broken on purpose, by name; the first two in the simulated operator and
driver."""
STEP_MS = 60
PATIENCE = 200


def simulate_succession(seed: int, plant: str | None = None) -> Result:
    """Run one seed to its end or to its first broken promise."""
    drawing = World(seed, Options())
    options = Options.drawn(drawing.stream("options"), drawing.stream("rollouts")).but(
        partners=3,
        has_hub=False,
        has_gates=False,
        is_one_observing=False,
        keeps_drift=False,
        forge=0.0,
        bad_generation=0.0,
        drift_every_ms=0,
        wipe_every_ms=0,
        unmount_every_ms=0,
        pause_every_ms=0,
        history_loss=0.0,
        files=3,
        has_rollouts=False,
    )
    world = World(seed, options, plant)
    cluster = _Cluster(world)
    broken = promise = None
    converged = -1
    try:
        cluster.disturb()
        world.run(options.faulty_ms)
        cluster.make_peace()
        if not world.run(world.now + options.bound_ms, cluster.is_at_rest):
            raise BrokenPromise("P8", f"no rest {options.bound_ms} ms after the faults: {cluster.lagging()}")
        converged = world.now - options.faulty_ms
        cluster.check_end()
    except BrokenPromise as finding:
        broken, promise = str(finding), finding.promise
    except (AssertionError, InstepError, KeyError) as error:
        broken, promise = f"invariant: {type(error).__name__}: {error}", "invariant"
    generations = len(cluster.ledger.committed)
    story = tuple(world.transcript()) if broken else ()
    return Result(
        seed,
        options,
        world.events,
        world.now,
        world.trace_digest,
        converged,
        generations,
        broken,
        promise,
        story,
    )


@dataclass(slots=True)
class _Given:
    """An epoch that was given rightfully, what it builds on, and what its promotion named as lost."""

    record: SignedEpoch
    base: HeadRef | None
    is_promotion: bool
    named: tuple[Lost, ...] = ()
    known: dict[Digest, None] = field(default_factory=dict)


class _Cluster:
    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.stream("trouble")
        self.people = world.stream("people")
        self.net = Network(world)
        self.ledger = Ledger()
        self.line = LineId(FilesetName("catalog"), NodeName("main"))
        names = ("main", *(f"s{number}" for number in range(1, world.options.partners + 1)))
        self.members: dict[str, Member] = {}
        self.given: dict[Digest, _Given] = {}
        self.late: dict[Digest, None] = {}
        self.taken: dict[str, None] = {}
        """Whose key is in foreign hands: nobody makes these the writer any more."""
        self._seen: dict[Digest, None] = {}
        self._signers: dict[tuple[str, int], str] = {}
        self._sessions: dict[tuple[str, str], tuple[int, int]] = {}
        self._backups: list[tuple[str, object]] = []
        self._rest_since: int | None = None
        self._edits = 0
        for name in names:
            others = tuple(other for other in names if other != name)
            member = Member(world, self.net, name, self.line, others, self.ledger)
            member.members = self.members
            member.writes.world_machine = _WRITERS.get(world.plant or "")
            member.follows.world_machine = _FOLLOWERS.get(world.plant or "")
            member.on_commit = self._committing
            member.is_legitimate = self._is_legitimate
            self.members[name] = member
        for number in range(world.options.files):
            self.members["main"].follows.place.tree[b"f%02d" % number] = b"first %d" % number
        for member in self.members.values():
            member.boot()
            world.at(self.rng.uniform(0, 1_500), member.retell)
        self._tend_sessions()

    # --- sessions -------------------------------------------------------------------------------------------

    def _tend_sessions(self) -> None:
        """Everybody dials whom its file names and whom it dialled before; both ends notice a break late."""
        for member in self.members.values():
            for source in member.dials:
                other = self.members[source]
                if source == member.name:
                    continue
                key, lives = (member.name, source), (member.life, other.life)
                is_open = self.net.is_open(*key) and self.net.is_open(source, member.name)
                known = self._sessions.get(key)
                if known is not None and (not is_open or known != lives):
                    del self._sessions[key]
                    if member.is_alive and known[0] == member.life:
                        member.active.closed(source)
                    if other.is_alive and known[1] == other.life:
                        other.active.closed(member.name)
                elif known is None and is_open:
                    self._sessions[key] = lives
                    member.active.opened(source, is_dialer=True)
                    other.active.opened(member.name, is_dialer=False)
        self.world.at(SESSION_MS, self._tend_sessions)

    # --- checkers -------------------------------------------------------------------------------------------

    def _is_legitimate(self, member: Member, record: SignedEpoch) -> bool:
        body = record.body()
        return record.id in self.given or (body.epoch == 1 and body.writer == self.line.origin)

    def _committing(self, member: Member, effect: p.Commit) -> None:
        """Nobody publishes in an epoch that it was not given, and the first generation stands on the base."""
        current = member.facts.epochs.current
        name = f"{member.name} publishes {effect.epoch}.{effect.number}"
        if effect.epoch > 1 and (
            current is None or current.writer != member.name or current.epoch != effect.epoch
        ):
            raise BrokenPromise("epoch", f"{name} without the record of that epoch")
        parent = effect.parent
        is_first = effect.epoch > 1 and (parent is None or parent.epoch < effect.epoch)
        if is_first and current is not None and base_of(parent) != current.base:
            raise BrokenPromise("epoch", f"{name} on another generation than its record names")
        if parent is not None and effect.number <= parent.number:
            raise BrokenPromise("epoch", f"{name}, which is not above its parent {parent.number}")

    def _note_commits(self) -> None:
        """Which generations were published although the line had gone on: by a home that was not dead, or is back."""
        newest = max((one.record.body().epoch for one in self.given.values()), default=1)
        for id_, signed in self.ledger.committed.items():
            if id_ not in self._seen and signed.body().epoch < newest:
                self.late[id_] = None
            self._seen[id_] = None

    def _look_at_heads(self) -> None:
        """No member ever accepts generations of two writers in one epoch."""
        for name, member in self.members.items():
            facts = self.ledger.last.get(name)
            head = facts.head if facts is not None else None
            if head is None or head.id not in self.ledger.committed:
                continue
            signer = self.ledger.committed[head.id].signature.signer
            if self._signers.setdefault((name, head.epoch), signer) != signer:
                raise BrokenPromise(
                    "epoch", f"{member.name} took {head.epoch}.{head.number} of a second writer"
                )

    # --- operators ------------------------------------------------------------------------------------------

    def disturb(self) -> None:
        options = self.world.options
        self._every(options.edit_every_ms, self._edit)
        self._every(options.cut_every_ms, self._cut)
        self._every(
            options.crash_every_ms, lambda: self.rng.choice(list(self.members.values())).active.crash("power")
        )
        self._every(self.rng.choice((3_000, 8_000)), self._hand_over)
        self._every(self.rng.choice((0, 9_000, 20_000)), self._home_dies)
        self._every(self.rng.choice((0, 5_000, 15_000)), self._restore_former)
        self._every(self.rng.choice((0, 300)), self._sign_back)
        self._every(5_000, self._back_up)
        self._always(40, self._look_at_heads)
        self._always(20, self._note_commits)
        self._always(4_000, self._tidy)

    def _every(self, mean_ms: int, do: object) -> None:
        if not mean_ms:
            return
        assert callable(do)

        def again() -> None:
            if self.world.is_faulty:
                do()
                self.world.at(self.rng.uniform(0.5, 1.5) * mean_ms, again)

        self.world.at(self.rng.uniform(0.2, 1.5) * mean_ms, again)

    def _always(self, each_ms: int, do: object) -> None:
        assert callable(do)

        def again() -> None:
            do()
            self.world.at(each_ms, again)

        self.world.at(each_ms, again)

    def _edit(self) -> None:
        for member in self.members.values():
            if member.is_writing:
                self._edits += 1
                path = b"f%02d" % self.people.randrange(self.world.options.files + 3)
                member.writes.edit_tree(path, b"edit %d" % self._edits)

    def _cut(self) -> None:
        names = list(self.members)
        if self.rng.random() < 0.5:
            self.net.heal()
            return
        lonely = self.rng.choice(names)
        for name in names:
            if name != lonely:
                self.net.cut(lonely, name)
                self.net.cut(name, lonely)

    def _back_up(self) -> None:
        for member in self.members.values():
            if isinstance(member.follows.store.facts, PublishFacts):
                self._backups.append((member.name, member.follows.store.backup()))

    def _restore_former(self) -> None:
        """A node that wrote once comes back as it was then: store and file."""
        if not self._backups:
            return
        name, backup = self.rng.choice(self._backups)
        member = self.members[name]
        facts = member.follows.store.facts
        if not member.is_alive or not isinstance(facts, FollowFacts) or facts.epochs.disputed is not None:
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
        """A former writer signs itself the epoch above the newest, and sends it to everybody."""
        newest = max((one.record.body() for one in self.given.values()), key=lambda b: b.epoch, default=None)
        former = [name for name in self.members if newest is not None and name != newest.writer]
        if newest is None or not former:
            return
        name = self.rng.choice(former)
        self.taken[name] = None
        if any(one.record.body().epoch == newest.epoch + 1 for one in self.given.values()):
            return
        record = self._record(name, newest.epoch + 1, None, name, is_ours=False)
        for other, member in self.members.items():
            # One that knows no record believes whom its file names: nothing protects it but who is in that file.
            knows = member.is_alive and member.facts.epochs.current is not None
            if other != name and knows and self.net.is_open(name, other):
                self.net.send(name, other, m.encode(m.Epochs(self.line, (record,))))

    def _record(
        self, writer: str, epoch: int, base: HeadRef | None, signer: str, *, is_ours: bool = True
    ) -> SignedEpoch:
        key = writer.encode() if is_ours else b"taken " + writer.encode()
        body = EpochBody(1, self.line.fileset, self.line.origin, epoch, NodeName(writer), key, base_of(base))
        unsigned = SignedEpoch(body.encoded(), sign("", EMPTY_DIGEST))
        return SignedEpoch(unsigned.raw, sign(signer, unsigned.id))

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
        self._give(writer, target, writer.life, 0, False)

    def _give(self, writer: Member, target: str, life: int, tried: int, was_paused: bool) -> None:
        """The command's loop: pause, wait until nothing is under way and the target is in step, sign, resume."""
        if writer.life != life or not writer.is_writing:
            return
        machine, facts = writer.writes.machine, writer.facts
        if tried > PATIENCE or facts.epochs.current is None or facts.epochs.current.writer != writer.name:
            writer.writes.take(p.Resumed())
            return
        if not was_paused:
            writer.writes.take(p.Paused("handing over"))
            self._give_later(writer, target, life, tried)
            return
        report = self.ledger.reports.get(target)
        is_there = report is not None and facts.head is not None and report.live == facts.head
        is_still, base = machine.phase is None, facts.head
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
            self.given[record.id] = _Given(record, base, False)
            self.world.record(
                writer.name, "!", f"hands over to {target} on {facts.head and facts.head.number}"
            )
            writer.writes.take(
                p.EpochSeen(NodeName(writer.name), record, verdict_of(record.signature, record.id))
            )
            if writer.life == life and writer.is_writing:
                writer.writes.take(p.Resumed())
            return
        self._give_later(writer, target, life, tried)

    def _give_later(self, writer: Member, target: str, life: int, tried: int) -> None:
        self.world.at(STEP_MS, lambda: self._give(writer, target, life, tried + 1, True))

    # --- promotion ------------------------------------------------------------------------------------------

    def _home_dies(self) -> None:
        """The writer is gone, or only seems so behind a cut; somebody is promoted, now and then two of them."""
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
        count = min(len(heirs), 2 if self.rng.random() < 0.3 else 1)
        for heir in self.rng.sample(heirs, count):
            self.world.at(self.rng.uniform(500, 2_500), partial(self._promote, heir, 0))

    def _revive(self, member: Member) -> None:
        if member.is_dead:
            member.is_dead = False
            if not member.is_alive:
                member.boot()

    def _promote(self, member: Member, tried: int) -> None:
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
        self.given[record.id] = _Given(record, member.held, True, named, known)
        self.world.record(member.name, "!", f"is promoted to epoch {epoch} on {member.held.number}")
        seen = f.EpochSeen if is_follower else p.EpochSeen
        member.active.take(seen(NodeName(member.name), record, verdict_of(record.signature, record.id)))

    def _reaches(self, member: Member, other: Member) -> bool:
        return other is not member and other.is_alive and self.net.is_open(other.name, member.name)

    # --- peace ----------------------------------------------------------------------------------------------

    def make_peace(self) -> None:
        self.world.is_faulty = False
        self.world.record("world", "!", "the faults stop")
        self.net.heal()
        for member in self.members.values():
            self._revive(member)
        self.world.at(8_500, self._last_words)

    def _last_words(self) -> None:
        for member in self.members.values():
            if member.is_writing:
                member.writes.take(p.Resumed())
                member.writes.overflow()
                member.writes.ask_publish(accept_deletions=True)
        self._rest_since = None

    def _tidy(self) -> None:
        """What only operators can do once the faults are over: end a dispute, and give in where the line went on."""
        if self.world.is_faulty or self.world.now < self.world.options.faulty_ms + 6_000:
            return
        alive = [one for one in self.members.values() if one.is_alive]
        disputed = [one for one in alive if one.facts.epochs.disputed is not None and one.held is not None]
        if disputed:
            best = max(disputed, key=lambda one: (one.held.position if one.held else (0, 0), one.name))
            self._promote(best, 0)
            return
        for member in alive:
            facts = member.facts
            writer = writer_by(facts.epochs)
            if not member.is_writing or writer is None or writer == member.name:
                continue
            if not follows_by_itself(facts, facts.epochs):
                self.world.record(member.name, "!", "its operator lets it follow")
                member.rewrite(writer)

    def lagging(self) -> str:
        """Who is not in step with the one writer, and why; empty when all are."""
        writers = [one for one in self.members.values() if one.is_writing]
        if len(writers) != 1:
            return f"{len(writers)} write: {', '.join(one.name for one in writers)}"
        writer = writers[0]
        head = writer.writes.announced
        if (
            head is None
            or writer.facts.head != head
            or writer_by(writer.facts.epochs) not in (None, writer.name)
        ):
            return f"{writer.name} is not at rest"
        late = []
        for member in self.members.values():
            report = self.ledger.reports.get(member.name)
            if member is writer:
                continue
            is_right = (
                member.is_alive
                and member.toml == writer.name
                and report is not None
                and report.standing is Standing.IN_STEP
                and member.facts.live == head
                and not member.follows.differing(head)
            )
            if not is_right:
                late.append(
                    f"{member.name} of {member.toml}: {report and report.standing} {report and report.reason}"
                )
        return "; ".join(late)

    def is_at_rest(self) -> bool:
        if self.world.now < self.world.options.faulty_ms + 8_600 or self.lagging():
            self._rest_since = None
            return False
        if self._rest_since is None:
            self._rest_since = self.world.now
        return self.world.now - self._rest_since >= REST_MS

    def check_end(self) -> None:
        """The line holds every generation but those that a promotion left behind or that came too late."""
        writer = next(one for one in self.members.values() if one.is_writing)
        chain = self._chain(writer.facts.head)
        announced = {ref.id for one in self.members.values() for ref in one.announced}
        promotions = [one for one in self.given.values() if one.is_promotion]
        for id_, signed in self.ledger.committed.items():
            body = signed.body()
            if id_ in chain or id_ in self.late or id_ not in announced:
                continue
            position = (body.epoch, body.number)
            if not any(self._leaves(one, position) for one in promotions):
                raise BrokenPromise(
                    "epoch", f"{position} of {signed.signature.signer} was lost, and nobody promoted"
                )
        followed = {signed.body().epoch for id_, signed in self.ledger.committed.items() if id_ in chain}
        for one in promotions:
            claim = one.record.body()
            if claim.epoch not in followed or self._writer_of(chain, claim.epoch) != claim.writer:
                continue
            named = {lost.id for lost in one.named}
            kept = [id_ for id_ in named if id_ is not None and id_ in chain]
            if kept:
                raise BrokenPromise(
                    "epoch", f"the promotion to {claim.epoch} named {len(kept)} that were not lost"
                )
            for id_ in one.known:
                signed_there = self.ledger.committed.get(id_)
                is_above = (
                    signed_there is not None
                    and one.base is not None
                    and (signed_there.ref().position > one.base.position)
                )
                if is_above and id_ not in named:
                    raise BrokenPromise(
                        "epoch", f"the promotion to {claim.epoch} did not name what it knew of"
                    )

    def _leaves(self, one: _Given, position: tuple[int, int]) -> bool:
        """Whether a generation of that place may be outside the line because of this promotion."""
        base = one.base.position if one.base is not None else (0, 0)
        return (
            one.record.body().epoch > position[0] and position > base
        ) or one.record.body().epoch == position[0]

    def _chain(self, head: HeadRef) -> dict[Digest, None]:
        found: dict[Digest, None] = {}
        next_id = head.id
        while next_id in self.ledger.committed and next_id not in found:
            found[next_id] = None
            next_id = self.ledger.committed[next_id].body().parent
        return found

    def _writer_of(self, chain: dict[Digest, None], epoch: int) -> str | None:
        signers = [
            signed.signature.signer
            for id_, signed in self.ledger.committed.items()
            if id_ in chain and signed.body().epoch == epoch
        ]
        return signers[0] if signers else None
