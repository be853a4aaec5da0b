"""What ``instep test`` does on one node: its probes and golden requests, now, without changing anything."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace

from instep.api.verifying import AnswerDocument, TestDocument
from instep.fleet.balancers.plan import Affinity, cookie_of_application
from instep.fleet.golden.golden import named
from instep.fleet.golden.session_walk import why_not_kept
from instep.fleet.golden.spec import CompareBy, GoldenAnswer, GoldenSpec, GoldenVerdict
from instep.fleet.hooks.hooks import run_hook as run_one
from instep.fleet.hooks.spec import HookCall
from instep.model.ids import FilesetName, HeadRef
from instep.net.messages.messages import TestAnswer, TestRow
from instep.node.lines.golden_answers import Golden, Recording, Slot
from instep.node.lines.hook_calls import spec_of

REASON_MAX = 2_000


async def try_node(golden: Golden, live: HeadRef | None) -> tuple[TestRow, ...]:
    """Every probe hook, and every golden request at this node's own application. An answer is compared with the one
    recorded when the live generation went live, or before it was put back."""
    fileset, rows = golden.fileset, []
    for number, hook in enumerate(fileset.hooks.probe, 1):
        told = {"INSTEP_PATH": str(fileset.path)}
        call = HookCall("probe", FilesetName(fileset.name), live, live, extra=told)
        outcome = await run_one(spec_of(hook), call)
        name = "probe" if len(fileset.hooks.probe) == 1 else f"probe {number}"
        rows.append(TestRow(name, "probe", outcome.explained[:REASON_MAX]))
    before = golden.recording(Slot.LIVE, live) or golden.recording(Slot.BEFORE, live)
    return (*rows, *await _asked(golden, golden.specs, before, "golden"))


async def try_balancer(golden: Golden) -> tuple[TestRow, ...]:
    """Every golden request at the address that users call, compared with the answers there after the last rollout; and
    a user's way with the cookie, where a balancer here keeps users on a node by one."""
    specs, settings = golden.balancer_specs, golden.runtime.settings
    rows = await _asked(golden, specs, golden.last(Slot.BALANCER), "balancer")
    cookies = [
        cookie_of_application(name)
        for name, one in settings.balancers.items()
        if golden.fileset.name in one.filesets
        and one.affinity is Affinity.COOKIE
        and not all(service.is_passed_through for service in one.services)
    ]
    if specs and cookies:
        reason = await why_not_kept(specs[0], cookies)
        rows = (*rows, TestRow("session", "balancer", reason[:REASON_MAX]))
    return rows


async def _asked(
    golden: Golden, specs: Sequence[GoldenSpec], before: Recording | None, kind: str
) -> tuple[TestRow, ...]:
    # Here nothing is about to change: an answer that was declared different before must stay as it is now.
    settled = [replace(spec, is_change_expected=False) for spec in specs]
    verdicts = await golden.verdicts(settled, before, retries=golden.fileset.golden.retries)
    asked = {
        one.name: repr((one.method, one.path, one.body, one.ignore)) for one in golden.fileset.golden.requests
    }
    return tuple(_row(one, kind, asked[one.spec.name]) for one in verdicts)


def _row(verdict: GoldenVerdict, kind: str, asked: str) -> TestRow:
    reason = "" if verdict.ok else f"{named(verdict.spec)}: {verdict.reason}"
    return TestRow(
        name=verdict.spec.name,
        kind=kind,
        reason=reason[:REASON_MAX],
        compare=verdict.spec.compare.value,
        asked=hashlib.sha256(asked.encode()).hexdigest(),
        is_compared=verdict.is_compared,
        before=None if verdict.before is None else _answer(verdict.before),
        now=_answer(verdict.now),
        largest_difference=verdict.largest,
        share_percent=verdict.share_percent,
    )


def _answer(answer: GoldenAnswer) -> TestAnswer:
    return TestAnswer(answer.status, answer.sha256, answer.size_bytes, answer.problem[:REASON_MAX])


def test_document(row: TestRow, node: str) -> TestDocument:
    """One test of ``test --json``."""
    return TestDocument(
        name=row.name,
        kind=row.kind,
        node=node,
        ok=not row.reason,
        reason=row.reason or None,
        compared=row.is_compared,
        before=_shown(row.before),
        now=_shown(row.now),
        largest_difference=row.largest_difference,
        share_percent=row.share_percent,
    )


def _shown(answer: TestAnswer | None) -> AnswerDocument | None:
    if answer is None:
        return None
    status, digest, problem = answer.status or None, answer.sha256 or None, answer.problem or None
    return AnswerDocument(status, digest, answer.size_bytes, problem)


def unequal(found: Mapping[str, Sequence[TestRow]]) -> list[tuple[str, TestRow]]:
    """Nodes whose applications answer another digest than the first node, by name, to the same question: rows of kind
    ``fleet`` that name both, in whichever order they answered. A question without an answer is in a row of its own
    already."""
    first: dict[str, tuple[str, TestRow]] = {}
    rows = []
    for node, tests in sorted(found.items()):
        for one in tests:
            if (
                one.kind != "golden"
                or one.compare != CompareBy.DIGEST.value
                or one.now is None
                or one.now.problem
            ):
                continue
            other, theirs = first.setdefault(one.asked, (node, one))
            assert theirs.now is not None
            if theirs.now.sha256 != one.now.sha256:
                values = f"{other} {theirs.now.sha256[:12]}, {node} {one.now.sha256[:12]}"
                rows.append(
                    (node, TestRow(one.name, "fleet", f"two nodes answer differently: sha256 {values}"))
                )
    return rows
