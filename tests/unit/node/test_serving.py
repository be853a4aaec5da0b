"""A node sends the right bytes of a fileset, wherever they lie, however many places hold wrong ones."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.model.ids import NodeName
from instep.model.manifest.entry import Entry
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.node.trees.keeping.serving_checks import ServingChecks
from instep.node.trees.keeping.shelf import Shelf
from instep.tree.archive import lookup
from instep.tree.archive.archive import Archive
from instep.tree.archive.history import History
from instep.tree.archive.lookup import ArchiveLookup
from tests.support.apply_world import World, digest, entries

LARGE = b"precious" * 200_000
OTHER = b"_" + LARGE[1:]


def entry_of(path: bytes, data: bytes) -> Entry:
    return next(e for e in entries({path: data}) if e.path == path)


class Sender:
    """A node's shelf, with its reports."""

    def __init__(self, base: Path) -> None:
        self.world = World.make(base)
        self.history = History(self.world.place)
        self.rotten: list[bytes] = []
        self.missed: list[bytes] = []
        self.now_ms = 0
        self.checks = ServingChecks(lambda entry: self.rotten.append(entry.path), lambda: self.now_ms)
        self.archive = ArchiveLookup(self.world.place)

    def shelf(self) -> Shelf:
        missed = self.missed
        place = self.world.place
        return Shelf(place, self.history, self.archive, self.checks, lambda each: missed.append(each.path))

    def sends(self, entry: Entry, asker: str = "s1") -> bytes | None:
        """All bytes of one request for the whole, None where the answer is that they are gone."""
        shelf = self.shelf()
        shelf._asker = NodeName(asker)
        return together(shelf.ranges(entry, [(0, entry.size)]))

    def lies_at(self, path: bytes, data: bytes, entry: Entry) -> None:
        """Bytes in the tree under the size and time of the entry."""
        file = self.world.root / os.fsdecode(path)
        file.write_bytes(data)
        os.utime(file, ns=(entry.mtime_ns, entry.mtime_ns))


def together(answers: Iterator[TransferAnswer]) -> bytes | None:
    found = list(answers)
    if AnswerStatus.SUPERSEDED in {answer.status for answer in found}:
        return None
    return b"".join(bytes(answer.data) for answer in found)


@pytest.fixture
def sender(tmp_path: Path) -> Iterator[Sender]:
    made = Sender(tmp_path)
    yield made
    made.history.close()


def test_rotten_history_is_not_sent_and_the_oldest_batch_is_looked_into(sender: Sender) -> None:
    """Goal: a large content that rots in the history is sent from the archive, small ones too, whichever of many
    batches has them; the history forgets what is rotten, so that it is named and mended."""
    wanted = entry_of(b"a", LARGE)
    small = entry_of(b"b", b"small")
    sender.world.apply({b"a": LARGE, b"b": b"small"})
    for number in range(6):
        sender.world.apply({b"a": b"%d" % number + LARGE[1:], b"b": b"%d" % number})
    sender.world.apply({b"a": b"short", b"b": b"s"})
    sender.history.put(wanted.digest, LARGE)
    sender.history.sync()
    assert sender.sends(wanted) == LARGE
    for file in sender.world.place.history.rglob(wanted.digest.hex()):
        file.chmod(0o600)
        file.write_bytes(OTHER)
    assert digest(sender.sends(wanted) or b"") == wanted.digest
    assert not sender.history.has(wanted.digest)
    assert len(sender.history.damage_now()) == 1
    assert together(sender.shelf().contents([small])) == b"small"
    assert sender.missed == []


def test_what_is_asked_for_again_was_wrong_or_is_verified(sender: Sender) -> None:
    """Goal: rot in the tree under an unchanged stat is not sent to the same node a second time, and is named."""
    wanted = entry_of(b"a", LARGE)
    sender.history.put(wanted.digest, LARGE)
    sender.history.sync()
    sender.lies_at(b"a", OTHER, wanted)
    assert sender.sends(wanted) == OTHER  # the asker verifies it, and asks again
    assert sender.rotten == []
    assert sender.sends(wanted) == LARGE
    assert sender.rotten == [b"a"]
    assert sender.sends(wanted, "s2") == OTHER
    assert sender.sends(wanted, "s2") == LARGE


def test_wrong_bytes_everywhere_are_a_miss(sender: Sender) -> None:
    wanted, small = entry_of(b"a", LARGE), entry_of(b"b", b"small")
    sender.lies_at(b"a", OTHER, wanted)
    sender.lies_at(b"b", b"_mall", small)
    sender.sends(wanted)
    assert sender.sends(wanted) is None
    assert together(sender.shelf().contents([small])) is None
    assert sender.missed == [b"a", b"b"]
    assert sender.rotten == [b"a", b"b"]


def test_other_ranges_of_the_same_content_are_no_second_question(sender: Sender) -> None:
    """Goal: parts that are asked for one after another cost no look at the whole."""
    wanted = entry_of(b"a", LARGE)
    sender.lies_at(b"a", OTHER, wanted)
    half = wanted.size // 2
    together(sender.shelf().ranges(wanted, [(0, 10), (100, half - 100)]))
    together(sender.shelf().ranges(wanted, [(half, 10), (10, 90)]))
    assert sender.rotten == []
    together(sender.shelf().ranges(wanted, [(half + 9, 1)]))
    assert sender.rotten == [b"a"]


@pytest.mark.parametrize("tables_max", [1, 2, 1000])
def test_the_lookup_knows_batches_that_come_and_go(
    sender: Sender, tables_max: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: indexes are read once, new batches are found, pruned ones are not missed, inner paths and moved files are
    found by directory and by digest, also where the tables of several batches are merged."""
    monkeypatch.setattr(lookup, "TABLES_MAX", tables_max)
    world = sender.world
    world.apply({b"dir/in": b"inner", b"x": b"moved contents"})
    world.apply({b"y": b"moved contents"})
    world.apply({b"y": b"later"})
    batches = sender.archive

    def has(path: bytes, data: bytes) -> bool:
        entry = entry_of(path, data)
        found = []
        for fd in batches.source().candidates(entry):
            found.append(digest(os.pread(fd, 100, 0)) == entry.digest)
            os.close(fd)
        return any(found)

    assert has(b"dir/in", b"inner")
    assert has(b"was/somewhere", b"moved contents")
    assert not has(b"y", b"later")
    world.apply({b"y": b"last"})
    assert has(b"y", b"later")
    archive = Archive(world.place)
    archive.prune([batch.name for batch in archive.batches()][:1])
    assert not has(b"dir/in", b"inner")
    assert has(b"y", b"later")
