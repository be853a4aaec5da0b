"""Files of a backup put in the place of a tree's present ones, by renames, with what they replace kept beside.

Everything is laid in a folder of the root first. A note says that the renames have begun; after a crash the same call
goes on with them.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import msgspec

from instep.errors import DamagedError
from instep.model.ids import EMPTY_DIGEST, Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import shown, sort_key
from instep.tree.backup.capture import local_of
from instep.tree.journal.renames import put_new
from instep.tree.objects.compared_write import open_file
from instep.tree.objects.copied_file import copied_file, entry_of
from instep.tree.objects.digest import digest_bytes
from instep.tree.objects.fidelity import Local, apply_metadata
from instep.tree.objects.laying import remove_object
from instep.tree.root.beneath import Root, syncfs
from instep.tree.root.descriptors import CREATE, READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.records import sync_dir, write_all
from instep.tree.scan.touched import is_reserved

FOLDER = b".instep-restore"
_NEW, _BEFORE, _NOTE = b"new", b"before", b"switching"
_LAID = register("backup.laid")
_SWITCHED = register("backup.switched")

Object = tuple[bytes, Kind, Digest]
"""Path, kind and digest."""


def lay_out(tree: Root, objects: Iterable[Object], into: Path) -> None:
    """Copy a backup's objects from ``tree`` into the empty directory ``into``, each checked by its digest.
    ``DamagedError`` ``backup_damaged``, also where the backup has no such object."""
    source = Path(os.fsdecode(tree.path))
    with Root(into) as dest:
        local, values = local_of(into), dict[Digest, bytes]()
        directories: list[bytes] = []
        for path, kind, digest in sorted(objects, key=lambda each: sort_key(each[0])):
            parent, name = dest.open_parent(path)
            if kind is Kind.DIR:
                os.mkdir(name, 0o700, dir_fd=parent)
                directories.append(path)
                continue
            if kind is Kind.SYMLINK:
                with _readable(source, path):
                    target, mtime_ns = tree.readlink(path), tree.stat(path).st_mtime_ns
                found: Digest | None = digest_bytes(target)
                os.symlink(target, name, dir_fd=parent)
                entry = Entry(path, kind, 0o777, len(target), mtime_ns, digest, 0, None)
                apply_metadata(parent, name, entry, Local(is_own=True))
            else:
                with _readable(source, path):
                    opened = open_file(tree, path)
                if opened is None:
                    raise _damaged(source, path, "is missing")
                with closing_fd(opened) as fd:
                    found = copied_file(fd, parent, name, path, local, values)
            if found != digest:
                raise _damaged(source, path, "does not have its digest")
            failpoint(_LAID)
        for path in reversed(directories):
            with _readable(source, path):
                opened = tree.open_dir(path)
            with closing_fd(opened) as fd:
                entry = entry_of(path, Kind.DIR, fd, os.fstat(fd), EMPTY_DIGEST, local, values)
            parent, name = dest.open_parent(path)
            apply_metadata(parent, name, entry, local, large_value=values.__getitem__)
        with closing_fd(dest.open_dir(b"")) as fd:
            syncfs(fd)


@contextlib.contextmanager
def _readable(source: Path, path: bytes) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _damaged(source, path, f"cannot be read: {error.strerror}") from error


def _damaged(source: Path, path: bytes, why: str) -> DamagedError:
    return DamagedError(
        f"{shown(path) or 'the folder of the fileset'} in {source} {why}",
        hint="take another backup: instep backup list",
        code="backup_damaged",
        path=shown(path),
    )


def _make(tree: Root, path: bytes) -> None:
    """A directory of this user's alone. No link on the way is followed."""
    parent, name = tree.open_parent(path)
    os.mkdir(name, 0o700, dir_fd=parent)


def lay_beside(root: Path, run: str, lay: Callable[[Path], None], stays: Callable[[bytes], bool]) -> None:
    """Lay out by ``lay`` what is to replace all in ``root`` but the names of which ``stays`` is true. Nothing is
    replaced yet. ``run`` names this restore: the same one again goes on."""
    place = root / os.fsdecode(FOLDER) / run
    at = FOLDER + b"/" + os.fsencode(run)
    with Root(root) as tree:
        is_noted, is_begun = (tree.stat_or_none(at + b"/" + name) is not None for name in (_NOTE, _NEW))
        if is_noted or (not is_begun and tree.stat_or_none(at) is not None):
            return
        with contextlib.suppress(FileExistsError):
            _make(tree, FOLDER)
        remove_object(*tree.open_parent(at))  # laid by an attempt that was cut off; nothing was replaced
        tree.forget(b"")
        for each in (at, at + b"/" + _NEW, at + b"/" + _BEFORE):
            _make(tree, each)
        try:
            lay(place / os.fsdecode(_NEW))
        except BaseException:
            remove_object(*tree.open_parent(at))
            raise
        _note(tree, place, [name for name in tree.names(b"") if not is_reserved(name) and not stays(name)])


def discard(root: Path, run: str) -> bool:
    """Remove what was laid beside, as long as nothing of it was put in place; whether that is so."""
    at = FOLDER + b"/" + os.fsencode(run)
    with Root(root) as tree:
        if tree.stat_or_none(at) is None:
            return True
        if tree.stat_or_none(at + b"/" + _NEW) is None or tree.names(at + b"/" + _BEFORE):
            return False
        for name in (_NOTE, b""):  # without its note it is only laid, whatever of it is removed
            remove_object(*tree.open_parent(at + (b"/" + name if name else b"")))
        return True


def put_in_place(root: Path, run: str) -> Path:
    """Replace the objects of ``root`` by those that were laid out. The folder that keeps the replaced ones."""
    place = root / os.fsdecode(FOLDER) / run
    with Root(root) as tree, Root(place) as folder:
        if folder.stat_or_none(_NOTE) is not None:
            _switch(tree, place, place / os.fsdecode(_NEW), place / os.fsdecode(_BEFORE))
    return place / os.fsdecode(_BEFORE)


def _note(tree: Root, place: Path, olds: list[bytes]) -> None:
    with Root(place) as folder:
        pending = _NOTE + b".new"
        with closing_fd(os.open(pending, CREATE, 0o600, dir_fd=folder.fd)) as fd:
            write_all(fd, msgspec.json.encode(olds))
            os.fsync(fd)
        os.rename(pending, _NOTE, src_dir_fd=folder.fd, dst_dir_fd=folder.fd)
        sync_dir(folder.fd)
    sync_dir(tree.fd)


def _switch(tree: Root, place: Path, new: Path, before: Path) -> None:
    with Root(place) as folder, Root(before) as kept:
        if folder.stat_or_none(_NEW) is not None:
            with closing_fd(folder.open(_NOTE, READ)) as fd:
                olds = msgspec.json.decode(os.pread(fd, 1 << 24, 0), type=list[bytes])
            with Root(new) as fresh:
                _move(tree, olds, fresh, kept)
            with closing_fd(tree.open_dir(b"")) as fd:
                syncfs(fd)
            os.rmdir(_NEW, dir_fd=folder.fd)
            sync_dir(folder.fd)
        os.unlink(_NOTE, dir_fd=folder.fd)
        sync_dir(folder.fd)


def _move(tree: Root, olds: list[bytes], fresh: Root, kept: Root) -> None:
    """A name is old until it is among the kept ones, and new from then on."""
    for name in olds:
        if kept.stat_or_none(name) is None and tree.stat_or_none(name) is not None:
            put_new(tree.fd, name, kept.fd, name)
            failpoint(_SWITCHED)
    for name in fresh.names(b""):
        put_new(fresh.fd, name, tree.fd, name)
        failpoint(_SWITCHED)
