"""The chunks of a local file, for a stage that looks for chunks that are here already."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator

from instep.errors import PeerError
from instep.model.ids import Digest
from instep.model.manifest.chunklist import (
    build_chunks,
    check_chunks,
    chunk_params,
    iterate_chunks,
    missing_chunk_pages,
)
from instep.model.manifest.pages import PutPage
from instep.node.trees.keeping.page_walk import must_have
from instep.tree.objects.chunking import Chunker

log = logging.getLogger(__name__)


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


def kept_chunks(
    root: Digest, size: int, get_or_none: Callable[[Digest], bytes | None]
) -> list[tuple[int, int, Digest]] | None:
    """The chunks of a file of ``size`` bytes by a list that is kept here whole, as it came from a peer; None when it is
    not, or cannot be that file's: the file is here to be cut."""
    get = must_have(get_or_none)

    try:
        if missing_chunk_pages(root, get_or_none):
            return None
        check_chunks(root, size, get)
    except PeerError as error:
        log.warning("a kept chunk list is not used, the file is cut anew: %s", error)
        return None
    return list(iterate_chunks(root, get))
