"""Compare a directory with the entries that a manifest has for it, by stat: is it what it should be?

For moves (nothing else may lie in a directory that is to move as one) and for the examination of displaced
directories (what in them was drift).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass

from instep.model.entry import Entry, Kind
from instep.model.ids import Digest
from instep.model.manifest import GetPage, iterate
from instep.model.paths import is_below, sort_key
from instep.tree.beneath import Root
from instep.tree.fidelity import Local, expected_local
from instep.tree.rules import Rules

__all__ = [
    "Found",
    "entries_below",
    "holds_ignored",
    "is_like",
    "kind_of",
    "subtree_differences",
    "walk_below",
]

OTHER = 3
_KINDS = {stat.S_IFREG: 0, stat.S_IFDIR: 1, stat.S_IFLNK: 2}


def kind_of(found: os.stat_result) -> int:
    """0 file, 1 directory, 2 symlink, 3 anything else."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), OTHER)


def is_like(found: os.stat_result, entry: Entry, local: Local) -> bool:
    """Whether a stat is that of ``entry`` as far as a stat can tell (not: modes of symlinks, times of directories)."""
    if kind_of(found) != int(entry.kind):
        return False
    if entry.kind is Kind.SYMLINK:
        return found.st_size == entry.size and found.st_mtime_ns == entry.mtime_ns
    if stat.S_IMODE(found.st_mode) != expected_local(entry, local).mode:
        return False
    return entry.kind is Kind.DIR or (found.st_size == entry.size and found.st_mtime_ns == entry.mtime_ns)


@dataclass(frozen=True, slots=True)
class Found:
    """One object below a walked directory; ``path`` is relative to the walk's root."""

    path: bytes
    stat: os.stat_result


def walk_below(root: Root, directory: bytes) -> Iterator[Found]:
    """All below ``directory``, in path order; mounts are named but not entered, nor is what we may not read."""
    pending = [iter(_listed(root, directory))]
    while pending:
        found = next(pending[-1], None)
        if found is None:
            pending.pop()
            continue
        yield found
        if stat.S_ISDIR(found.stat.st_mode) and found.stat.st_dev == root.device:
            pending.append(iter(_listed(root, found.path)))


def _listed(root: Root, directory: bytes) -> list[Found]:
    try:
        fd = root.open_dir(directory)
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return []  # not ours to read, or gone meanwhile
    prefix = directory + b"/" if directory else b""
    listed: list[Found] = []
    try:
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            try:
                listed.append(Found(prefix + name, os.stat(name, dir_fd=fd, follow_symlinks=False)))
            except FileNotFoundError:
                continue  # gone meanwhile
    finally:
        os.close(fd)
    return listed


def holds_ignored(root: Root, rules: Rules, directory: bytes) -> bool:
    """Whether anything ignored, or a mount, lies below ``directory``: then it cannot go with its other contents."""
    for found in walk_below(root, directory):
        if found.stat.st_dev != root.device:
            return True
        if rules.has_patterns and rules.ignored(found.path, stat.S_ISDIR(found.stat.st_mode)):
            return True
    return False


def entries_below(manifest: Digest, directory: bytes, get_page: GetPage) -> Iterator[Entry]:
    """The manifest's entries below ``directory``, in order."""
    for entry in iterate(manifest, get_page, after=directory):
        if not is_below(entry.path, directory):
            return
        yield entry


def subtree_differences(
    found: Iterator[Found], at: bytes, entries: Iterator[Entry], directory: bytes
) -> Iterator[tuple[bytes, Found | None, Entry | None]]:
    """Merge what was found below ``at`` with the entries below ``directory``: ``(relative path, found, entry)``
    of every pair, one of them None where only one side has the path. The caller judges pairs by ``is_like``."""
    seen, entry = next(found, None), next(entries, None)
    while seen is not None or entry is not None:
        seen_path = seen.path[len(at) + 1 :] if seen is not None else b""
        entry_path = entry.path[len(directory) + 1 :] if entry is not None else b""
        if entry is None or (seen is not None and sort_key(seen_path) < sort_key(entry_path)):
            yield seen_path, seen, None
            seen = next(found, None)
        elif seen is None or sort_key(entry_path) < sort_key(seen_path):
            yield entry_path, None, entry
            entry = next(entries, None)
        else:
            yield seen_path, seen, entry
            seen, entry = next(found, None), next(entries, None)
