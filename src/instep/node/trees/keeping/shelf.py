"""The pages and contents of a line that a partner may have, and where they are found.

A content is looked for in the tree, then in the history, then in every batch of the archive. A place that holds other
bytes is named and does not hide the next. A file that moved on is *superseded*, never sent as something else (P6,
design sections 5 and 6).
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, suppress

import msgspec
from blake3 import blake3

from instep.errors import DamagedError, PeerError
from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.manifest.diff import diff
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.leaves import leaf_of
from instep.model.manifest.pages import body_of, level_of
from instep.net.messages.messages import (
    PAGES_REPLY_BYTES_MAX,
    ChunkPagesRequest,
    ContentsRequest,
    PagesReply,
    PagesRequest,
)
from instep.net.messages.syncing import DIFFERENCE_BYTES_MAX, DIFFERENCE_MAX, DifferenceReply
from instep.net.transfer import PIECE_BYTES, AnswerStatus, TransferAnswer, pieces_of_file
from instep.node.trees.keeping.page_walk import PageMembership, page_gone
from instep.node.trees.keeping.serving_checks import ServingChecks, Where
from instep.store.port import NodeStore
from instep.tree.archive.history import History
from instep.tree.archive.lookup import ArchiveLookup
from instep.tree.archive.source import ArchiveSource
from instep.tree.root.beneath import Root
from instep.tree.root.place import Place

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
            raise page_gone(digest)
        size += len(raw)
        if pages and size > limit_bytes:
            break
        pages.append(raw)
    return PagesReply(tuple(pages), getattr(request, "number", 0))


def difference_reply(store: NodeStore, old: Digest, new: Digest) -> DifferenceReply:
    """What changed from one manifest of a line to another, where it is not too much."""

    def get(digest: Digest) -> bytes:
        raw = store.get_page(digest)
        if raw is None:
            raise page_gone(digest)
        return raw

    entries: list[Entry] = []
    removed: list[bytes] = []
    size = 0
    for change in diff(old, new, get):
        size += len(change.path) + (len(body_of(change.new)) if change.new is not None else 0)
        if max(len(entries), len(removed)) >= DIFFERENCE_MAX or size > DIFFERENCE_BYTES_MAX:
            return DifferenceReply(is_whole=False)
        if change.new is not None:
            entries.append(change.new)
        else:
            removed.append(change.path)
    return DifferenceReply(tuple(entries), tuple(removed))


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
        raise page_gone(digest)
    if level_of(raw) != 0:
        raise PeerError("contents were asked for by an inner page", code="bad_want", page=digest.hex())
    return leaf_of(digest, raw, trusted=True).entries


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
        history: History | None,
        archive: ArchiveLookup,
        checks: ServingChecks,
        missed: Callable[[Entry], None] | None = None,
        shown: Callable[[bytes], bytes] | None = None,
    ) -> None:
        """``missed`` is called with each entry whose contents are nowhere here any more. ``shown`` gives the path in
        the tree of a path of the line, where they may differ."""
        self._shown = shown
        self._place = place
        self.missed = missed
        self._history = history
        self._archive = archive
        self._archived: ArchiveSource | None = None
        self._checks = checks
        self._asker = NodeName("")

    def of(self, signed: SignedGeneration, head: HeadRef | None, asker: NodeName) -> Shelf:
        """For a request of that generation. Contents of an old generation are not missed: the partner takes the
        newer head."""
        if head is not None and signed.ref().number + RECENT_GENERATIONS < head.number:
            self.missed = None
        self._asker = asker
        return self

    def contents(self, entries: Iterable[Entry]) -> Iterator[TransferAnswer]:
        """Answers in order. Small contents whole, large ones in pieces."""
        with closing(Root(self._place.root)) as root:
            for index, entry in enumerate(map(self._as_shown, entries)):
                if entry.kind is Kind.SYMLINK:
                    yield self._whole(index, entry, _target(root, entry))
                elif entry.size <= PIECE_BYTES:
                    yield self._whole(index, entry, self._small(root, entry))
                else:
                    yield from self._pieces(entry, root, [(0, entry.size)], index)

    def ranges(self, entry: Entry, ranges: Sequence[tuple[int, int]]) -> Iterator[TransferAnswer]:
        """Parts of one content. The asker verifies the whole; a file that moved on shows in its size."""
        entry = self._as_shown(entry)
        for offset, length in ranges:
            if offset + length > entry.size:
                raise PeerError(
                    f"range {offset}+{length} leaves a file of {entry.size} bytes", code="bad_want"
                )
        with closing(Root(self._place.root)) as root:
            yield from self._pieces(entry, root, ranges, 0)

    def _as_shown(self, entry: Entry) -> Entry:
        path = self._shown(entry.path) if self._shown is not None else entry.path
        return entry if path == entry.path else msgspec.structs.replace(entry, path=path)

    # --- small ones, each hashed as it is sent ----------------------------------------------------------------

    def _small(self, root: Root, entry: Entry) -> bytes | None:
        """The bytes at the entry's path in the tree. Other bytes under the very stat of the entry are rot."""
        fd = _opened(root, entry)
        if fd is None:
            return None
        try:
            data = os.read(fd, entry.size + 1)
            if is_unchanged(fd, entry) and blake3(data).digest() != entry.digest:
                self._checks.rotten(entry)
            return data
        except OSError:
            return None
        finally:
            os.close(fd)

    def _whole(self, index: int, entry: Entry, data: bytes | None) -> TransferAnswer:
        if data is not None and blake3(data).digest() == entry.digest:
            return TransferAnswer(index, AnswerStatus.WHOLE, 0, data)
        kept = self._kept_bytes(entry)
        if kept is None:
            self._miss(entry)
            return TransferAnswer(index, AnswerStatus.SUPERSEDED, 0, b"")
        return TransferAnswer(index, AnswerStatus.WHOLE, 0, kept)

    def _kept_bytes(self, entry: Entry) -> bytes | None:
        if self._history is not None:
            data = self._history.get(entry.digest)
            if data is not None:
                return data
        if entry.kind is Kind.SYMLINK:
            targets = self._in_archive().targets(entry)
            return next((each for each in targets if blake3(each).digest() == entry.digest), None)
        for fd in self._in_archive().candidates(entry):
            try:
                data = os.pread(fd, entry.size + 1, 0)
            except OSError:
                continue
            finally:
                os.close(fd)
            if blake3(data).digest() == entry.digest:
                return data
        return None

    # --- large ones ---------------------------------------------------------------------------------------------

    def _pieces(
        self, entry: Entry, root: Root, ranges: Sequence[tuple[int, int]], first: int
    ) -> Iterator[TransferAnswer]:
        """Every range of one content, answered as want ``first`` and those after it."""
        is_again = self._checks.is_again(self._asker, entry, ranges)
        fd = self._open_large(root, entry, is_again)
        if fd is None:
            self._miss(entry)
            for index in range(len(ranges)):
                yield TransferAnswer(first + index, AnswerStatus.SUPERSEDED, 0, b"")
            return
        began = os.fstat(fd).st_mtime_ns
        try:
            for index, (offset, length) in enumerate(ranges):
                yield from _until_short(first + index, fd, offset, length)
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

    def _open_large(self, root: Root, entry: Entry, is_again: bool) -> int | None:
        """A descriptor of the contents. The asker verifies contents of the tree, chunk by chunk, until it asks for the
        same bytes again; a place that holds other bytes is reported, and the next place is looked into."""
        for fd, where in self._candidates(root, entry):
            if where is Where.TREE and not is_again:
                return fd
            if self._checks.is_right(fd, entry, is_again=is_again):
                return fd
            self._name_rotten(fd, where, entry)
            os.close(fd)
        return None

    def _candidates(self, root: Root, entry: Entry) -> Iterator[tuple[int, Where]]:
        fd = _opened(root, entry)
        if fd is not None:
            if is_unchanged(fd, entry):
                yield fd, Where.TREE
            else:
                os.close(fd)
        fd = self._history(entry) if self._history is not None else None
        if fd is not None:
            yield fd, Where.HISTORY
        yield from ((fd, Where.ARCHIVE) for fd in self._in_archive().candidates(entry))

    def _name_rotten(self, fd: int, where: Where, entry: Entry) -> None:
        """A history's content is forgotten, so that it is named, and mended from elsewhere. An archived file may be
        another version of the same path: nothing is said of it."""
        if where is Where.HISTORY and self._history is not None:
            with suppress(FileNotFoundError):  # it was collected meanwhile
                self._history.forget_rotten(entry.digest)
        elif where is Where.TREE and is_unchanged(fd, entry):
            self._checks.rotten(entry)

    def _in_archive(self) -> ArchiveSource:
        if self._archived is None:
            self._archived = self._archive.source()
        return self._archived


def is_unchanged(fd: int, entry: Entry) -> bool:
    """Whether an open file has the entry's size and time."""
    found = os.fstat(fd)
    return found.st_size == entry.size and found.st_mtime_ns == entry.mtime_ns


def _until_short(index: int, fd: int, offset: int, length: int) -> Iterator[TransferAnswer]:
    """The pieces of one range; *superseded* where the file ends early, or the disk cannot read it."""
    try:
        yield from pieces_of_file(index, fd, offset, length)
    except (DamagedError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.EIO:
            raise
        yield TransferAnswer(index, AnswerStatus.SUPERSEDED, 0, b"")


def _opened(root: Root, entry: Entry) -> int | None:
    try:
        return root.open(entry.path, _READ)
    except OSError:
        return None


def _target(root: Root, entry: Entry) -> bytes | None:
    try:
        return root.readlink(entry.path)
    except OSError:
        return None


def chunk_pages_reply(store: NodeStore, belonging: PageMembership, request: ChunkPagesRequest) -> PagesReply:
    """Pages of one file's chunk list: only pages that belong to it."""
    entry = entry_asked(store, request.page, request.position)
    root = entry.extra.chunks if entry.extra is not None else None
    if root is None:
        raise PeerError("the file has no chunk list", code="bad_want")
    belonging.require(root, request.digests, store.get_page)
    return pages_reply(store, request)
