"""Whatever a disk does to one stretch of an append-only file, every record outside of that stretch is still read."""

from __future__ import annotations

import os
import struct
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from instep.tree.archive.history import History
from instep.tree.root.records import MAGIC, Damage, append_records, framed, read_records, scan_records
from tests.support.apply_world import World, digest

encode = msgspec.msgpack.Encoder().encode
payloads = st.lists(
    st.binary(max_size=80).map(lambda data: encode([3, data])) | st.just(encode([3, b"equal " * 8])),
    min_size=1,
    max_size=12,
)


@contextmanager
def file_of(raw: bytes) -> Iterator[tuple[int, Path]]:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "records"
        path.write_bytes(raw)
        fd = os.open(path, os.O_RDWR)
        try:
            yield fd, path
        finally:
            os.close(fd)


def bounds(records: list[bytes]) -> list[tuple[int, int]]:
    """Where each record begins and ends in the file."""
    found, at = [], len(MAGIC)
    for payload in records:
        found.append((at, at + len(framed(payload))))
        at = found[-1][1]
    return found


def is_among(wanted: list[bytes], found: list[bytes]) -> bool:
    """Whether ``found`` has all that is wanted, in order."""
    rest = iter(found)
    return all(payload in rest for payload in wanted)


@given(payloads, st.integers(0), st.integers(0, 7), st.binary(max_size=40), st.integers(0, 40))
@example([encode([3, b"equal " * 8])] * 12, 17, 6, b"", 0)
def test_what_the_bad_stretch_did_not_touch_is_read(
    records: list[bytes], where: int, bit: int, garbage: bytes, cut: int
) -> None:
    raw = MAGIC + b"".join(map(framed, records))
    at = where % len(raw)
    cut = min(cut, len(raw) - at)
    if garbage or cut:  # so many bytes are replaced by others, fewer, more or none
        damaged, touched = raw[:at] + garbage + raw[at + cut :], (at, at + cut)
    else:
        damaged, touched = raw[:at] + bytes([raw[at] ^ 1 << bit]) + raw[at + 1 :], (at, at + 1)
    whole = [
        payload
        for payload, (start, end) in zip(records, bounds(records), strict=True)
        if end <= touched[0] or start >= touched[1]
    ]
    damage: list[Damage] = []
    with file_of(damaged) as (fd, path):
        found = [payload for _, payload in scan_records(fd, damage.append)]
        assert is_among(whole, found)
        assert damaged == raw or damage or len(found) < len(records) or is_among(records, found)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            append_records(path.name.encode(), directory, [encode([3, b"appended"])])
        finally:
            os.close(directory)
        again = list(read_records(fd, lambda _: None))
        assert again == [*found, encode([3, b"appended"])]
        cut_off = b"".join(each.read_bytes() for each in sorted(path.parent.glob("records.torn-*")))
        tail = damage[-1] if damage and damage[-1].is_tail else None
        assert cut_off == (damaged[max(tail.offset, len(MAGIC)) :] if tail is not None else b"")


@given(st.integers(0, 5), st.integers(0, 2**32 - 1))
def test_no_length_is_believed(number: int, length: int) -> None:
    records = [encode([3, b"%d" % index * 100]) for index in range(6)]
    raw = bytearray(MAGIC + b"".join(map(framed, records)))
    struct.pack_into("<I", raw, bounds(records)[number][0], length)
    with file_of(bytes(raw)) as (fd, _):
        tracemalloc.start()
        try:
            found = list(read_records(fd, lambda _: None))
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()
    assert is_among([payload for index, payload in enumerate(records) if index != number], found)


def test_zeros_behind_the_end_are_a_torn_tail() -> None:
    records = [encode([3, b"one"]), encode([3, b"two"])]
    damage: list[Damage] = []
    raw = MAGIC + b"".join(map(framed, records))
    with file_of(raw + bytes(4096)) as (fd, _):
        assert list(read_records(fd, damage.append)) == records
    assert damage == [Damage(len(raw), 4096, True)]


@given(st.integers(0), st.integers(0, 7), st.booleans())
def test_a_history_loses_the_content_that_was_hit_and_never_lies(where: int, bit: int, is_cut: bool) -> None:
    contents = [b"content %d " % number * 9 for number in range(12)]
    # Contents may look like records themselves, of digests that they do not have.
    false = encode([6, digest(contents[7]), b"false"])
    contents[3] = framed(false) * 3
    with tempfile.TemporaryDirectory() as directory:
        world = World.make(Path(directory))
        history = History(world.place)
        for data in contents:
            history.put(digest(data), data)
        history.sync()
        history.close()
        pack = world.place.history / "pack-00000001"
        raw = bytearray(pack.read_bytes())
        at = where % len(raw)
        if is_cut:
            del raw[at:]
        else:
            raw[at] ^= 1 << bit
        pack.write_bytes(raw)
        again = History(world.place)
        expected = {data: (data if is_whole(data, bytes(raw)) else None) for data in contents}
        assert {data: again.get(digest(data)) for data in contents} == expected
        assert is_cut or at < len(MAGIC) or again.damage
        for data in contents:
            again.put(digest(data), data)
        again.collect(lambda _: True)
        again.close()
        mended = History(world.place)
        assert all(mended.get(digest(data)) == data for data in contents)
        assert not mended.damage
        mended.close()


def is_whole(data: bytes, raw: bytes) -> bool:
    return framed(encode([6, digest(data), data])) in raw
