"""The files that a layout moves: found beneath the source, looked at again, and deleted at the end."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instep.core.layout.layout import ItemVerb, LayoutForm, LayoutItem
from instep.model.ids import Digest
from instep.model.manifest.entry import Kind
from instep.model.paths import is_below, sort_key
from instep.tree.layout.trouble import named_errors, outside
from instep.tree.objects.digest import digest_beneath, digest_fd, same_stat
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.scan.subtree import OTHER, kind_of, walk_below

_DELETING = register("layout.deleting")


@dataclass(frozen=True, slots=True)
class Original:
    """One object that is moved. ``target`` is its path in the destination."""

    path: bytes
    target: bytes
    kind: Kind
    stat: os.stat_result
    item: LayoutItem


@dataclass(slots=True)
class Survey:
    """The objects of a source, as they lie there now. ``special`` are sockets, pipes and devices, which stay where they
    are; ``links`` are symbolic links that lead to another place of the source."""

    originals: dict[bytes, Original] = field(default_factory=dict)
    there: set[LayoutItem] = field(default_factory=set)
    missing: list[LayoutItem] = field(default_factory=list)
    special: list[bytes] = field(default_factory=list)
    links: list[bytes] = field(default_factory=list)

    @property
    def bytes_needed(self) -> int:
        files = (each.stat for each in self.originals.values() if each.kind is Kind.FILE)
        return sum({(found.st_dev, found.st_ino): found.st_blocks * 512 for found in files}.values())

    def sorted(self) -> list[Original]:
        return sorted(self.originals.values(), key=lambda each: sort_key(each.target))


def survey(source: Root, form: LayoutForm) -> Survey:
    """All that the form's items cover. ``RefusedError`` ``outside_source``; ``ResourceError`` for an unreadable one."""
    found = Survey()
    top = Path(os.fsdecode(source.path))
    for item in form.items:
        with named_errors(top, item.source, "read"):
            about = _stat(source, item.source)
            if about is None:
                found.missing.append(item)
                continue
            if stat.S_ISLNK(about.st_mode) or about.st_dev != source.device:
                raise outside(top, item.source)
        found.there.add(item)
        _add(source, form, found, item.source, about)
        if not stat.S_ISDIR(about.st_mode):
            continue
        at = item.source
        with named_errors(top, at, "listed"):
            for each in walk_below(source, item.source):
                at = each.path
                if each.stat.st_dev != source.device:
                    raise outside(top, each.path)
                _add(source, form, found, each.path, each.stat)
    return found


def _stat(source: Root, path: bytes) -> os.stat_result | None:
    try:
        return source.stat(path)
    except FileNotFoundError:
        return None


def _add(source: Root, form: LayoutForm, found: Survey, path: bytes, about: os.stat_result) -> None:
    if path in found.originals:
        return
    number = kind_of(about)
    if number == OTHER:
        if path not in found.special:
            found.special.append(path)
        return
    item = form.item_of(path)
    found.originals[path] = Original(path, item.target_of(path), Kind(number), about, item)
    if number == Kind.SYMLINK and _leads_elsewhere(source, item, path):
        found.links.append(path)


def _leads_elsewhere(source: Root, item: LayoutItem, path: bytes) -> bool:
    """Whether a symbolic link leads into the source, but not to a place that moves along with it."""
    target, top = source.readlink(path), os.path.realpath(source.path)
    if target.startswith(b"/"):
        return target == top or is_below(posixpath.normpath(target), top)
    reached = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return not reached.startswith(b"..") and not item.covers(reached)


def changed_since(
    source: Root, form: LayoutForm, before: Survey, digests: Mapping[bytes, Digest]
) -> list[bytes]:
    """The paths that are not as they were copied: gone, new, or of other bytes than ``digests`` say."""
    now = survey(source, form)
    changed = sorted(before.originals.keys() ^ now.originals.keys())
    place = Path(os.fsdecode(source.path))
    for path, was in before.originals.items():
        found = now.originals.get(path)
        if found is None or same_stat(found.stat, was.stat):
            continue
        if found.kind is not was.kind or (
            was.kind is not Kind.DIR and digest_beneath(place, path) != digests[path]
        ):
            changed.append(path)
    return changed


def other_bytes(source: Root, before: Survey, digests: Mapping[bytes, Digest]) -> list[bytes]:
    """The files and links whose bytes, read again now, are not the copied ones."""
    place = Path(os.fsdecode(source.path))
    return [
        path
        for path, was in before.originals.items()
        if was.kind is not Kind.DIR and digest_beneath(place, path) != digests[path]
    ]


def delete_originals(source: Root, found: Survey, digests: Mapping[bytes, Digest]) -> Iterator[bytes]:
    """Delete all that was moved, files first. Yields each path that stays: it holds what was not moved, or its bytes
    are others by now."""
    moved = [each for each in found.sorted() if each.item.verb is ItemVerb.MOVE]
    for each in moved:
        if each.kind is not Kind.DIR:
            failpoint(_DELETING)
            if not _deleted(source, each, digests[each.path]):
                yield each.path
    for each in reversed(moved):
        if each.kind is Kind.DIR:
            failpoint(_DELETING)
            parent, name = source.open_parent(each.path)
            source.forget(each.path)
            try:
                os.rmdir(name, dir_fd=parent)
            except OSError as error:
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
                yield each.path


def _deleted(source: Root, each: Original, digest: Digest) -> bool:
    """Delete the very object that was read: held open, hashed, and still under its name."""
    parent, name = source.open_parent(each.path)
    now = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not _is_object(now, each.stat):
        return False
    if each.kind is Kind.FILE:
        with closing_fd(os.open(name, READ, dir_fd=parent)) as fd:
            if not _is_object(os.fstat(fd), each.stat) or digest_fd(fd)[0] != digest:
                return False
    os.unlink(name, dir_fd=parent)
    return True


def _is_object(a: os.stat_result, b: os.stat_result) -> bool:
    """The same inode with the same bytes, as far as a stat shows. Not its ctime: a deleted hard link changes that."""
    return (a.st_dev, a.st_ino, a.st_size, a.st_mtime_ns) == (b.st_dev, b.st_ino, b.st_size, b.st_mtime_ns)
