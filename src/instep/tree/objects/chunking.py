"""Content-defined chunks of a file and its whole digest, in one pass and constant memory.

FastCDC 2020 by ``pyfastcdc``, whose compiled cutter releases the GIL; ``docs/spec/manifest.md``
has the constants. The file is read in windows and never mapped: a mapped file that another program
truncates kills the process with SIGBUS.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor, wait
from itertools import chain, islice
from typing import NamedTuple

import pyfastcdc
from blake3 import blake3

from instep.errors import ResourceError
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.chunklist import ChunkParams, build_chunks, chunk_params
from instep.model.manifest.pages import PutPage
from instep.tree.objects.digest import window as thread_window

_WINDOW = 8 << 20
"""At least four times the largest chunk, so that moving the tail of a window costs little."""
_SPLIT_OVER = 2 << 20
"""Less is cut sooner than another thread has begun."""


class CutChunk(NamedTuple):
    """``offset`` and ``length`` in bytes, ``digest`` BLAKE3-256 of these bytes."""

    offset: int
    length: int
    digest: Digest


class Chunker:
    """Cuts what a reader gives. Iterate once, to the end; then ``digest`` and ``size`` are the whole's.

    ``read_into(view, offset)`` fills the view from that offset of the file and returns the count, 0 at
    the end. The two halves of a window are cut side by side, beside both the whole is digested.
    """

    def __init__(
        self, read_into: Callable[[memoryview, int], int], params: ChunkParams, *, has_digest: bool = True
    ) -> None:
        require_compiled()
        assert params.maximum * 4 <= _WINDOW, "the window is too small for these chunks"
        self._read_into = read_into
        self._params = params
        self._whole = blake3() if has_digest else None
        self.size = 0

    @classmethod
    def of_fd(cls, fd: int, params: ChunkParams, *, has_digest: bool = True) -> Chunker:
        """Cuts an open file from its start, whatever its position."""
        return cls(lambda view, offset: os.preadv(fd, [view], offset), params, has_digest=has_digest)

    @property
    def digest(self) -> Digest:
        assert self._whole is not None, "this chunker was made without a digest of the whole"
        return Digest(self._whole.digest())

    def __iter__(self) -> Iterator[CutChunk]:
        with memoryview(thread_window(_WINDOW)) as window, ThreadPoolExecutor(2, "chunks") as beside:
            start = rest = 0
            filled, is_end = self._fill(window, 0)
            while filled:
                digesting = beside.submit(self._take_in, window[rest:filled])
                kept = 0
                for chunk in self._cut(window[:filled], beside):
                    if not is_end and filled - chunk.offset < self._params.maximum:
                        break  # this one may be cut short by the end of the window
                    kept = chunk.offset + chunk.length
                    yield CutChunk(start + chunk.offset, chunk.length, chunk.digest)
                digesting.result()
                rest = filled - kept
                window[:rest] = window[kept:filled]
                start += kept
                filled, is_end = self._fill(window, rest)

    def _fill(self, window: memoryview, filled: int) -> tuple[int, bool]:
        """Fill the window behind ``filled``; return the bytes that it holds now, and whether that is the file's end."""
        while filled < len(window):
            count = self._read_into(window[filled:], self.size)
            if count == 0:
                return filled, True
            self.size += count
            filled += count
        return filled, False

    def _take_in(self, data: memoryview) -> None:
        if self._whole is not None:
            self._whole.update(data)

    def _cut(self, view: memoryview, beside: Executor) -> Iterator[CutChunk]:
        """The chunks of ``view``. Where a chunk ends depends on nothing before its start, so that the second half,
        cut from its middle on, is right from the first end on that both ways of cutting have."""
        middle = len(view) // 2
        if len(view) < _SPLIT_OVER:
            yield from self._cut_from(view, 0)
            return
        ahead = beside.submit(lambda: list(self._cut_from(view, middle)))
        second: dict[int, int] = {}
        try:
            for chunk in self._cut_from(view, 0):
                if chunk.offset >= middle:
                    second = second or {later.offset: at for at, later in enumerate(ahead.result())}
                    at = second.get(chunk.offset)
                    if at is not None:
                        yield from islice(ahead.result(), at, None)
                        return
                yield chunk
        finally:
            wait([ahead])  # it reads the window, which is moved next

    def _cut_from(self, view: memoryview, at: int) -> Iterator[CutChunk]:
        average, minimum, maximum, normalization = self._params
        cutter = pyfastcdc.FastCDC(
            average, min_size=minimum, max_size=maximum, normalized_chunking=normalization
        )
        for cut in cutter.cut_buf(view[at:]):
            yield CutChunk(at + cut.offset, cut.length, Digest(blake3(cut.data).digest()))


def chunk_file(fd: int, size: int, put: PutPage) -> tuple[Digest, Digest, int]:
    """Whole digest, root of the chunk list and true length of an open file, in one pass.

    ``size`` comes from the stat and chooses the constants; when the true length is another, the file is
    changing and the caller drops the result. ``put`` gets the pages of the chunk list.
    """
    chunker = Chunker.of_fd(fd, chunk_params(size))
    chunks = ((chunk.length, chunk.digest) for chunk in chunker)
    first = next(chunks, None)
    root = EMPTY_DIGEST if first is None else build_chunks(chain((first,), chunks), put)
    return chunker.digest, root, chunker.size


def require_compiled() -> None:
    """Refuse the pure Python fallback of the cutter: it is a hundred times slower."""
    if not pyfastcdc.FastCDC.__module__.startswith("pyfastcdc.cy"):
        raise ResourceError(
            "the compiled chunk cutter of pyfastcdc is missing",
            hint="install a pyfastcdc wheel for this Python and machine",
            code="no_compiled_chunker",
        )
