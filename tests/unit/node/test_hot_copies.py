"""Copies of hot files: contents that a generation names can be had although the file moved on, and the copies stay
few."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from blake3 import blake3

from instep.errors import ResourceError
from instep.model.ids import Digest, FilesetName
from instep.model.manifest.entry import Entry, Kind
from instep.net.transfer import AnswerStatus
from instep.node.trees.keeping.hot_copies import KEPT, HotCopies
from instep.node.trees.keeping.serving_checks import ServingChecks
from instep.node.trees.keeping.shelf import Shelf
from instep.store.memory import MemoryStore
from instep.tree.archive.history import History
from instep.tree.archive.lookup import ArchiveLookup
from instep.tree.scan.settling import Settling, handed_on
from tests.support.apply_world import World

LARGE = (1 << 20) + 1


class Writer:
    """One large file at a writer, its history and its copies."""

    def __init__(self, base: Path, keeps: Callable[[int], bool] = lambda _: False) -> None:
        self.place = World.make(base).place
        self.file = self.place.root / "hot"
        self.history = History(self.place)
        self.copies = HotCopies(MemoryStore(), FilesetName("data"), keeps)

    def write(self, number: int) -> Entry:
        self.file.write_bytes(b"%d" % number * LARGE)
        digest = Digest(blake3(self.file.read_bytes()).digest())
        return Entry(b"hot", Kind.FILE, 0o644, LARGE, self.file.stat().st_mtime_ns, digest, 1)

    def publish(self, entry: Entry) -> None:
        self.copies.begin(self.history)
        fd = os.open(self.file, os.O_RDONLY)
        try:
            self.copies.copy(self.history, b"hot", entry.digest, fd)
        finally:
            os.close(fd)
        self.history.sync()
        self.copies.committed()

    def answers(self, entry: Entry, missed: list[bytes]) -> set[AnswerStatus]:
        return {answer.status for answer in self.shelf(missed).contents([entry])}

    def shelf(self, missed: list[bytes]) -> Shelf:
        checks = ServingChecks(lambda _: None)
        return Shelf(
            self.place,
            self.history,
            ArchiveLookup(self.place),
            checks,
            lambda each: missed.append(each.path),
        )


def test_what_was_copied_is_sent_although_the_file_moved_on_and_what_was_not_is_missed(
    tmp_path: Path,
) -> None:
    writer, missed = Writer(tmp_path), list[bytes]()
    copied = writer.write(1)
    writer.publish(copied)
    forgotten = writer.write(2)
    writer.write(3)
    assert writer.answers(copied, missed) == {AnswerStatus.PIECE}
    assert missed == []
    assert writer.answers(forgotten, missed) == {AnswerStatus.SUPERSEDED}
    assert missed == [b"hot"]


def test_what_changes_while_it_is_sent_is_missed_at_once(tmp_path: Path) -> None:
    writer, missed = Writer(tmp_path), list[bytes]()
    entry = writer.write(1)
    sent = writer.shelf(missed).ranges(entry, [(0, 1), (1, LARGE - 1)])
    next(sent)
    os.utime(writer.file, ns=(0, entry.mtime_ns + 1))
    assert [answer.status for answer in sent] != []
    assert missed == [b"hot"]


def test_only_the_newest_copies_stay(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    entries = []
    for number in range(KEPT + 2):
        entries.append(writer.write(number))
        writer.publish(entries[-1])
    writer.copies.begin(writer.history)
    assert [writer.history.has(entry.digest) for entry in entries] == [False, False, *[True] * KEPT]


def test_what_the_history_keeps_anyway_is_let_alone(tmp_path: Path) -> None:
    writer = Writer(tmp_path, keeps=lambda size: size <= LARGE)
    entries = []
    for number in range(KEPT + 2):
        entries.append(writer.write(number))
        writer.publish(entries[-1])
    writer.copies.begin(writer.history)
    assert all(writer.history.has(entry.digest) for entry in entries)


def test_a_copy_of_a_scan_that_was_refused_goes_with_the_next(tmp_path: Path) -> None:
    writer = Writer(tmp_path)
    first, fd = writer.write(1), os.open(writer.file, os.O_RDONLY)
    writer.copies.copy(writer.history, b"hot", first.digest, fd)
    os.close(fd)
    second = writer.write(2)
    writer.publish(second)
    assert [writer.history.has(entry.digest) for entry in (first, second)] == [False, True]


def test_without_room_for_a_copy_the_file_keeps_its_last_entry(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = Writer(tmp_path)
    entry = writer.write(1)
    monkeypatch.setattr("instep.node.trees.keeping.hot_copies.FREE_MIN_SHARE", 1.0)
    settling = Settling(
        1, 1, hot={b"hot"}, copy=lambda path, digest, fd: writer.copies.copy(writer.history, path, digest, fd)
    )
    fd = os.open(writer.file, os.O_RDONLY)
    try:
        with pytest.raises(ResourceError):
            settling.copy(b"hot", entry.digest, fd)
        problem = handed_on(None, settling, b"hot", entry.digest, None, fd)
        assert problem is not None
        assert (problem.what, writer.history.has(entry.digest)) == ("hot", False)
        other = handed_on(None, settling._replace(copy=_moved_on(writer)), b"hot", entry.digest, None, fd)
        assert other is not None
        assert other.what == "unstable"
    finally:
        os.close(fd)


def _moved_on(writer: Writer) -> Callable[[bytes, Digest, int], None]:
    """A copy that finds other bytes than the scan read."""
    other = Digest(blake3(b"what the scan read").digest())
    return lambda path, digest, fd: writer.history.put_file(other, fd, LARGE)
