"""Chunks are a pure function of the contents, whatever the pieces in which they are read."""

from __future__ import annotations

import random

import pyfastcdc
import pytest
from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.model.manifest.chunklist import ChunkParams
from instep.tree.objects.chunking import Chunker

SMALL = ChunkParams(1024, 256, 8192)


def cut(data: bytes, piece: int, params: ChunkParams = SMALL) -> Chunker:
    def read_into(view: memoryview, offset: int) -> int:
        part = data[offset : offset + min(piece, len(view))]
        view[: len(part)] = part
        return len(part)

    return Chunker(read_into, params)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1 << 30),
    size=st.integers(0, 200_000),
    piece=st.sampled_from([1 << 10, 4097, 1 << 20]),
)
def test_chunks_are_those_of_the_whole_buffer(seed: int, size: int, piece: int) -> None:
    data = random.Random(seed).randbytes(size)
    chunker = cut(data, piece)
    found = [(c.offset, c.length, c.digest) for c in chunker]
    whole = pyfastcdc.FastCDC(1024, min_size=256, max_size=8192, normalized_chunking=1)
    assert found == [(c.offset, c.length, blake3(c.data).digest()) for c in whole.cut_buf(data)]
    assert chunker.digest == blake3(data).digest()
    assert chunker.size == size


@pytest.mark.parametrize("kind", ["random", "zeros", "text"])
def test_windows_and_halves_do_not_show(kind: str) -> None:
    """More than two windows of 8 MiB, whose halves are cut side by side. Of zeros every chunk is the longest, so that
    the halves never meet."""
    data = {
        "random": random.Random(7).randbytes(17 << 20),
        "zeros": bytes((17 << 20) + 12_345),
        "text": b"the same words again and again, 0123456789\n" * ((17 << 20) // 43),
    }[kind]
    params = ChunkParams(32 << 10, 8 << 10, 256 << 10)
    found = [(c.offset, c.length) for c in cut(data, 1 << 30, params)]
    whole = pyfastcdc.FastCDC(32 << 10, min_size=8 << 10, max_size=256 << 10, normalized_chunking=1)
    assert found == [(c.offset, c.length) for c in whole.cut_buf(data)]
