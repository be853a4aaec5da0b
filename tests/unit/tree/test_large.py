"""Large files: any order, old chunks reused wherever they moved, nothing believed before the whole digest agrees."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.errors import DamagedError, PeerError
from instep.model.manifest.entry import Entry, Kind
from instep.tree.objects.large import ChunkSpan, LargeFile
from tests.support.apply_world import digest

PIECE = 10_000
OLD = random.Random(7).randbytes(60 * PIECE)


def cut(data: bytes, first: int = PIECE) -> Iterator[ChunkSpan]:
    """Chunks of ``PIECE``, the first of ``first``: enough like content-defined ones for an insertion at the front."""
    at, length = 0, first
    while at < len(data):
        piece = data[at : at + length]
        yield at, len(piece), digest(piece)
        at, length = at + length, PIECE


class Case:
    def __init__(self, at: Path, new: bytes, old: bytes | None = OLD, *, is_sparse: bool = False) -> None:
        self.new = new
        self.path = at / "new"
        self.entry = Entry(b"f", Kind.FILE, 0o644, len(new), 0, digest(new), 1)
        self.is_done = False
        old_fd = None
        if old is not None:
            (at / "old").write_bytes(old)
            old_fd = os.open(at / "old", os.O_RDONLY)
        resumed = self.path.exists()
        fd = os.open(self.path, os.O_RDWR | os.O_CREAT)
        self.file = LargeFile(
            fd, self.entry, self._done, old_fd=old_fd, is_sparse=is_sparse, is_resumed=resumed
        )  # fmt: skip

    def _done(self, _: int) -> None:
        self.is_done = True

    def fetch(self, limit: int | None = None) -> int:
        fetched = 0
        for offset, length in self.file.missing():
            length = length if limit is None else min(limit, length)
            self.file.write(offset, self.new[offset : offset + length])
            fetched += length
        return fetched

    def holds(self) -> bool:
        return self.is_done and self.path.read_bytes() == self.new


def test_ranges_in_any_order(tmp_path: Path) -> None:
    case = Case(tmp_path, OLD, None)
    spans = [(offset, length) for offset, length, _ in cut(OLD)]
    random.Random(1).shuffle(spans)
    for offset, length in spans:
        case.file.write(offset, OLD[offset : offset + length])
    with pytest.raises(PeerError):
        case.file.write(0, b"again")
    case.file.finish()
    assert case.holds()


def test_changes_in_place_fetch_only_what_changed(tmp_path: Path) -> None:
    new = bytearray(OLD)
    new[5 * PIECE + 3] ^= 1
    new[31 * PIECE] ^= 1
    case = Case(tmp_path, bytes(new))
    case.file.use_chunks(cut(bytes(new)), cut(OLD))
    assert case.file.missing() == [(5 * PIECE, PIECE), (31 * PIECE, PIECE)]
    case.fetch()
    case.file.finish()
    assert case.holds()


def test_an_insertion_fetches_only_the_insertion(tmp_path: Path) -> None:
    new = b"inserted" + OLD
    case = Case(tmp_path, new)
    case.file.use_chunks(cut(new, 8), cut(OLD))
    assert case.file.missing() == [(0, 8)]
    case.fetch()
    case.file.finish()
    assert case.holds()


def test_an_old_version_that_lies_is_found_out(tmp_path: Path) -> None:
    spoiled = bytearray(OLD)
    spoiled[20 * PIECE] ^= 1
    new = OLD[:-PIECE] + random.Random(8).randbytes(PIECE)
    case = Case(tmp_path, new, bytes(spoiled))
    case.file.use_chunks(cut(new), cut(OLD))
    case.fetch()
    with pytest.raises(DamagedError):
        case.file.finish()
    assert case.file.missing() == [(20 * PIECE, PIECE)]
    case.fetch()
    case.file.finish()
    assert case.holds()


def test_an_interrupted_file_goes_on_with_what_is_right(tmp_path: Path) -> None:
    first = Case(tmp_path, OLD, None)
    first.file.write(0, OLD[: 30 * PIECE])
    first.file.close()
    again = Case(tmp_path, OLD, None)
    again.file.use_chunks(cut(OLD))
    assert again.file.missing() == [(30 * PIECE, 30 * PIECE)]
    again.fetch()
    again.file.finish()
    assert again.holds()


def test_wrong_bytes_without_chunks_begin_anew(tmp_path: Path) -> None:
    case = Case(tmp_path, OLD, None)
    case.file.write(0, bytes(len(OLD)))
    with pytest.raises(DamagedError):
        case.file.finish()
    assert case.file.missing() == [(0, len(OLD))]
    assert not case.is_done
    case.file.close()


def test_a_list_with_a_gap_is_refused(tmp_path: Path) -> None:
    case = Case(tmp_path, OLD)
    with pytest.raises(PeerError):
        case.file.use_chunks(list(cut(OLD))[1:])
    case.file.close()


def test_zeros_become_holes(tmp_path: Path) -> None:
    data = bytes(1 << 20) + b"end"
    case = Case(tmp_path, data, None, is_sparse=True)
    case.fetch()
    case.file.finish()
    assert case.holds()
    assert case.path.stat().st_blocks * 512 < len(data) // 2
