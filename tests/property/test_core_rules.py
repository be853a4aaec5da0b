"""Rules of the core against naive twins: heads only rise, back-off is bounded, retention holds, guards count."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from instep.core.backoff import Backoff
from instep.core.follow.fights import FIGHT_REVERTS, FIGHT_WINDOW_MS, FightDetector
from instep.core.guards.guards import DeletionPolicy, judge_deletions
from instep.core.lines.accept import AcceptedHead, EpochBook, EpochClaim, judge_head
from instep.core.publish.unpublished import Unpublished
from instep.core.retention import Batch, RetentionPolicy, Version, plan_prune, plan_thinning
from instep.core.vocabulary import SignerVerdict
from instep.model.ids import HeadRef
from tests.golden.dialogue import LINE, MAIN, digest, generation

BOOK = EpochBook(EpochClaim(2, digest("epoch 2"), MAIN, b"key"))
OFFERS = st.tuples(st.integers(1, 3), st.integers(1, 6), st.sampled_from("ab"), st.booleans(), st.booleans())


@given(st.lists(OFFERS, max_size=30))
def test_a_head_only_rises_and_only_by_its_writer(
    offers: list[tuple[int, int, str, bool, bool]],
) -> None:
    head: HeadRef | None = None
    for epoch, number, root, is_valid, is_main in offers:
        signed = generation(number, epoch, root)
        verdict = SignerVerdict(is_valid, MAIN if is_main else type(MAIN)("hub"))
        judged = judge_head(signed, verdict, LINE, head, BOOK)
        may = is_valid and is_main and epoch == 2 and (head is None or (epoch, number) > head.position)
        assert isinstance(judged, AcceptedHead) == may
        if isinstance(judged, AcceptedHead):
            head = judged.head


@given(st.integers(1, 40), st.integers(1, 10_000), st.integers(1, 100_000), st.integers(0, 1 << 30))
def test_back_off_is_bounded_and_never_negative(failures: int, least: int, most: int, seed: int) -> None:
    backoff = Backoff(Random(seed))
    for _ in range(failures):
        at = backoff.fail("apply", 1_000, least, most)
        assert 1_000 < at <= 1_000 + max(1, most)
        assert not backoff.is_ready("apply", at - 1)
        assert backoff.is_ready("apply", at)


BATCHES = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 1_000)), max_size=30)


@given(BATCHES, st.integers(0, 12), st.integers(0, 120), st.none() | st.integers(0, 5_000))
def test_retention_is_never_undercut(
    drawn: list[tuple[int, int]], keep_last: int, keep_within: int, most: int | None
) -> None:
    batches = [Batch(f"b{n:02}", at, size) for n, (at, size) in enumerate(drawn)]
    plan = plan_prune(batches, RetentionPolicy(keep_last, keep_within, most), 100, from_newest=False)
    gone = set(plan.names)
    newest = sorted(batches, key=lambda b: (b.at_ms, b.name))[len(batches) - min(keep_last, len(batches)) :]
    assert not gone & {b.name for b in newest}
    assert not gone & {b.name for b in batches if 100 - b.at_ms <= keep_within}
    kept = {b.name for b in newest} | {b.name for b in batches if 100 - b.at_ms <= keep_within}
    assert gone == {b.name for b in batches} - kept
    total = sum(b.size_bytes for b in batches if b.name not in gone)
    assert plan.over_share_bytes == (0 if most is None else max(0, total - most))


VERSIONS = st.dictionaries(st.sampled_from((b"a", b"b", b"c")), st.booleans(), max_size=3)


@given(
    st.lists(st.tuples(st.integers(0, 900), VERSIONS), min_size=1, max_size=25),
    st.integers(0, 4),
    st.integers(0, 25),
)
def test_thinning_leaves_a_version_of_each_hour_day_and_week(
    drawn: list[tuple[int, dict[bytes, bool]]], keep_last: int, most: int
) -> None:
    """``drawn``: the hour at which each batch was made, and its paths: whether each was set aside."""
    hour = 3_600_000
    batches = [Batch(f"b{n:02}", at * hour, 1) for n, (at, _) in enumerate(drawn)]
    versions = [
        Version(f"b{n:02}", p, stays) for n, (_, paths) in enumerate(drawn) for p, stays in paths.items()
    ]
    now = max(b.at_ms for b in batches)
    gone = plan_thinning(batches, versions, RetentionPolicy(keep_last, max_bytes=most), now + hour)
    kept = [b for b in batches if b.name not in gone]
    newest = sorted(batches, key=lambda b: (b.at_ms, b.name))[len(batches) - min(keep_last, len(batches)) :]
    assert {b.name for b in newest} <= {b.name for b in kept}
    assert len(gone) <= max(0, len(batches) - most)
    at = {b.name: (b.at_ms, b.name) for b in batches}
    for version in versions:
        if version.batch in gone:
            assert not version.stays
            made = at[version.batch][0]
            age = now - made
            assert age > hour
            within = hour if age <= 24 * hour else 24 * hour if age <= 168 * hour else 168 * hour
            assert any(
                v.path == version.path
                and v.batch not in gone
                and at[v.batch] > at[version.batch]
                and at[v.batch][0] // within == made // within
                for v in versions
            )


def test_thinning_brings_a_churned_file_within_the_share() -> None:
    """One file, ten versions an hour for three days: what fits is kept, and the newest of each hour."""
    minutes = 6 * 60_000
    batches = [Batch(f"b{n:03}", n * minutes, 1) for n in range(720)]
    versions = [Version(b.name, b"log") for b in batches]
    gone = plan_thinning(batches, versions, RetentionPolicy(max_bytes=100), batches[-1].at_ms)
    assert 30 < len(batches) - len(gone) <= 100
    assert plan_thinning(batches, versions, RetentionPolicy(max_bytes=719), batches[-1].at_ms) == ("b000",)


@given(st.integers(0, 1_000), st.integers(0, 1_000), st.integers(0, 100), st.booleans())
def test_deletions_pass_up_to_twenty_or_the_share(
    removed: int, before: int, share: int, accepted: bool
) -> None:
    refusal = judge_deletions(removed, before, DeletionPolicy(share), accepted=accepted)
    may = accepted or removed <= 20 or removed * 100 <= before * share
    assert (refusal is None) == may


@given(st.lists(st.integers(0, 400_000), min_size=1, max_size=20))
def test_no_path_is_reverted_more_than_three_times_in_ten_minutes(pauses: list[int]) -> None:
    fights, now, done = FightDetector(), 0, []
    for pause in pauses:
        now += pause
        free, fought = fights.split((b"a",), now)
        assert bool(free) != bool(fought)
        if free:
            fights.reverted(free, now)
            done.append(now)
        recent = [at for at in done if now - at < FIGHT_WINDOW_MS]
        assert len(recent) <= FIGHT_REVERTS
        assert free or len(recent) == FIGHT_REVERTS


@given(st.lists(st.tuples(st.integers(0, 3_000), st.booleans()), min_size=1, max_size=20))
def test_a_change_is_due_after_settle_and_no_later_than_the_maximum(changes: list[tuple[int, bool]]) -> None:
    dirty, now, first, triggered = Unpublished(), 0, None, False
    dirty.take()
    for pause, is_trigger in changes:
        now += pause
        dirty.touch((b"trigger" if is_trigger else b"other",), now, trigger=b"trigger")
        first = now if first is None else first
        triggered = triggered or is_trigger
        due = dirty.due_ms(200, 1_000, 5_000)
        assert due == (min(now + 200, first + 1_000) if triggered else first + 5_000)
    assert set(dirty.take()) <= {b"trigger", b"other"}
    assert dirty.due_ms(200, 1_000, 5_000) is None
