"""At the writer: the answers that users get through the balancer before a rollout and after it.

The fleet is asked at rest: answers are recorded when a rollout has ended well, and the answers after the next one are
compared with them. While a rollout runs, a balancer answers from old and new nodes alike, and is not asked.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from instep.core.rollout import vocabulary as r
from instep.core.rollout.vocabulary import RolloutState
from instep.fleet.golden.golden import named
from instep.fleet.golden.spec import GoldenSpec, GoldenVerdict
from instep.model.ids import Digest, HeadRef
from instep.node.lines.golden_answers import Golden, Slot
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.writing.rollout import RolloutService

LOOK_AGAIN_S = 60.0
"""The safety net: ``runtime.changed`` announces a change."""
ANSWERED_S = 30.0
_AT_REST = (RolloutState.DONE, RolloutState.CONFIRMING)
_THERE = ("switched", "unreachable", "left_out")
log = logging.getLogger(__name__)


class BalancerCheck:
    """One per fileset that is written here; does nothing where no balancer is configured."""

    def __init__(self, runtime: Runtime, golden: Golden, rollout: RolloutService) -> None:
        self._runtime = runtime
        self._golden = golden
        self._rollout = rollout
        self._asked: tuple[Digest, tuple[GoldenSpec, ...]] | None = None

    async def run(self) -> None:
        """Look whenever something changed, until cancelled."""
        while True:
            changed = self._runtime.changed
            await self._look()
            try:
                async with asyncio.timeout(LOOK_AGAIN_S):
                    await changed.wait()
            except TimeoutError:
                continue

    async def _look(self) -> None:
        """Once for each head, and again when other requests are configured."""
        view, specs = self._rollout.view, self._golden.balancer_specs
        if not specs or view is None or view.facts.target is None or view.facts.state not in _AT_REST:
            return
        head = view.facts.target
        if self._asked == (head.id, specs) or any(node.state not in _THERE for node in view.nodes):
            return
        self._asked = (head.id, specs)
        before = self._golden.last(Slot.BALANCER)
        if before is not None and before.generation == head:
            known = {answer.question for answer in before.answers}
            if all(spec.question in known for spec in specs):
                return
        is_new = before is not None and before.generation != head
        verdicts = await self._golden.verdicts(specs, before, retries=self._golden.fileset.golden.retries)
        failing = [one for one in verdicts if not one.ok]
        if failing and is_new:
            await self._failed(head, failing)
            return
        self._golden.keep(Slot.BALANCER, head, [one.now for one in verdicts], wall_ms())
        compared = sum(one.is_compared for one in verdicts)
        text = f"{len(verdicts)} golden answers through the balancer, {compared} of them compared"
        if failing:  # There was no rollout since they were recorded that could be put back.
            text += f", {len(failing)} not as expected: {_told(failing)}"
        self._note("golden_missing" if failing else "golden", text, head)

    async def _failed(self, head: HeadRef, failing: Sequence[GoldenVerdict]) -> None:
        reason = f"through the balancer: {_told(failing)}"
        self._note("golden_differs", reason, head)
        try:
            refused = await self._rollout.ask(
                lambda number: r.AnswersDiffered(number, head, reason), ANSWERED_S
            )
        except TimeoutError:
            refused = None
            log.warning("%s: the rollout did not take that answers differ", self._golden.fileset.line)
        if refused is not None:
            log.info(
                "%s: %s", self._golden.fileset.line, refused.reason
            )  # a newer head is on its way already

    def _note(self, what: str, text: str, head: HeadRef) -> None:
        fileset = self._golden.fileset
        self._runtime.note(what, f"{fileset.name}: {text}", fileset.line, generation=head.number)


def _told(failing: Sequence[GoldenVerdict]) -> str:
    return "; ".join(f"golden answer {named(one.spec)}: {one.reason}" for one in failing)
