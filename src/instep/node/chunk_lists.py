"""The chunks of a local file, for a stage that looks for what it has already."""

from __future__ import annotations

import os
from collections.abc import Iterator

from instep.model.chunklist import build_chunks, chunk_params
from instep.model.ids import Digest
from instep.model.pages import PutPage
from instep.tree.chunking import Chunker

__all__ = ["recut", "recut_keeping"]


def recut(fd: int) -> Iterator[tuple[int, int, Digest]]:
    """The chunks of an open file as ``(offset, length, digest)``, with the constants of its size."""
    for chunk in Chunker.of_fd(fd, chunk_params(os.fstat(fd).st_size), has_digest=False):
        yield chunk.offset, chunk.length, chunk.digest


def recut_keeping(fd: int, put: PutPage) -> list[tuple[int, int, Digest]]:
    """``recut``, with the pages of the chunk list for ``put``: where a file changed little, most pages of its next
    list are the same, and need not be sent."""
    spans = list(recut(fd))
    if spans:
        build_chunks(((length, digest) for _, length, digest in spans), put)
    return spans
