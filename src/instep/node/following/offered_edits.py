"""Local edits as a home is asked to make them: differences from the tree's generation, in the home's own terms, and the
contents that go along."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence

from blake3 import blake3
from msgspec.structs import replace

from instep.core.changes.offer_vocabulary import Edit
from instep.errors import DamagedError, UnavailableError
from instep.model.change import ChangeSet
from instep.model.definition import Preserve
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.manifest.walk import Reader
from instep.model.paths import shown
from instep.net.transfer import PIECE_BYTES, AnswerStatus, TransferAnswer, pieces_of_file
from instep.node.runtime.driver import wall_ms
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.tree_comparison import without_chunks
from instep.tree.objects.fidelity import Local
from instep.tree.objects.inode import SETID
from instep.tree.root.beneath import Root
from instep.tree.scan.compare import Difference

_NOTHING = Extra()


def edits_of(tree: FilesetTree, base: HeadRef, found: Iterable[Difference]) -> tuple[Edit, ...]:
    """The differences from ``base`` as edits. Left out are paths that could not be looked at."""
    reader = Reader(tree.get_page)
    local = tree.local(tree.definition(base))
    edits: list[Edit] = []
    for difference in found:
        if difference.problem is not None:
            continue
        before = reader.lookup(base.root, difference.path)
        now = at_home(difference.found, before, local) if difference.found is not None else None
        if now is None and before is None:
            continue
        is_seen = now is not None or _was_seen(tree, difference.path, before)
        edits.append(Edit(difference.path, now, before, is_seen))
    return tuple(edits)


def edits_at(tree: FilesetTree, base: HeadRef, paths: Sequence[bytes]) -> tuple[Edit, ...]:
    """A look at these paths now."""
    return edits_of(tree, base, tree.comparison(base).some(base.root, paths, wall_ms()))


def digest_at(tree: FilesetTree, base: HeadRef, path: bytes) -> Digest:
    """The digest of the file as it lies here now; empty where none lies here."""
    for edit in edits_at(tree, base, (path,)):
        if edit.path == path:
            return edit.found.digest if edit.found is not None else Digest(b"")
    entry = Reader(tree.get_page).lookup(base.root, path)
    return entry.digest if entry is not None else Digest(b"")


def at_home(found: Entry, before: Entry | None, local: Local) -> Entry:
    """An object of this tree as the home's manifest would have it: metadata that this node cannot keep, or may not set,
    stay as they were. Hard links are the home's: a file of other bytes is a file of its own."""
    was = before.extra if before is not None and before.extra is not None else _NOTHING
    here = found.extra if found.extra is not None else _NOTHING
    keeps_xattrs = local.keeps(Preserve.XATTR)
    extra = Extra(
        owner=was.owner,
        group=was.group,
        xattrs=here.xattrs if keeps_xattrs else was.xattrs,
        large_xattrs=here.large_xattrs if keeps_xattrs else was.large_xattrs,
        sparse=was.sparse,
        link_group=was.link_group if before is not None and before.digest == found.digest else None,
    )
    mode = found.mode
    if before is not None and before.kind is found.kind and not local.is_own:
        mode |= before.mode & SETID
    born_ms = before.born_ms if before is not None else found.born_ms
    return without_chunks(
        replace(found, mode=mode, born_ms=born_ms, extra=None if extra == _NOTHING else extra)
    )


def _was_seen(tree: FilesetTree, path: bytes, before: Entry | None) -> bool:
    """Whether a path that is missing now was laid here and seen since. A row of other contents is of an earlier file of
    that name. Directories and symlinks have no rows: they are laid with all else of a generation."""
    if before is not None and before.kind is not Kind.FILE:
        return True
    row = tree.stat_row(path)
    return row is not None and (before is None or row.digest == before.digest)


def contents_of(
    root: os.PathLike[str], change_set: ChangeSet, wanted: Sequence[tuple[Digest, int]]
) -> Iterator[TransferAnswer]:
    """The wanted contents, read from the tree and hashed on the way. ``UnavailableError`` ``contents_gone`` for a file
    that is another one by now: the home gets an end in its place, and nothing is taken. For a worker thread."""
    places = {change.new.digest: change.new for change in change_set.changes if change.new is not None}
    values = {
        digest: (change.path, name)
        for change in change_set.changes
        if change.new is not None and change.new.extra is not None
        for name, digest, _ in change.new.extra.large_xattrs
    }
    with Root(os.fspath(root)) as held:
        for want, (digest, size) in enumerate(wanted):
            entry = places.get(digest)
            if entry is None:
                yield _small(want, _attribute(held, *values[digest]), digest)
            elif entry.kind is Kind.SYMLINK:
                yield _small(want, _target(held, entry.path), digest)
            else:
                yield from _file(held, entry.path, want, digest, size)


def _file(root: Root, path: bytes, want: int, digest: Digest, size: int) -> Iterator[TransferAnswer]:
    try:
        descriptor = root.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise _gone(path) from error
    try:
        if size <= PIECE_BYTES:
            yield _small(want, os.pread(descriptor, size + 1, 0), digest, path)
            return
        found = blake3()
        try:
            for piece in pieces_of_file(want, descriptor, 0, size):
                found.update(piece.data)
                yield piece
        except DamagedError as error:
            raise _gone(path) from error
        if found.digest() != digest:
            raise _gone(path)
    finally:
        os.close(descriptor)


def _target(root: Root, path: bytes) -> bytes:
    try:
        return root.readlink(path)
    except OSError as error:
        raise _gone(path) from error


def _attribute(root: Root, path: bytes, name: bytes) -> bytes:
    try:
        descriptor = root.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            return os.getxattr(descriptor, name)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise _gone(path) from error


def _small(want: int, data: bytes, digest: Digest, path: bytes = b"") -> TransferAnswer:
    if blake3(data).digest() != digest:
        raise _gone(path)
    return TransferAnswer(want, AnswerStatus.WHOLE, 0, data)


def _gone(path: bytes) -> UnavailableError:
    return UnavailableError(f"{shown(path)} was changed again before it was sent", code="contents_gone")
