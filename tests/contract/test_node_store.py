"""The exam of every node store: one suite, each implementation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from instep.errors import PeerError, UnavailableError
from instep.model.generation import EpochBody, GenerationBody, Signature, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.paths import sort_key
from instep.model.statrow import StatRow
from instep.store.memory import MemoryStore
from instep.store.port import EVENTS_KEPT, ROLLOUTS_KEPT, ChangeRow, ChangeSide, NodeStore
from instep.store.sqlite import SqliteStore

MAIN = NodeName("main")
S1, S2 = NodeName("s1"), NodeName("s2")
CATALOG = FilesetName("catalog")
LINE = LineId(CATALOG, MAIN)
OTHER = LineId(FilesetName("docs"), MAIN)


def _memory(_: Path) -> NodeStore:
    return MemoryStore()


def _sqlite(folder: Path) -> NodeStore:
    return SqliteStore(folder / "state.db")


@pytest.fixture(params=[_memory, _sqlite], ids=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NodeStore]:
    make: Callable[[Path], NodeStore] = request.param
    made = make(tmp_path)
    yield made
    made.close()


def digest(text: object) -> Digest:
    return Digest(blake3(str(text).encode()).digest())


def head(number: int, epoch: int = 1) -> HeadRef:
    return HeadRef(epoch, number, digest(number), digest(f"root {number}"))


def generation(number: int, epoch: int = 1, message: str = "", key: bytes = b"k") -> SignedGeneration:
    body = GenerationBody(
        1,
        CATALOG,
        MAIN,
        epoch,
        number,
        EMPTY_DIGEST,
        digest("root"),
        digest("rules"),
        "ana",
        message,
        7,
        3,
        9,
    )
    return SignedGeneration(body.encoded(), Signature(MAIN, key, b"v"))


def epoch(number: int, writer: NodeName = MAIN) -> SignedEpoch:
    body = EpochBody(1, CATALOG, MAIN, number, writer, b"key", EMPTY_DIGEST)
    return SignedEpoch(body.encoded(), Signature(MAIN, b"k", b"v"))


def row(path: bytes, ino: int = 5, size: int = 10, mtime_ns: int = 3) -> StatRow:
    return StatRow(path, ino, 66, 2, mtime_ns, size, digest(path), b"", 1_000)


# pages


def test_pages_come_back_and_are_counted(store: NodeStore) -> None:
    pages = [(digest(n), f"page {n}".encode() * 50) for n in range(1500)]
    store.put_pages(iter(pages))
    store.put_pages(pages[:3])
    assert store.pages_count() == 1500
    assert store.get_page(pages[7][0]) == pages[7][1]
    assert store.get_page(digest("none")) is None
    assert store.has_pages([pages[0][0], digest("none"), pages[1499][0]]) == {pages[0][0], pages[1499][0]}
    store.delete_pages([pages[0][0], digest("none")])
    assert store.get_page(pages[0][0]) is None
    assert store.pages_count() == 1499


def test_a_sweep_drops_what_nobody_keeps(store: NodeStore) -> None:
    store.put_pages((digest(n), b"x") for n in range(3000))
    ticket = store.begin_sweep()
    assert store.sweep_pages((digest(n) for n in range(10)), ticket) == 2990
    assert store.pages_count() == 10
    assert store.sweep_pages((digest(n) for n in range(10)), store.begin_sweep()) == 0


def test_a_sweep_spares_what_was_put_or_found_since_it_began(store: NodeStore) -> None:
    store.put_pages((digest(n), b"x") for n in range(4))
    ticket = store.begin_sweep()
    store.put_pages([(digest(0), b"x"), (digest("new"), b"y")])
    assert store.has_pages([digest(1)]) == {digest(1)}
    assert store.sweep_pages([], ticket) == 2
    assert store.has_pages([digest(0), digest(1), digest("new")]) == {digest(0), digest(1), digest("new")}


def test_blobs_come_back(store: NodeStore) -> None:
    store.put_blob(digest("d"), b"definition")
    store.put_blob(digest("d"), b"definition")
    assert store.get_blob(digest("d")) == b"definition"


# generations and epochs


def test_generations_stand_newest_first(store: NodeStore) -> None:
    made = [generation(n, epoch=e) for e, n in ((1, 1), (1, 2), (2, 2), (1, 10), (2, 3))]
    for one in made:
        store.add_generation(one)
    assert [one.ref().position for one in store.generations(LINE)] == [
        (2, 3),
        (2, 2),
        (1, 10),
        (1, 2),
        (1, 1),
    ]
    assert [one.ref().position for one in store.generations(LINE, limit=2)] == [(2, 3), (2, 2)]
    assert store.generation(made[3].id) == made[3]
    assert store.generation_at(LINE, 1, 10) == made[3]
    assert store.generation_at(LINE, 1, 11) is None
    assert store.generations(OTHER) == []
    store.delete_generations([made[3].id, digest("none")])
    assert store.generation(made[3].id) is None
    assert store.generation_at(LINE, 1, 10) is None


def test_a_newer_signature_replaces_and_another_generation_of_that_number_is_refused(
    store: NodeStore,
) -> None:
    store.add_generation(generation(1))
    resigned = generation(1, key=b"new key")
    store.add_generation(resigned)
    assert store.generation(resigned.id) == resigned
    with pytest.raises(PeerError) as caught:
        store.add_generation(generation(1, message="another"))
    assert caught.value.error_code == "generation_conflict"
    assert store.generations(LINE) == [resigned]


def test_two_epoch_records_of_one_number_are_both_kept(store: NodeStore) -> None:
    records = [epoch(2, S1), epoch(1), epoch(2, MAIN)]
    for record in records:
        store.add_epoch(record)
        store.add_epoch(record)
    assert [record.body().epoch for record in store.epochs(LINE)] == [1, 2, 2]
    assert {record.id for record in store.epochs(LINE)} == {record.id for record in records}


# lines, odds and ends


def test_a_line_keeps_state_head_and_live_apart(store: NodeStore) -> None:
    assert store.load_line(LINE) is None
    store.set_head(LINE, head(2))
    assert store.load_line(LINE) is None
    store.save_line(LINE, b"machine")
    store.set_live(LINE, head(1))
    store.set_live(OTHER, None)
    assert store.load_line(LINE) == b"machine"
    assert [tuple(line) for line in store.lines()] == [(LINE, head(2), head(1)), (OTHER, None, None)]
    store.set_live(LINE, None)
    assert store.lines()[0].live is None


def test_named_values(store: NodeStore) -> None:
    assert store.get("members") is None
    store.put("members", b"1")
    store.put("members", b"2")
    assert store.get("members") == b"2"
    store.delete("members")
    store.delete("members")
    assert store.get("members") is None


# the stat cache


def test_stat_rows_come_in_path_order_across_batches(store: NodeStore) -> None:
    paths = [f"d{n % 7}/f{n:05d}".encode() for n in range(9000)] + [
        b"d1",
        b"d1-",
        b"d1 x",
        b"d1\xff",
        b"d1/\x01",
    ]
    random.Random(5).shuffle(paths)
    store.put_stat_rows(CATALOG, (row(path) for path in paths))
    expected = sorted(paths, key=sort_key)
    assert [one.path for one in store.stat_rows(CATALOG)] == expected
    middle = expected[4500]
    assert [one.path for one in store.stat_rows(CATALOG, after=middle)] == expected[4501:]
    below = [path for path in expected if path.startswith(b"d1/")]
    assert [one.path for one in store.stat_rows(CATALOG, below=b"d1")] == below
    assert [one.path for one in store.stat_rows(CATALOG, after=below[3], below=b"d1")] == below[4:]
    assert list(store.stat_rows(FilesetName("other"))) == []


def test_one_row_by_path_and_by_inode(store: NodeStore) -> None:
    store.put_stat_rows(CATALOG, [row(b"b", ino=9), row(b"a", ino=9), row(b"c", ino=8)])
    assert store.stat_row(CATALOG, b"c") == row(b"c", ino=8)
    assert store.stat_row(CATALOG, b"d") is None
    assert store.stat_by_inode(CATALOG, 66, 9) == row(b"a", ino=9)
    assert store.stat_by_inode(CATALOG, 67, 9) is None
    store.put_stat_rows(CATALOG, [row(b"a", ino=10, size=11)])
    assert store.stat_row(CATALOG, b"a") == row(b"a", ino=10, size=11)
    assert store.stat_by_inode(CATALOG, 66, 9) == row(b"b", ino=9)


def test_numbers_of_every_file_system_come_back(store: NodeStore) -> None:
    wide = StatRow(
        b"w",
        (1 << 64) - 1,
        (1 << 63) + 5,
        -(10**18),
        15_032_385_535 * 10**9,
        1 << 62,
        digest("w"),
        digest("c"),
        7,
    )
    store.put_stat_rows(CATALOG, [wide])
    assert store.stat_row(CATALOG, b"w") == wide
    assert store.stat_by_inode(CATALOG, wide.dev, wide.ino) == wide


def test_rows_and_trees_of_rows_go(store: NodeStore) -> None:
    for path in (b"a", b"d", b"d/x", b"d/x/y", b"d.txt", b"e", b"f"):
        store.put_stat_rows(CATALOG, [row(path)])
    store.delete_stat_rows(CATALOG, [b"a", b"nowhere"])
    store.delete_stat_trees(CATALOG, [b"d", b"f", b"nowhere"])
    assert [one.path for one in store.stat_rows(CATALOG)] == [b"d.txt", b"e"]
    store.delete_stat_trees(CATALOG, [b""])
    assert list(store.stat_rows(CATALOG)) == []


def test_rows_change_while_they_are_read(store: NodeStore) -> None:
    store.put_stat_rows(CATALOG, (row(f"f{n:05d}".encode()) for n in range(5000)))
    seen = []
    for one in store.stat_rows(CATALOG):
        seen.append(one.path)
        if len(seen) == 10:
            store.delete_stat_rows(CATALOG, [f"f{n:05d}".encode() for n in range(10)])
    assert len(seen) == len(set(seen)) == 5000


# reports and events


def test_reports_are_kept_per_partner(store: NodeStore) -> None:
    store.save_report(LINE, S1, b"1")
    store.save_report(LINE, S1, b"2")
    store.save_report(LINE, NodeName("s2"), b"3")
    assert store.reports(LINE) == {S1: b"2", NodeName("s2"): b"3"}
    store.delete_reports(S1)
    assert store.reports(LINE) == {NodeName("s2"): b"3"}


def test_events_are_told_oldest_first_within_bounds(store: NodeStore) -> None:
    with store.transaction(durable=False):
        for n in range(EVENTS_KEPT + 5):
            store.append_event(n, "published", LINE if n % 2 else None, f"event {n}", {"number": n})
    newest = store.events(limit=2)
    assert [event.at_ms for event in newest] == [EVENTS_KEPT + 3, EVENTS_KEPT + 4]
    assert newest[0].line == LINE
    assert newest[1].line is None
    assert newest[1].facts == {"number": EVENTS_KEPT + 4}
    assert newest[1].number == EVENTS_KEPT + 5
    assert store.events(limit=100_000)[0].at_ms == 5
    assert [event.at_ms for event in store.events(since_ms=EVENTS_KEPT + 4)] == [EVENTS_KEPT + 4]


# transactions


def test_a_failed_transaction_leaves_nothing(store: NodeStore) -> None:
    store.put("k", b"before")
    with pytest.raises(KeyError), store.transaction():
        store.put("k", b"inside")
        store.put_pages([(digest("p"), b"p")])
        store.put_stat_rows(CATALOG, [row(b"a")])
        raise KeyError
    assert store.get("k") == b"before"
    assert store.pages_count() == 0
    assert list(store.stat_rows(CATALOG)) == []


def test_an_inner_failure_that_is_caught_undoes_the_inner_part_only(store: NodeStore) -> None:
    with store.transaction(durable=False):
        store.put("outer", b"1")
        with pytest.raises(KeyError), store.transaction():
            store.put("inner", b"2")
            raise KeyError
        store.put("after", b"3")
    assert (store.get("outer"), store.get("inner"), store.get("after")) == (b"1", None, b"3")


def test_a_closed_store_says_so(store: NodeStore) -> None:
    store.close()
    store.close()
    with pytest.raises(UnavailableError) as caught:
        store.get_page(digest(1))
    assert caught.value.error_code == "state_closed"


# rollouts


def test_rollouts_keep_their_state_and_a_bounded_past(store: NodeStore) -> None:
    assert store.load_rollout(LINE) is None and store.rollouts(LINE) == []
    store.save_rollout(LINE, b"one")
    store.save_rollout(LINE, b"two")
    store.save_rollout(OTHER, b"other")
    assert (store.load_rollout(LINE), store.load_rollout(OTHER)) == (b"two", b"other")
    store.keep_rollout(OTHER, b"kept")
    with store.transaction():
        for number in range(ROLLOUTS_KEPT + 5):
            store.keep_rollout(LINE, b"%d" % number)
    found = store.rollouts(LINE, 10_000)
    assert len(found) == ROLLOUTS_KEPT
    assert (found[0], found[-1]) == (b"%d" % (ROLLOUTS_KEPT + 4), b"5"), "newest first, oldest pruned"
    assert store.rollouts(LINE, 2) == found[:2]
    assert store.rollouts(OTHER) == [b"kept"], "another line's are counted alone"


# changes from elsewhere


def test_the_machines_of_changes_keep_their_state_by_line_and_side(store: NodeStore) -> None:
    assert store.load_changes(LINE, ChangeSide.HOME) is None
    store.save_changes(LINE, ChangeSide.HOME, b"one")
    store.save_changes(LINE, ChangeSide.HOME, b"two")
    store.save_changes(LINE, ChangeSide.OFFERS, b"offers")
    store.save_changes(OTHER, ChangeSide.HOME, b"other")
    found = [store.load_changes(line, side) for line in (LINE, OTHER) for side in ChangeSide]
    assert found == [b"two", b"offers", b"other", None]


def test_a_change_set_is_kept_until_it_is_answered_and_an_answer_stays(store: NodeStore) -> None:
    first, second, third = digest(1), digest(2), digest(3)
    assert store.change(first) is None
    store.keep_change(LINE, first, b"set", 10, S1)
    store.keep_change(LINE, first, b"set, decided", 11, S1)
    assert store.change(first) == ChangeRow(b"set, decided", None)
    store.answer_change(LINE, first, b"answer", 20, S1)
    store.keep_change(LINE, first, b"late", 30, S1)
    assert store.change(first) == ChangeRow(None, b"answer")
    store.answer_change(LINE, second, b"refused at once", 25, S1)
    store.answer_change(OTHER, third, b"of another line", 5, S1)
    assert store.changes_of(LINE, S1) == (2, len(b"answer") + len(b"refused at once"))
    assert store.changes_of(OTHER, S1) == (1, len(b"of another line"))
    assert store.changes_of(LINE, S2) == (0, 0)
    assert store.delete_changes(LINE, 20) == 0
    assert store.delete_changes(LINE, 25) == 1
    assert store.change(first) is None
    assert store.change(second) == ChangeRow(None, b"refused at once")
    assert store.changes_of(LINE, S1) == (1, len(b"refused at once"))
    assert store.change(third) == ChangeRow(None, b"of another line")
