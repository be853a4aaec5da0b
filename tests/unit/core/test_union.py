"""The union of lines where drawn lines do not get to: bounds, long names, equal tags, what is withheld, precautions."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import pytest

from instep.core.union import collide
from instep.core.union.collide import names_of
from instep.core.union.divide import births, divide
from instep.core.union.lines import COMPONENT_MAX, KnownLines
from instep.core.union.parts import KnownHead, choose_parts, differing_keys
from instep.core.union.precautions import AHEAD_MAX_MS, born_ahead, takes_names
from instep.core.union.reunite import reunite
from instep.core.union.unite import United
from instep.errors import DamagedError
from instep.model.definition import Definition, FilesetClass, Mode
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, NodeName
from instep.model.limits import PATH_MAX
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.paths import sort_key
from instep.model.replication.union import UnionPart, UnionRecord, Withheld, decode_union
from tests.support.unions import Lines, Store, entry, in_store, known, shown_by, union_of, whole

A, B, C = NodeName("a"), NodeName("b"), NodeName("c")
DIGEST = Digest(bytes(32))


def file(path: bytes, born_ms: int = 10, number: int = 1) -> Entry:
    return entry(path, Kind.FILE, number, born_ms)


def lines_of(**found: list[Entry]) -> Lines:
    return {NodeName(origin): whole(entries) for origin, entries in found.items()}


def reunited(before: United, old: KnownLines, new: KnownLines, store: Store) -> United:
    return reunite(before, old, new, store.__getitem__, store.__setitem__)


def test_an_old_file_renames_the_directories_of_others_as_a_whole() -> None:
    store: Store = {}
    below = [file(b"d/%04d" % n) for n in range(2_000)]
    old = known(lines_of(b=below), store)
    before = union_of(old, store)
    new = known(lines_of(a=[file(b"d", 1)], b=below), store)
    made = reunited(before, old, new, store)
    assert made == union_of(new, store)
    (collision,) = made.collisions
    assert (collision.component, collision.origin, collision.winner, collision.entries) == (b"d", B, A, 2_000)
    assert (
        len([path for path in shown_by(made.root, store) if path.startswith(collision.shown + b"/")]) == 2_000
    )
    assert takes_names(before, made, A, store.__getitem__) == made.collisions
    assert not takes_names(before, made, B, store.__getitem__)


@pytest.mark.parametrize("born_ms", [1, 99])
def test_a_deep_directory_is_not_climbed_for_each_of_its_files(
    monkeypatch: pytest.MonkeyPatch, born_ms: int
) -> None:
    """Goal: a partner cannot hold this node by the depth of its paths. Method: 100 files 100 directories down, below
    another line's file that wins or loses; the directories that are looked at are counted."""
    deep, looked, above = b"d/" * 100, count(), collide._above

    def counted(path: bytes, top: bytes) -> Iterator[bytes]:
        for parent in above(path, top):
            next(looked)
            yield parent

    monkeypatch.setattr(collide, "_above", counted)
    below = whole([file(deep + b"%04d" % n) for n in range(100)])
    sides = [(A, [file(b"d", born_ms)]), (B, [below[path] for path in sorted(below, key=sort_key)])]
    (lost,) = collide.losers_of(b"d", sides)
    assert (lost.origin, lost.entries) == ((B, 100) if born_ms == 1 else (A, 1))
    assert next(looked) < 4 * (100 + 100)


def test_a_component_over_the_bound_is_not_taken_by_an_old_file() -> None:
    store: Store = {}
    assert COMPONENT_MAX == 50_000
    most = 300
    below = [file(b"d/%05d" % n) for n in range(most - 2)]
    old = known(lines_of(a=[file(b"d", 1)], b=below), store, most)
    before = union_of(old, store)
    assert [(each.origin, each.entries) for each in before.collisions] == [(B, most - 2)]
    new = known(lines_of(a=[file(b"d", 1)], b=[*below, file(b"d/more")]), store, most)
    made = reunited(before, old, new, store)
    assert [(each.origin, each.entries) for each in made.collisions] == [(A, 1)]
    assert made == union_of(new, store)
    assert reunited(made, new, old, store) == before


def test_two_losers_with_one_name_are_both_shown() -> None:
    """The names are so long that only their tags differ, and the births are chosen so that the tags do not."""
    stem = b"x" * 250
    seen: dict[str, int] = {}
    for born_ms in range(1, 400_000):
        seen[next(names_of(stem + b"-one", B, born_ms))[1]] = born_ms
    other = next(n for n in count(1) if next(names_of(stem + b"-two", B, n))[1] in seen)
    first = seen[next(names_of(stem + b"-two", B, other))[1]]
    losers = [file(stem + b"-one", first, 2), file(stem + b"-two", other, 3)]
    winners = [file(stem + b"-one", 0), file(stem + b"-two", 0)]
    store: Store = {}
    both = known(lines_of(a=winners, b=losers), store)
    made = union_of(both, store)
    assert {each.tries for each in made.collisions} == {0, 1}
    assert {each.size for each in shown_by(made.root, store).values()} == {1, 2, 3}
    for left in ([], losers[:1], losers[1:]):
        less = known(lines_of(a=winners, b=left), store)
        assert reunited(union_of(less, store), less, both, store) == made
        assert reunited(made, both, less, store) == union_of(less, store)


def test_a_loser_gives_way_when_a_line_has_something_at_its_name() -> None:
    store: Store = {}
    lines = lines_of(a=[file(b"x/doc.xml", 1)], b=[file(b"x/doc.xml", 2)])
    old = known(lines, store)
    before = union_of(old, store)
    (loser,) = before.collisions
    for at_name in (file(loser.shown), file(loser.shown + b"/below")):
        new = known(lines | lines_of(c=[at_name]), store)
        made = reunited(before, old, new, store)
        assert made == union_of(new, store)
        assert [each.tries for each in made.collisions] == [1]
        assert reunited(made, new, old, store) == before


def test_a_path_that_gets_too_long_is_counted_and_the_rest_is_shown() -> None:
    store: Store = {}
    deep = b"/".join([b"n" * 255] * 15 + [b"n" * 250])
    assert len(b"d/" + deep) <= PATH_MAX
    many = known(lines_of(a=[file(b"d", 1)], b=[file(b"d/" + deep), file(b"d/short")]), store)
    made = union_of(many, store)
    (collision,) = made.collisions
    assert collision.too_long == 1
    shown = shown_by(made.root, store)
    assert max(map(len, shown)) <= PATH_MAX
    assert collision.shown + b"/short" in shown
    removed = {path: each for path, each in shown.items() if not path.startswith(collision.shown)}
    edits = divide(made, many, B, in_store({B: removed}, store)[B], store.__getitem__, 99).own
    assert {path for path, new in edits if new is None} == set(whole([file(b"d/" + deep), file(b"d/short")]))


def test_the_directories_of_others_have_the_normal_form_and_no_time() -> None:
    store: Store = {}
    loud = Entry(b"d", Kind.DIR, 0o700, 0, 5, EMPTY_DIGEST, 7)
    louder = Entry(b"d", Kind.DIR, 0o700, 0, 6, EMPTY_DIGEST, 7)
    old, new = known({A: {b"d": loud}}, store), known({A: {b"d": louder}}, store)
    made = union_of(old, store)
    assert shown_by(made.root, store) == whole([entry(b"d", Kind.DIR, 0, 0)])
    assert reunited(made, old, new, store) == made


def test_hard_links_are_files_of_their_own() -> None:
    store: Store = {}
    linked = [
        Entry(path, Kind.FILE, 0o644, 1, 1, DIGEST, 1, Extra(link_group=b"a", owner=owner))
        for path, owner in ((b"a", None), (b"b", "ada"))
    ]
    made = union_of(known({A: {each.path: each for each in linked}}, store), store)
    assert [each.extra for each in shown_by(made.root, store).values()] == [None, Extra(owner="ada")]


def test_an_entry_that_cannot_be_had_keeps_its_old_state_and_the_rest_goes_on() -> None:
    store: Store = {}
    old_doc, new_doc, first = file(b"d/doc", number=1), file(b"d/doc", number=2), file(b"d/first", number=3)
    rest = [file(b"d/%d" % n) for n in range(5)]
    old = known(lines_of(a=[old_doc]), store)
    before = union_of(old, store)
    roots = in_store(lines_of(a=[new_doc, first, *rest]), store)
    withheld = [
        Withheld(A, new_doc, old_doc),
        Withheld(A, first),
        Withheld(A, file(b"d/0", number=9)),
        Withheld(B, rest[0]),
    ]
    new = KnownLines(roots, store.__getitem__, withheld)
    made = reunited(before, old, new, store)
    assert shown_by(made.root, store) == whole([old_doc, *rest])
    assert made == union_of(new, store)
    whole_line = KnownLines(roots, store.__getitem__, before=new)
    then = reunited(made, new, whole_line, store)
    assert shown_by(then.root, store) == whole([new_doc, first, *rest])


def test_a_renamed_path_of_another_line_waits_for_its_home() -> None:
    store: Store = {}
    many = known(
        lines_of(a=[file(b"mine", number=1)], b=[file(b"theirs", number=2), file(b"same", number=3)]), store
    )
    made = union_of(many, store)
    tree = whole(
        [
            file(b"renamed", number=2),
            file(b"mine2", number=1),
            file(b"same", number=3),
            file(b"copy", number=3),
        ]
    )
    parts = divide(made, many, A, in_store({A: tree}, store)[A], store.__getitem__, 99)
    assert [(each.path, each.found) for each in parts.foreign] == [(b"theirs", None)]
    assert [(each.path, each.behind) for each in parts.waiting] == [(b"renamed", b"theirs")]
    assert [(path, new and (new.size, new.born_ms)) for path, new in parts.own] == [
        (b"copy", (3, 99)),
        (b"mine", None),
        (b"mine2", (1, 99)),
    ]


def test_a_new_path_below_a_loser_of_the_own_line_writes_its_new_name_first() -> None:
    store: Store = {}
    many = known(lines_of(a=[file(b"d", 20, 2)], b=[file(b"d/x", 10)]), store)
    made = union_of(many, store)
    (loser,) = made.collisions
    tree = shown_by(made.root, store) | {b"d/new": file(b"d/new", 0, 3)}
    parts = divide(made, many, A, in_store({A: tree}, store)[A], store.__getitem__, 99)
    assert [(path, new and (new.kind, new.size, new.born_ms)) for path, new in parts.own] == [
        (b"d", (Kind.DIR, 0, 0)),
        (b"d/new", (Kind.FILE, 3, 99)),
        (loser.shown, (Kind.FILE, 2, 99)),
    ]


def test_a_new_path_waits_below_what_its_home_has_to_answer_for() -> None:
    store: Store = {}
    many = known(lines_of(a=[file(b"e", 1)], b=[file(b"f"), file(b"e/x", 2)]), store)
    made = union_of(many, store)
    (loser,) = made.collisions
    tree = whole(
        [file(b"e", 1), file(loser.shown + b"/x", 2), file(loser.shown + b"/new"), file(b"f/new", 0, 4)]
    )
    parts = divide(made, many, A, in_store({A: tree}, store)[A], store.__getitem__, 99)
    assert parts.own == ()
    assert [each.path for each in parts.foreign] == [b"f"]
    assert {(each.path, each.behind) for each in parts.waiting} == {
        (b"f/new", b"f"),
        (loser.shown + b"/new", loser.shown),
    }


def test_an_offered_edit_of_a_file_that_its_home_removed_is_not_new() -> None:
    store: Store = {}
    many = known(lines_of(a=[file(b"mine", 1)], b=[file(b"kept", 2)]), store)
    made = union_of(many, store)
    tree = whole([file(b"mine", 1), file(b"kept", 2), file(b"theirs", 0, 7)])
    found = in_store({A: tree}, store)[A]
    parts = divide(made, many, A, found, store.__getitem__, 99, {b"theirs"})
    assert parts.own == ()
    assert [(each.path, each.sources) for each in parts.foreign] == [(b"theirs", ())]


def test_a_node_without_a_line_of_its_own_finds_what_is_new() -> None:
    store: Store = {}
    many = known(lines_of(b=[file(b"d/theirs")]), store)
    made = union_of(many, store)
    tree = whole([file(b"d/theirs"), file(b"d/new")])
    parts = divide(made, many, A, in_store({A: tree}, store)[A], store.__getitem__, 99)
    assert [(path, new and new.kind) for path, new in parts.own] == [(b"d", Kind.DIR), (b"d/new", Kind.FILE)]


@pytest.mark.parametrize(
    ("taken", "shown_beside", "is_too_much"), [(20, 0, False), (21, 0, True), (21, 2_100, False)]
)
def test_a_head_that_takes_many_names_is_not_taken_unasked(
    taken: int, shown_beside: int, is_too_much: bool
) -> None:
    store: Store = {}
    theirs = [file(b"doc-%d" % n, 10) for n in range(taken)]
    beside = [file(b"more-%d" % n, 10) for n in range(shown_beside)]
    old = known(lines_of(b=[*theirs, *beside]), store)
    new = known(lines_of(b=[*theirs, *beside], c=[file(each.path, 0) for each in theirs]), store)
    before = union_of(old, store)
    found = takes_names(before, reunited(before, old, new, store), C, store.__getitem__)
    assert len(found) == (taken if is_too_much else 0)


def test_a_commit_above_an_unknown_head_changes_no_birth_by_which_names_were_given() -> None:
    """The head says that both files are older. One lies in the tree as a loser: with that birth it would win."""
    store: Store = {}
    roots = in_store(
        {
            A: whole([file(b"laid", 30)]),
            B: whole([file(b"laid", 10), file(b"new", 10)]),
            C: whole([file(b"laid", 30), file(b"new", 50)]),
        },
        store,
    )
    assert births(roots[A], roots[B], roots[C], store.__getitem__) == ((b"new", file(b"new", 10)),)


def test_births_ahead_of_the_clock_are_named_once() -> None:
    store: Store = {}
    known_before, late, later = (
        file(b"a", AHEAD_MAX_MS + 5),
        file(b"b", AHEAD_MAX_MS + 6),
        file(b"c", AHEAD_MAX_MS + 9),
    )
    old = in_store(lines_of(a=[known_before]), store)[A]
    new = in_store(lines_of(a=[known_before, late, later, file(b"d", AHEAD_MAX_MS)]), store)[A]
    ahead = born_ahead(old, new, store.__getitem__, 0)
    assert ahead is not None
    assert (ahead.total, ahead.latest_ms, ahead.paths) == (2, later.born_ms, (b"b", b"c"))
    assert born_ahead(old, new, store.__getitem__, 9) is None


def head(number: int) -> HeadRef:
    return HeadRef(1, number, Digest(bytes([number]) * 32), DIGEST)


def test_a_line_of_another_definition_stays_where_it_agreed() -> None:
    same, other = Digest(b"s" * 32), Digest(b"o" * 32)
    before = [UnionPart(A, head(1)), UnionPart(B, head(5)), UnionPart(NodeName("gone"), head(3))]
    found = choose_parts(
        [KnownHead(C, head(1), other), KnownHead(B, head(6), other), KnownHead(A, head(2), same)],
        same,
        before,
    )
    assert found.parts == (UnionPart(A, head(2)), UnionPart(B, head(5)), UnionPart(NodeName("gone"), head(3)))
    assert found.differing == (B, C)
    assert choose_parts([KnownHead(A, head(1), same)], same, found.parts).parts == found.parts
    mine = Definition(mode=Mode.REPLICATE, ignore=("*.tmp",))
    theirs = Definition(mode=Mode.REPLICATE, fileset_class=FilesetClass.DATA)
    assert differing_keys(mine, theirs) == ("class", "ignore")


def test_the_record_of_a_union_is_read_back_or_damaged() -> None:
    record = UnionRecord(1, 7, (UnionPart(A, head(1)),), DIGEST, DIGEST, (Withheld(A, file(b"x")),))
    assert decode_union(record.encoded()) == record
    assert record.ref() == HeadRef(1, 7, record.id, DIGEST)
    for raw in (b"", record.encoded()[:-1], record.encoded() + b"\0", b"\x96\x02" + record.encoded()[2:]):
        with pytest.raises(DamagedError):
            decode_union(raw)
