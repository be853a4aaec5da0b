"""The row of a partner in the writer's status: what it reported, as far as the clock and the certificate here allow."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.standing import Standing, StandingRecord
from instep.net.messages.messages import Report
from instep.net.trust.pki_problems import PkiProblem
from instep.node.lines.snapshot import moment, partner_document
from instep.store.memory import MemoryStore

S1 = NodeName("s1")
LINE = LineId(FilesetName("data"), NodeName("main"))
HEAD = HeadRef(1, 1, Digest(b"\1" * 32), Digest(b"\2" * 32))
HOUR_MS = 3_600_000
NOW = 500 * HOUR_MS
EXPIRED = PkiProblem(Path("/n/pki/node.crt"), "expiry", "expired on a day", "compare date -u")


@pytest.mark.parametrize("apart_ms", [HOUR_MS, -HOUR_MS])
def test_a_partner_that_is_gone_is_unreachable_whichever_way_the_clock_went(apart_ms: int) -> None:
    """Goal: a writer whose clock was put back called a partner in step that it had lost."""
    stands = StandingRecord(Standing.IN_STEP, 0, None, None)
    report = Report(LINE, S1, HEAD, HEAD, stands, HEAD.root, NOW - apart_ms)

    def row(
        *, is_connected: bool, trouble: PkiProblem | None = None
    ) -> tuple[str, str | None, tuple[str, ...]]:
        found = partner_document(
            MemoryStore(), S1, report, HEAD, is_connected=is_connected, since_ms=0, poll_ms=1_000, now_ms=NOW,
            own_trouble=trouble,
        )  # fmt: skip
        return found.standing, found.reason, found.next

    assert row(is_connected=True)[0] == "in_step"
    standing, reason, steps = row(is_connected=False)
    assert standing == "unreachable" and "last heard of" in str(reason) and steps[0].startswith("on s1:")
    standing, reason, steps = row(is_connected=False, trouble=EXPIRED)
    assert (standing, reason, steps[0]) == (
        "unreachable",
        "node.crt here expired on a day",
        "compare date -u",
    )


@pytest.mark.parametrize("skew_ms", [HOUR_MS, 0, -HOUR_MS])
def test_last_checked_is_by_the_clock_of_the_node_that_shows_it(skew_ms: int) -> None:
    """Goal: a partner whose clock is ahead was not checked in the future, nor long ago when it is behind (M25)."""
    stands = StandingRecord(Standing.IN_STEP, 0, None, None)
    report = Report(LINE, S1, HEAD, HEAD, stands, HEAD.root, NOW + skew_ms)
    found = partner_document(
        MemoryStore(),
        S1,
        report,
        HEAD,
        is_connected=True,
        since_ms=0,
        poll_ms=1_000,
        now_ms=NOW,
        skew_ms=skew_ms,
    )
    assert found.last_checked == moment(NOW)
