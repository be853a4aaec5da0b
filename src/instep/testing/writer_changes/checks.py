"""The rules of a simulated line that changes writers: checkers over every record, generation and head."""

from __future__ import annotations

from dataclasses import dataclass, field

from instep.core.publish import vocabulary as p
from instep.core.writer_change import LostGenerations, base_of
from instep.model.generation import SignedEpoch
from instep.model.ids import Digest, HeadRef
from instep.testing.cluster import SimCluster
from instep.testing.world.world import BrokenPromise, World
from instep.testing.writer_changes.member import SimMember


@dataclass(slots=True)
class Given:
    """An epoch that was given rightfully, its base, and the generations that its promotion named as lost."""

    record: SignedEpoch
    base: HeadRef | None
    is_promotion: bool
    named: tuple[LostGenerations, ...] = ()
    known: dict[Digest, None] = field(default_factory=dict)


class LineChecks(SimCluster):
    """The members, the records that each was given, and the promises."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.members: dict[str, SimMember] = {}
        self.given: dict[Digest, Given] = {}
        self.late: dict[Digest, None] = {}
        self.taken: dict[str, None] = {}
        """Members whose key is in foreign hands: no operator makes these the writer any more."""
        self._seen: dict[Digest, None] = {}
        self._signers: dict[tuple[str, int], str] = {}
        self._backups: list[tuple[str, object]] = []

    # --- checkers -------------------------------------------------------------------------------------------

    def _is_legitimate(self, member: SimMember, record: SignedEpoch) -> bool:
        body = record.body()
        return record.id in self.given or (body.epoch == 1 and body.writer == self.line.origin)

    def _committing(self, member: SimMember, effect: p.Commit) -> None:
        """No member publishes in an epoch that it was not given, and the first generation stands on the base."""
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

    def check_end(self) -> None:
        """The line holds every generation except the ones that a promotion left behind or that came too late."""
        writer = next(one for one in self.members.values() if one.is_writing)
        chain = self._chain(writer.facts.head)
        announced = {ref.id for one in self.members.values() for ref in one.announced}
        promotions = [one for one in self.given.values() if one.is_promotion]
        for id_, signed in self.ledger.committed.items():
            body = signed.body()
            if id_ in chain or id_ in self.late or id_ not in announced:
                continue
            if self.members[signed.signature.signer].was_restored:
                continue  # A generation that no other member had taken went with the state that was put back.
            position = (body.epoch, body.number)
            if not any(self._leaves(one, position) for one in promotions):
                raise BrokenPromise(
                    "epoch", f"{position} of {signed.signature.signer} was lost, and no member was promoted"
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

    def _leaves(self, one: Given, position: tuple[int, int]) -> bool:
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
