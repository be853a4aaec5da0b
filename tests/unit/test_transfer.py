"""Frames: the contents that go in come out, and bytes that are no frame are refused within bounds."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from pathlib import Path

import msgspec
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st
from msgspec.msgpack import encode as encode_any

from instep.errors import DamagedError, InstepError, PeerError
from instep.net.messages.faults import error_of_reply, reply_of_error
from instep.net.messages.messages import ErrorReply, decode, decode_stream, encode
from instep.net.transfer import (
    FRAME_HEADER_BYTES,
    PIECE_BYTES,
    AnswerStatus,
    FrameHeader,
    FrameReader,
    TokenBucket,
    TransferAnswer,
    frames,
    pieces_of_file,
)

WHOLE, PIECE, MISSING = AnswerStatus.WHOLE, AnswerStatus.PIECE, AnswerStatus.MISSING


def sent(answers: Iterable[TransferAnswer], *, may_compress: bool = True) -> list[bytes]:
    return [b"".join(frame) for frame in frames(answers, may_compress=may_compress)]


def received(
    packed: Iterable[bytes], count: int, spans: list[tuple[int, int]] | None = None
) -> list[TransferAnswer]:
    reader = FrameReader(count, spans)
    answers = []
    for frame in packed:
        answers += reader.take(FrameHeader.parse(frame[:FRAME_HEADER_BYTES]), frame[FRAME_HEADER_BYTES:])
    assert reader.is_finished
    return answers


@given(st.lists(st.binary(max_size=2000), max_size=50), st.booleans())
def test_round_trip(contents: list[bytes], may_compress: bool) -> None:
    answers = [TransferAnswer(want, WHOLE, 0, data) for want, data in enumerate(contents)]
    assert received(sent(answers, may_compress=may_compress), len(contents)) == answers


def test_large_and_incompressible_contents_travel_in_bounded_frames(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(os.urandom(PIECE_BYTES * 2 + 100))
    descriptor = os.open(path, os.O_RDONLY)
    try:
        size = path.stat().st_size
        answers = [
            TransferAnswer(0, MISSING),
            *pieces_of_file(1, descriptor, 0, size),
            TransferAnswer(2, WHOLE, 0, b"z" * 9999),
        ]
        packed = sent(answers)
        assert max(map(len, packed)) < PIECE_BYTES + 100
        got = received(packed, 3, [(0, 5), (0, size), (0, 9999)])
        assert b"".join(a.data for a in got if a.want == 1) == path.read_bytes()
        with pytest.raises(DamagedError):
            list(pieces_of_file(0, descriptor, 0, size + 1))
    finally:
        os.close(descriptor)


def test_what_cannot_be_compressed_is_tried_again_after_a_while() -> None:
    """A photo archive costs no processor time, and the text behind it is compressed all the same."""
    pieces = [os.urandom(PIECE_BYTES)] * 3 + [bytes(PIECE_BYTES)] * 40
    answers = [TransferAnswer(want, WHOLE, 0, data) for want, data in enumerate(pieces)]
    packed = sent(answers)
    assert received(packed, len(answers)) == answers
    kinds = [frame[0] for frame in packed]
    raw, compressed = kinds[0], kinds[-2]
    assert raw != compressed
    assert kinds[:-1] == [raw] * 17 + [compressed] * 26


def frame_of(records: bytes, kind: int = 0, size: int | None = None) -> bytes:
    return struct.pack(">BII", kind, len(records) if size is None else size, len(records)) + records


def record(
    want: int, status: int = 0, offset: int = 0, data: bytes = b"", length: int | None = None
) -> bytes:
    return struct.pack(">IBQI", want, status, offset, len(data) if length is None else length) + data


def without_its_end(records: bytes) -> bytes:
    """All bytes come out of it, but not the word that these were all."""
    compressor = zstd.ZstdCompressor()
    return compressor.compress(records, compressor.FLUSH_BLOCK)


@pytest.mark.parametrize(
    "packed",
    [
        [frame_of(record(2))],
        [frame_of(record(0, 77))],
        [frame_of(record(0, data=b"xx", length=3))],
        [frame_of(record(0)[:-1])],
        [frame_of(record(0, 3, data=b"x"))],
        [frame_of(record(0) + record(0))],
        [frame_of(record(0, data=b"four"))],
        [frame_of(record(0, 1, 1, b"x"))],
        [frame_of(record(0, 1, 0, b"x") + record(0, 1, 2, b"x"))],
        [frame_of(record(0, 1, 0, b"x") + record(0, 1, 0, b"x"))],
        [frame_of(record(0, 1, 0, b""))],
        [frame_of(record(0), kind=9)],
        [frame_of(b"", kind=0)],
        [frame_of(record(0), size=4)],
        [frame_of(record(0), size=5 << 20)],
        [frame_of(zstd.compress(bytes(8 << 20)), kind=1, size=4 << 20)],
        [frame_of(zstd.compress(bytes(100)), kind=1, size=200)],
        [frame_of(b"not zstd", kind=1, size=200)],
        [frame_of(zstd.compress(record(0)), kind=1, size=len(record(0)) + 1)],
        [frame_of(zstd.compress(record(0)) + b"more", kind=1, size=len(record(0)))],
        [frame_of(without_its_end(record(0)), kind=1, size=len(record(0)))],
        [frame_of(record(0)), frame_of(b"", kind=255, size=2)],
        [frame_of(b"", kind=255, size=0), frame_of(record(0))],
    ],
)
def test_what_is_no_frame_is_refused(packed: list[bytes]) -> None:
    with pytest.raises(PeerError) as caught:
        received(packed, 2, [(0, 3), (0, 3)])
    assert caught.value.error_code == "bad_frame"


@given(st.binary(max_size=300))
def test_junk_ends_in_peer_errors_only(raw: bytes) -> None:
    for take in (
        lambda: received([frame_of(raw)], 3),
        lambda: received([raw], 3) if len(raw) >= FRAME_HEADER_BYTES else None,
        lambda: decode_stream(raw),
        lambda: decode(raw, ErrorReply),
    ):
        try:
            take()
        except PeerError:
            continue
        except AssertionError as error:
            assert "is_finished" in str(error)  # noqa: PT017 - a frame, but no end


def test_the_rate_is_kept_over_time() -> None:
    bucket = TokenBucket(1000, 0.0)
    assert bucket.take(1000, 0.0) == 0
    assert bucket.take(500, 0.0) == 0.5
    assert bucket.take(500, 1.0) == 0
    assert bucket.take(2000, 100.0) == 1.0


def test_errors_travel_and_hostile_ones_are_tamed() -> None:
    error = PeerError("page is too long", code="bad_page", hint="none", page="00", path=b"\xff")
    reply = decode(encode(reply_of_error(error)), ErrorReply)
    again = error_of_reply(reply, "s1")
    assert isinstance(again, PeerError)
    assert (again.error_code, again.hint, again.facts["page"]) == ("bad_page", "none", "00")
    assert reply_of_error(ValueError("a secret")).reason.count("secret") == 0
    facts = msgspec.Raw(encode_any({"code": 1, "self": 2, "a b": 3, "ok": 4}))
    nasty = ErrorReply("x y\x1b", "\x1b[31mred", facts, exit_code=99)
    tamed = error_of_reply(nasty, "s1")
    assert isinstance(tamed, InstepError)
    assert "\x1b" not in str(tamed) + tamed.error_code
    assert tamed.facts == {"ok": 4, "told_by": "s1"}
