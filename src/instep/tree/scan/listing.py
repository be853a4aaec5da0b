"""List directories in path order for the scan, less ignored paths and our own; the problems of paths and entries."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter

import msgspec

from instep.model.limits import (
    COMPONENT_MAX,
    DEPTH_MAX,
    INLINE_XATTR_MAX,
    PATH_MAX,
    broken_by_path,
    broken_by_stat,
)
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.entry_rules import why_unfit
from instep.model.paths import shown
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import closing_fd
from instep.tree.scan.rules import Rules, is_lost_and_found
from instep.tree.scan.touched import is_reserved

_MANY = 8192
"""Above so many entries in one directory, their stats are taken in slices: a stat takes half a kilobyte."""
_FS_ENCODING = sys.getfilesystemencoding()
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
"""Errors that say no more than: it was removed meanwhile."""
_SPECIAL = {
    stat.S_IFSOCK: ("socket", "sockets are not carried"),
    stat.S_IFIFO: ("pipe", "named pipes are not carried"),
    stat.S_IFCHR: ("device", "devices are not carried"),
    stat.S_IFBLK: ("device", "devices are not carried"),
}


class Problem(msgspec.Struct, frozen=True, gc=False):
    """A path that cannot be an entry. ``what`` is ``damaged``, ``unreadable``, ``unstable``; ``socket``, ``pipe``,
    ``device``, ``mount``; or which limit of ``model.limits`` is broken: ``too_long``, ``too_deep``, ``too_large``,
    ``bad_time``, ``unfit``. ``core.held`` decides about each."""

    path: bytes
    what: str
    detail: str


Child = tuple[bytes, os.stat_result | Problem]
"""A path with its stat, or why there is none."""
Seen = Callable[[bytes, list[Child]], None]
"""Gets each directory as it is listed, with its children; one with very many entries is not handed on."""


class Lister:
    """Lists directories beneath one root."""

    def __init__(self, root: Root, rules: Rules, seen: Seen | None = None) -> None:
        self._root = root
        self._rules = rules
        self._seen = seen

    def children(self, directory: bytes) -> Iterable[Child]:
        """The paths in a directory with their stats, sorted; ignored and vanishing ones are left out."""
        with closing_fd(self._root.open_dir(directory)) as fd:
            names = sorted([name.encode(_FS_ENCODING, "surrogateescape") for name in os.listdir(fd)])
            if len(names) <= _MANY:
                children = self._admitted(directory, _looked_at(fd, directory, names))
                if self._seen is not None:
                    self._seen(directory, children)
                return children
        return self._in_slices(directory, names)

    def _in_slices(self, directory: bytes, names: list[bytes]) -> Iterator[Child]:
        """A directory with very many entries: only names are held for all, stats for some at a time."""
        for start in range(0, len(names), _MANY):
            try:
                fd = self._root.open_dir(directory)
            except OSError as error:
                if error.errno not in GONE:
                    yield directory, unreadable(directory, error)
                return
            with closing_fd(fd):
                children = _looked_at(fd, directory, names[start : start + _MANY])
            yield from self._admitted(directory, children)

    def _admitted(self, directory: bytes, children: list[Child]) -> list[Child]:
        """Without our own and the ignored; over-long paths are problems."""
        if not directory:
            children = [child for child in children if not is_reserved(child[0]) and not _is_of_mkfs(child)]
        if self._rules.has_patterns:
            children = [child for child in children if not self._is_ignored(child)]
        if children and self._may_break_a_limit(directory, children):
            return [_within_limits(child) for child in children]
        return children

    @staticmethod
    def _may_break_a_limit(directory: bytes, children: list[Child]) -> bool:
        """A quick no for nearly every directory."""
        longest = max(map(len, map(itemgetter(0), children))) - len(directory)
        return (
            longest > COMPONENT_MAX
            or len(directory) + 1 + COMPONENT_MAX > PATH_MAX
            or (len(directory) > DEPTH_MAX and directory.count(b"/") + 2 > DEPTH_MAX)
        )

    def _is_ignored(self, child: Child) -> bool:
        path, found = child
        return self._rules.ignored(path, not isinstance(found, Problem) and stat.S_ISDIR(found.st_mode))


def _is_of_mkfs(child: Child) -> bool:
    path, found = child
    return not isinstance(found, Problem) and is_lost_and_found(path, found)


def _looked_at(fd: int, directory: bytes, names: list[bytes]) -> list[Child]:
    prefix = directory + b"/" if directory else b""
    children: list[Child] = []
    for name in names:
        path = prefix + name
        try:
            children.append((path, os.stat(name, dir_fd=fd, follow_symlinks=False)))
        except OSError as error:
            if error.errno not in GONE:
                children.append((path, unreadable(path, error)))
    return children


NOT_KEPT = {
    errno.ENOSPC: "no space is left to keep its contents in the history",
    errno.EDQUOT: "the quota leaves no space to keep its contents in the history",
    errno.EROFS: "its contents cannot be kept, because the file system of the history is read-only",
}
"""Reading never fails so: the scan's own copy could not be written."""


def special(path: bytes, kind: int) -> Problem:
    """An object of a kind that is not carried; ``kind`` is of the mode's file type bits."""
    return Problem(path, *_SPECIAL.get(kind, ("device", "its kind is unknown")))


def unreadable(path: bytes, error: OSError) -> Problem:
    if error.errno == errno.ENAMETOOLONG:
        return Problem(path, "too_long", f"its path is {len(path)} bytes long, more than this system opens")
    return Problem(path, "unreadable", NOT_KEPT.get(error.errno or 0) or error.strerror or str(error))


def _within_limits(child: Child) -> Child:
    broken = broken_by_path(child[0])
    return child if broken is None else (child[0], Problem(child[0], *broken))


def unfit(entry: Entry, *, is_own: bool = False) -> Problem | None:
    """An entry that no receiver would take: its time breaks a limit, or its other metadata breaks a rule. ``is_own``:
    it is about to be published, so that its partners must be able to fetch all of it."""
    broken = broken_by_stat(entry.size, entry.mtime_ns)
    if broken is not None:
        return Problem(entry.path, *broken)
    if entry.extra is None and entry.kind is not Kind.SYMLINK:
        return None
    why = why_unfit(entry)
    if why is not None:
        return Problem(entry.path, "unfit", f"it {why}")
    if not is_own or entry.extra is None or not entry.extra.large_xattrs:
        return None
    # No history keeps the value and no partner fetches it, so it is refused before it is signed.
    name, _, size = entry.extra.large_xattrs[0]
    reason = f"its attribute {shown(name)} has {size} bytes; at most {INLINE_XATTR_MAX} are carried"
    return Problem(entry.path, "unfit", reason)
