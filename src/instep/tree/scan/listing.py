"""List directories in path order for the scan; ignored paths and our own are left out."""

from __future__ import annotations

import errno
import os
import stat
import sys
from collections.abc import Iterable, Iterator
from operator import itemgetter

import msgspec

from instep.model.limits import COMPONENT_MAX, DEPTH_MAX, PATH_MAX, broken_by_path
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import closing_fd
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import is_reserved

_MANY = 8192
"""Above so many entries in one directory, their stats are taken in slices: a stat takes half a kilobyte."""
_FS_ENCODING = sys.getfilesystemencoding()
GONE = (errno.ENOENT, errno.ENOTDIR, errno.ESTALE)
"""Errors that say no more than: it was removed meanwhile."""


class Problem(msgspec.Struct, frozen=True, gc=False):
    """A path that cannot be an entry. ``what`` is ``damaged``, ``unreadable``, ``unstable``; ``socket``, ``pipe``,
    ``device``, ``mount``; or which limit of ``model.limits`` is broken: ``too_long``, ``too_deep``, ``too_large``,
    ``bad_time``, ``unfit``. ``core.held`` decides about each."""

    path: bytes
    what: str
    detail: str


Child = tuple[bytes, os.stat_result | Problem]
"""A path with its stat, or why there is none."""


class Lister:
    """Lists directories beneath one root."""

    def __init__(self, root: Root, rules: Rules) -> None:
        self._root = root
        self._rules = rules

    def children(self, directory: bytes) -> Iterable[Child]:
        """The paths in a directory with their stats, sorted; ignored and vanishing ones are left out."""
        with closing_fd(self._root.open_dir(directory)) as fd:
            with os.scandir(fd) as listing:
                found = list(listing)
            if len(found) > _MANY:
                names = sorted(each.name.encode(_FS_ENCODING, "surrogateescape") for each in found)
                return self._in_slices(directory, names)
            prefix = directory + b"/" if directory else b""
            children: list[Child] = []
            for each in found:
                path = prefix + each.name.encode(_FS_ENCODING, "surrogateescape")
                try:
                    children.append((path, each.stat(follow_symlinks=False)))
                except OSError as error:
                    if error.errno not in GONE:
                        children.append((path, unreadable(path, error)))
        children.sort(key=itemgetter(0))
        return self._admitted(directory, children)

    def _in_slices(self, directory: bytes, names: list[bytes]) -> Iterator[Child]:
        """A directory with very many entries: only names are held for all, stats for some at a time."""
        prefix = directory + b"/" if directory else b""
        for start in range(0, len(names), _MANY):
            children: list[Child] = []
            try:
                fd = self._root.open_dir(directory)
            except OSError as error:
                if error.errno not in GONE:
                    yield directory, unreadable(directory, error)
                return
            with closing_fd(fd):
                for name in names[start : start + _MANY]:
                    path = prefix + name
                    try:
                        children.append((path, os.stat(name, dir_fd=fd, follow_symlinks=False)))
                    except OSError as error:
                        if error.errno not in GONE:
                            children.append((path, unreadable(path, error)))
            yield from self._admitted(directory, children)

    def _admitted(self, directory: bytes, children: list[Child]) -> list[Child]:
        """Without our own and the ignored; over-long paths are problems."""
        if not directory:
            children = [child for child in children if not is_reserved(child[0])]
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


NOT_KEPT = {
    errno.ENOSPC: "no space is left to keep its contents in the history",
    errno.EDQUOT: "the quota leaves no space to keep its contents in the history",
    errno.EROFS: "its contents cannot be kept, because the file system of the history is read-only",
}
"""Reading never fails so: the scan's own copy could not be written."""


def unreadable(path: bytes, error: OSError) -> Problem:
    if error.errno == errno.ENAMETOOLONG:
        return Problem(path, "too_long", f"its path is {len(path)} bytes long, more than this system opens")
    return Problem(path, "unreadable", NOT_KEPT.get(error.errno or 0) or error.strerror or str(error))


def _within_limits(child: Child) -> Child:
    broken = broken_by_path(child[0])
    return child if broken is None else (child[0], Problem(child[0], *broken))
