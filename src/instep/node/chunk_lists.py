"""Chunk lists of files: cut by the tree's cutter, kept in the model's pages."""

from __future__ import annotations

import os
from collections.abc import Iterator

from instep.model.chunklist import build_chunks, chunk_params
from instep.model.ids import Digest
from instep.model.manifest import PutPage
from instep.tree.chunking import Chunker, Params
from instep.tree.scan import BuildChunks

__all__ = ["chunk_builder", "recut"]


def _chunker(fd: int, size: int) -> Chunker:
    params = chunk_params(size)
    return Chunker.of_fd(fd, Params(params.average, params.minimum, params.maximum))


def chunk_builder(put: PutPage) -> BuildChunks:
    """What a scan calls for a large file: ``(whole digest, chunk root, length)``, pages put."""

    def build(fd: int, size: int) -> tuple[Digest, Digest, int]:
        chunker = _chunker(fd, size)
        root = build_chunks(((chunk.length, chunk.digest) for chunk in chunker), put)
        return chunker.digest, root, chunker.size

    return build


def recut(fd: int) -> Iterator[tuple[int, int, Digest]]:
    """The chunks of a local file, with the constants of its size."""
    yield from _chunker(fd, os.fstat(fd).st_size)
