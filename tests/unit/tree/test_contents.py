"""Contents by digest on one node: whatever lies in the way, the right bytes are found, and only those."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from instep.model.manifest.entry import Entry
from instep.model.statrow import StatRow
from instep.tree.archive.contents import Contents
from instep.tree.archive.history import History
from instep.tree.archive.lookup import ArchiveLookup
from tests.support.apply_world import Link, Tree, World, digest, entries


def rows(world: World, tree: Tree) -> Iterator[StatRow]:
    for entry in entries(tree):
        if entry.digest:
            yield StatRow(entry.path, 1, 1, 1, 1, entry.size, entry.digest, b"", 1)


def entry(path: bytes, data: bytes) -> Entry:
    return next(e for e in entries({path: data}) if e.path == path)


def text(contents: Contents, path: bytes, data: bytes) -> bytes | None:
    fd = contents.open(entry(path, data))
    if fd is None:
        return None
    try:
        return os.read(fd, 100)
    finally:
        os.close(fd)


def test_every_batch_is_looked_into_and_an_older_version_hides_nothing(tmp_path: Path) -> None:
    """Method: seven versions of one size at one path, each in a batch of its own; and one inside a removed directory."""
    world = World.make(tmp_path)
    for number in range(7):
        world.apply({b"a": b"%d" % number, b"dir/in": b"kept", b"link": Link(b"to %d" % number)})
    world.apply({b"a": b"7"})
    contents = Contents(world.place, None, lambda: iter(()))
    for number in range(8):
        assert text(contents, b"a", b"%d" % number) == b"%d" % number
    assert text(contents, b"dir/in", b"kept") == b"kept"
    assert text(contents, b"a", b"8") is None
    link = next(e for e in entries({b"link": Link(b"to 2")}))
    assert contents.target(link) == b"to 2"
    assert contents.has(link)
    assert not contents.has(next(e for e in entries({b"link": Link(b"to 9")})))
    assert [e.path for e in contents.missing_of([entry(b"a", b"3"), entry(b"a", b"x"), link])] == [b"a"]


def test_a_content_is_looked_for_where_its_digest_is_named_not_in_each_version_of_its_path(
    tmp_path: Path,
) -> None:
    """Goal: ``log`` costs each content of each generation one read. It cost one for each archived version of its path."""
    world = World.make(tmp_path)
    for number in range(7):
        world.apply({b"a": b"%d" % number})
    source = ArchiveLookup(world.place).source()
    for data, copies in ((b"0", 1), (b"5", 1), (b"x", 0)):
        found = list(source.candidates(entry(b"a", data)))
        for fd in found:
            os.close(fd)
        assert len(found) == copies


def test_a_file_that_lies_elsewhere_in_the_tree_is_found_and_one_that_was_changed_is_not(
    tmp_path: Path,
) -> None:
    world = World.make(tmp_path)
    tree = {b"moved/here": b"found", b"changed": b"before"}
    world.apply(tree)
    (world.root / "changed").write_bytes(b"_after")
    contents = Contents(world.place, None, lambda: rows(world, tree))
    there, gone = entry(b"was/there", b"found"), entry(b"changed", b"before")
    assert contents.missing_of([there, gone]) == [gone]
    assert contents.read(there, 2, 2) == b"un"
    contents.close()


def test_rotten_history_is_as_good_as_none(tmp_path: Path) -> None:
    """Goal: bytes that the disk changed are not given away, another copy is found, and the history knows its loss."""
    world = World.make(tmp_path)
    world.apply({b"a": b"precious" * 20_000})
    world.apply({b"b": b"other"})
    wanted = entry(b"a", b"precious" * 20_000)
    history = History(world.place)
    history.put(wanted.digest, b"precious" * 20_000)
    history.sync()
    for path in world.place.history.rglob(wanted.digest.hex()):
        path.write_bytes(b"_" + path.read_bytes()[1:])
    contents = Contents(world.place, history, lambda: iter(()))
    fd = contents.open(wanted)
    assert fd is not None
    assert digest(os.pread(fd, 1 << 20, 0)) == wanted.digest
    os.close(fd)
    assert not history.has(wanted.digest)
    assert len(history.damage) == 1
    history.close()


def test_a_rotten_archive_costs_the_history_nothing(tmp_path: Path) -> None:
    """A wrong copy in the tree or the archive says nothing of the history's own copy, here one of another writer's time."""
    world = World.make(tmp_path)
    world.apply({b"a": b"first"})
    world.apply({b"a": b"other"})
    history = History(world.place)
    wanted = entry(b"a", b"first")
    forgotten: list[bytes] = []
    history.forget_rotten = forgotten.append  # type: ignore[method-assign, assignment]
    for path in world.place.archive.rglob("*"):
        if path.is_file() and path.read_bytes() == b"first":
            path.write_bytes(b"_irst")
    contents = Contents(world.place, history, lambda: iter(()))
    assert contents.open(wanted) is None
    assert forgotten == []
    history.close()


def test_an_empty_file_needs_nobody(tmp_path: Path) -> None:
    contents = Contents(World.make(tmp_path).place, None, lambda: iter(()))
    assert contents.missing_of([entry(b"empty", b"")]) == []


def test_the_rows_of_the_tree_are_read_only_for_contents_that_no_history_has(tmp_path: Path) -> None:
    """Goal: a change set with ten copies of kept files reads no row of a million; what the history lost is found in the
    tree all the same."""
    world = World.make(tmp_path)
    tree: Tree = {b"kept": b"1", b"moved": b"2"}
    world.apply(tree)
    asked = 0

    def counted() -> Iterator[StatRow]:
        nonlocal asked
        asked += 1
        yield from rows(world, tree)

    history = History(world.place)
    history.put(digest(b"1"), b"1")
    contents = Contents(world.place, history, counted)
    contents.expect([entry(b"copy of kept", b"1"), entry(b"copy of moved", b"2")])
    assert text(contents, b"copy of kept", b"1") == b"1"
    assert asked == 0
    assert text(contents, b"copy of moved", b"2") == b"2"
    assert text(contents, b"another copy", b"2") == b"2"
    assert asked == 1
    history.close()
