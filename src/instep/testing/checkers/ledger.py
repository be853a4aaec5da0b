"""The checkers: promises of design section 3 as invariants over everything that every node saves and
reports."""

from __future__ import annotations

from dataclasses import dataclass, field

from instep.core.follow.vocabulary import FollowFacts
from instep.core.follow.vocabulary import FollowReport as FollowReport
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef
from instep.model.rollout import RolloutPolicy, decode_policy
from instep.model.standing import Standing
from instep.testing.checkers.lost_future import LostFuture
from instep.testing.world.disk import SimStore
from instep.testing.world.world import BrokenPromise

NEED_A_REASON = (
    Standing.BLOCKED,
    Standing.FAILING,
    Standing.DRIFTED,
    Standing.DAMAGED,
    Standing.UNREACHABLE,
    Standing.PAUSED,
    Standing.HELD,
    Standing.BEHIND,
)


@dataclass(slots=True)
class Ledger:
    """The published generations, and the facts that each partner saved last."""

    committed: dict[Digest, SignedGeneration] = field(default_factory=dict)
    definitions: dict[Digest, bytes] = field(default_factory=dict)
    """The rollout policies of all generations, encoded, by the digest of the definition."""
    last: dict[str, FollowFacts] = field(default_factory=dict)
    reports: dict[str, FollowReport] = field(default_factory=dict)
    asked: dict[int, None] = field(default_factory=dict)
    answered: dict[int, None] = field(default_factory=dict)
    floors: dict[str, HeadRef] = field(default_factory=dict)
    """The generations in the trees of nodes whose state came back from an older copy."""
    lost: LostFuture = field(default_factory=LostFuture)
    requests: int = 0
    """The number of the last request of an operator, anywhere."""

    def policy_of(self, head: HeadRef) -> RolloutPolicy:
        """The rollout policy in a generation's definition."""
        signed = self.committed.get(head.id)
        return decode_policy(b"" if signed is None else self.definitions[signed.body().definition])

    def leaves(self, name: str, is_direct: bool, old: HeadRef | None, new: HeadRef | None) -> None:
        """A partner saves a newer head; ``is_direct`` when it follows the writer itself."""
        if is_direct:
            self.lost.leaves(name, self.committed, old, new)

    def saves(self, name: str, facts: FollowFacts, store: SimStore) -> None:
        """A partner makes these facts durable."""
        before = self.last.get(name, FollowFacts())
        self._head_rises(name, before.head, facts.head)
        for what in ("head", "live", "tree"):
            ref: HeadRef | None = getattr(facts, what)
            if ref is not None and ref.id not in self.committed:
                raise BrokenPromise("P3", f"{name}: {what} {ref.number} was never published by the writer")
        if facts.head is not None and facts.head.id not in store.generations:
            raise BrokenPromise("P4", f"{name} names head {facts.head.number}, whose record it does not have")
        is_put_back = before.tree == facts.live or (
            before.refused is not None and before.refused == before.live
        )
        rests = (
            facts.floor is not None and facts.tree is None
        )  # it knows that its state is older than its tree
        if _falls(before.live, facts.live) and not (rests or (is_put_back and facts.live == before.replaced)):
            raise BrokenPromise(
                "P4", f"{name}: recorded live falls from {_pos(before.live)} to {_pos(facts.live)}"
            )
        is_refused = before.refused is not None and before.refused == before.tree
        # An older state may name a generation that the tree was put back from since: a recovery finds out.
        is_found = facts.tree is not None and facts.tree == self.floors.get(name)
        if _falls(before.tree, facts.tree) and not (
            rests or is_found or (is_refused and facts.tree in (before.live, before.replaced))
        ):
            raise BrokenPromise(
                "P4", f"{name}: the tree falls from {_pos(before.tree)} and nothing was put back"
            )
        self.last[name] = facts
        floor = self.floors.get(name)
        if floor is not None and facts.tree is not None and facts.tree.position >= floor.position:
            del self.floors[name]

    def restored(self, name: str, held: HeadRef | None) -> None:
        """A node's state came back from an older copy; its tree, which holds ``held``, did not."""
        self.last[name] = FollowFacts()
        if held is not None:
            self.floors[name] = held

    def goes_to(self, name: str, head: HeadRef) -> None:
        """A partner is about to make its tree this generation."""
        if _falls(self.floors.get(name), head):
            floor = _pos(self.floors[name])
            raise BrokenPromise("P4", f"{name} takes its tree, which holds {floor}, back to {_pos(head)}")

    def woke(self, name: str, facts: FollowFacts, store: SimStore) -> None:
        """A partner starts with the facts on its disk: nothing that it acted on may be forgotten."""
        before = self.last.get(name, FollowFacts())
        self._head_rises(name, before.head, facts.head)
        if facts.head is not None and facts.head.id not in store.generations:
            raise BrokenPromise("P4", f"{name} woke with head {facts.head.number}, but without its record")
        if before.live is not None and facts.live != before.live:
            raise BrokenPromise("P4", f"{name} forgot in a crash that {before.live.number} was recorded live")
        self.last[name] = facts

    def reported(self, name: str, report: FollowReport) -> None:
        """P9: whatever is not in order has a code or a reason that a person can read."""
        self.reports[name] = report
        saved = self.last.get(name, FollowFacts()).live
        if report.live != saved:
            raise BrokenPromise("P4", f"{name} reports live {_pos(report.live)}, and {_pos(saved)} is saved")
        if report.standing in NEED_A_REASON and not report.reason:
            raise BrokenPromise("P9", f"{name} is {report.standing.value} without a reason")
        if report.standing is Standing.IN_STEP and report.live != report.head:
            raise BrokenPromise(
                "P9", f"{name} says in step with live {_pos(report.live)}, head {_pos(report.head)}"
            )

    def _head_rises(self, name: str, before: HeadRef | None, after: HeadRef | None) -> None:
        if _falls(before, after) or (
            before is not None
            and after is not None
            and before.position == after.position
            and before.id != after.id
        ):
            raise BrokenPromise("P4", f"{name}: the head went from {_pos(before)} to {_pos(after)}")


def _falls(before: HeadRef | None, after: HeadRef | None) -> bool:
    if before is None:
        return False
    return after is None or after.position < before.position


def _pos(head: HeadRef | None) -> str:
    return "nothing" if head is None else f"{head.epoch}.{head.number}"
