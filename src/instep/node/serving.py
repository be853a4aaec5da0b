"""What a partner may have of a line's pages and contents, and where they are found.

A content is looked for in the tree, then in the history, then in the archive, and is hashed as it is sent: a file
that moved on is *superseded*, never sent as something else (P6, design sections 5 and 6).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing

from blake3 import blake3

from instep.errors import DamagedError, PeerError, UnavailableError
from instep.model.entry import Entry, Kind
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef
from instep.model.pages import decode_leaf, level_of
from instep.net.messages import (
    PAGES_REPLY_BYTES_MAX,
    ChunkPagesRequest,
    ContentsRequest,
    PagesReply,
    PagesRequest,
)
from instep.net.transfer import PIECE_BYTES, Answer, AnswerStatus, pieces_of_file
from instep.node.belonging import Belonging
from instep.node.keeping import Kept
from instep.store.port import NodeStore
from instep.tree.archive import Archive
from instep.tree.beneath import Root
from instep.tree.place import Place

__all__ = ["Shelf", "chunk_pages_reply", "entries_asked", "entry_asked", "pages_reply"]

RECENT_GENERATIONS = 16
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def pages_reply(
    store: NodeStore, request: PagesRequest | ChunkPagesRequest, limit_bytes: int = PAGES_REPLY_BYTES_MAX
) -> PagesReply:
    """The first pages of those asked for, as many as fit a reply."""
    pages: list[bytes] = []
    size = 0
    for digest in request.digests:
        raw = store.get_page(digest)
        if raw is None:
            if pages:
                break
            raise UnavailableError(
                f"page {digest.hex()[:16]} is not kept here any more",
                hint="take the newer head",
                code="superseded",
                page=digest.hex(),
            )
        size += len(raw)
        if pages and size > limit_bytes:
            break
        pages.append(raw)
    return PagesReply(tuple(pages), getattr(request, "number", 0))


def entries_asked(store: NodeStore, request: ContentsRequest) -> Iterator[Entry]:
    """The entries that a request names, in its order; ``PeerError`` for positions that are not there. Lazy: one
    request may name more pages than an event loop should decode in one go."""
    for want in request.wants:
        leaf = _leaf(store, want.page)
        for position in want.positions:
            yield _at(leaf, position, want.page)


def entry_asked(store: NodeStore, page: Digest, position: int) -> Entry:
    """One entry by its address."""
    return _at(_leaf(store, page), position, page)


def _leaf(store: NodeStore, digest: Digest) -> Sequence[Entry]:
    raw = store.get_page(digest)
    if raw is None:
        raise UnavailableError(
            f"page {digest.hex()[:16]} is not kept here any more",
            hint="take the newer head",
            code="superseded",
            page=digest.hex(),
        )
    if level_of(raw) != 0:
        raise PeerError("contents were asked for by an inner page", code="bad_want", page=digest.hex())
    return decode_leaf(raw, trusted=True)


def _at(leaf: Sequence[Entry], position: int, page: Digest) -> Entry:
    if position >= len(leaf):
        raise PeerError(
            f"position {position} is not in page {page.hex()[:16]} of {len(leaf)} entries", code="bad_want"
        )
    entry = leaf[position]
    if entry.kind is Kind.DIR:
        raise PeerError("a directory has no contents", code="bad_want", position=position)
    return entry


class Shelf:
    """Contents of one fileset on this node. One request's thread at a time; opened for each request."""

    def __init__(
        self,
        place: Place,
        history: Kept | None,
        archive: Archive | None,
        missed: Callable[[Entry], None] | None = None,
    ) -> None:
        """``missed`` is called with each entry whose contents are nowhere here any more."""
        self._place = place
        self.missed = missed
        self._history = history
        self._archive = archive

    def of(self, signed: SignedGeneration, head: HeadRef | None) -> Shelf:
        """For a request of that generation. What an old one named is missed by nobody: the partner takes the newer
        head."""
        if head is not None and signed.ref().number + RECENT_GENERATIONS < head.number:
            self.missed = None
        return self

    def contents(self, entries: Iterable[Entry]) -> Iterator[Answer]:
        """Answers in order. Small contents whole, large ones in pieces."""
        with closing(Root(self._place.root)) as root:
            for index, entry in enumerate(entries):
                if entry.kind is Kind.SYMLINK:
                    yield self._whole(index, entry, _target(root, entry))
                elif entry.size <= PIECE_BYTES:
                    yield self._whole(index, entry, _small(root, entry))
                else:
                    yield from self._large(index, entry, root)

    def _whole(self, index: int, entry: Entry, data: bytes | None) -> Answer:
        if data is not None and blake3(data).digest() == entry.digest:
            return Answer(index, AnswerStatus.WHOLE, 0, data)
        kept = self._kept_bytes(entry)
        if kept is None:
            self._miss(entry)
            return Answer(index, AnswerStatus.SUPERSEDED, 0, b"")
        return Answer(index, AnswerStatus.WHOLE, 0, kept)

    def _kept_bytes(self, entry: Entry) -> bytes | None:
        if self._history is not None:
            data = self._history.get(entry.digest)
            if data is not None:
                return data
        if self._archive is not None:
            fd = self._archive.source()(entry)
            if fd is not None:
                try:
                    data = os.pread(fd, entry.size + 1, 0)
                finally:
                    os.close(fd)
                if blake3(data).digest() == entry.digest:
                    return data
        return None

    def _large(self, index: int, entry: Entry, root: Root) -> Iterator[Answer]:
        fd = self._open_large(root, entry)
        if fd is None:
            self._miss(entry)
            yield Answer(index, AnswerStatus.SUPERSEDED, 0, b"")
            return
        began = os.fstat(fd).st_mtime_ns
        try:
            yield from _until_short(index, fd, 0, entry.size)
        finally:
            self._end(fd, entry, began)

    def ranges(self, entry: Entry, ranges: Sequence[tuple[int, int]]) -> Iterator[Answer]:
        """Parts of one content. The asker verifies the whole; a file that moved on shows in its size."""
        for offset, length in ranges:
            if offset + length > entry.size:
                raise PeerError(
                    f"range {offset}+{length} leaves a file of {entry.size} bytes", code="bad_want"
                )
        with closing(Root(self._place.root)) as root:
            fd = self._open_large(root, entry)
            if fd is None:
                self._miss(entry)
                for index in range(len(ranges)):
                    yield Answer(index, AnswerStatus.SUPERSEDED, 0, b"")
                return
            began = os.fstat(fd).st_mtime_ns
            try:
                for index, (offset, length) in enumerate(ranges):
                    yield from _until_short(index, fd, offset, length)
            finally:
                self._end(fd, entry, began)

    def _miss(self, entry: Entry) -> None:
        if self.missed is not None:
            self.missed(entry)

    def _end(self, fd: int, entry: Entry, began_mtime_ns: int) -> None:
        """Close what was sent. Where it changed meanwhile, the partner got a mixture, and will find that out: that is
        as good as a miss, and known sooner."""
        is_mixed = os.fstat(fd).st_mtime_ns != began_mtime_ns
        os.close(fd)
        if is_mixed:
            self._miss(entry)

    def _open_large(self, root: Root, entry: Entry) -> int | None:
        """A descriptor of contents of the right size; the digest is the asker's to verify, chunk by chunk."""
        fd = _opened(root, entry)
        if fd is not None:
            found = os.fstat(fd)
            if found.st_size == entry.size and found.st_mtime_ns == entry.mtime_ns:
                return fd
            os.close(fd)
        archived = self._archive.source() if self._archive is not None else None
        for source in (self._history, archived):
            fd = source(entry) if source is not None else None
            if fd is not None:
                return fd
        return None


def _until_short(index: int, fd: int, offset: int, length: int) -> Iterator[Answer]:
    try:
        yield from pieces_of_file(index, fd, offset, length)
    except DamagedError:
        yield Answer(index, AnswerStatus.SUPERSEDED, 0, b"")


def _opened(root: Root, entry: Entry) -> int | None:
    try:
        return root.open(entry.path, _READ)
    except OSError:
        return None


def _small(root: Root, entry: Entry) -> bytes | None:
    fd = _opened(root, entry)
    if fd is None:
        return None
    try:
        return os.read(fd, entry.size + 1)
    except OSError:
        return None
    finally:
        os.close(fd)


def _target(root: Root, entry: Entry) -> bytes | None:
    try:
        return root.readlink(entry.path)
    except OSError:
        return None


def chunk_pages_reply(store: NodeStore, belonging: Belonging, request: ChunkPagesRequest) -> PagesReply:
    """Pages of one file's chunk list: only those that belong to it."""
    entry = entry_asked(store, request.page, request.position)
    root = entry.extra.chunks if entry.extra is not None else None
    if root is None:
        raise PeerError("the file has no chunk list", code="bad_want")
    belonging.require(root, request.digests, store.get_page)
    return pages_reply(store, request)
