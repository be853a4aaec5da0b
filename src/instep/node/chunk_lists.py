"""The chunks of a local file, for a stage that looks for what it has already."""

from __future__ import annotations

import os
from collections.abc import Iterator

from instep.model.chunklist import chunk_params
from instep.model.ids import Digest
from instep.tree.chunking import Chunker

__all__ = ["recut"]


def recut(fd: int) -> Iterator[tuple[int, int, Digest]]:
    """The chunks of an open file as ``(offset, length, digest)``, with the constants of its size."""
    for chunk in Chunker.of_fd(fd, chunk_params(os.fstat(fd).st_size)):
        yield chunk.offset, chunk.length, chunk.digest
