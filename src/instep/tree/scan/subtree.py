"""Compare a directory with the entries that a manifest has for it, by stat.

For moves (nothing else may lie in a directory that moves as one) and for the examination of displaced
directories (their drift).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator

import msgspec

from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import sort_key
from instep.tree.objects.fidelity import Local, expected_local
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import closing_fd
from instep.tree.scan.rules import Rules

OTHER = 3
_KINDS = {stat.S_IFREG: 0, stat.S_IFDIR: 1, stat.S_IFLNK: 2}


def kind_of(found: os.stat_result) -> int:
    """0 file, 1 directory, 2 symlink, 3 anything else."""
    return _KINDS.get(stat.S_IFMT(found.st_mode), OTHER)


def is_like(found: os.stat_result, entry: Entry, local: Local) -> bool:
    """Whether a stat is that of ``entry`` as far as a stat can show (not: modes of symlinks, times of directories)."""
    if kind_of(found) != int(entry.kind):
        return False
    if entry.kind is Kind.SYMLINK:
        return found.st_size == entry.size and found.st_mtime_ns == entry.mtime_ns
    if stat.S_IMODE(found.st_mode) != expected_local(entry, local).mode:
        return False
    return entry.kind is Kind.DIR or (found.st_size == entry.size and found.st_mtime_ns == entry.mtime_ns)


class Found(msgspec.Struct, frozen=True, gc=False):
    """One object below a walked directory; ``path`` is relative to the walk's root."""

    path: bytes
    stat: os.stat_result


def walk_below(root: Root, directory: bytes) -> Iterator[Found]:
    """All below ``directory``, in path order; mounts and unreadable directories are named but not entered."""
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
        return [Found(path, found) for path, found in root.stats(directory)]
    except (PermissionError, FileNotFoundError, NotADirectoryError):
        return []  # not ours to read, or gone meanwhile


def holds_ignored(root: Root, rules: Rules, directory: bytes, known_as: bytes | None = None) -> bool:
    """Whether anything ignored, or a directory of another device, lies below ``directory``: then it cannot go with its
    other contents. The rules see ``directory`` as ``known_as``. Names are enough: no file is looked at by stat."""
    shown_as = directory if known_as is None else known_as
    pending = [b""]
    while pending:
        below = pending.pop()
        names = _names(root, directory + below, is_top=not below)
        if names is None:
            return True
        for name, is_dir in names:
            path = b"%b/%b" % (below, name)
            if rules.has_patterns and rules.ignored(shown_as + path, is_dir):
                return True
            if is_dir:
                pending.append(path)
    return False


def _names(root: Root, directory: bytes, *, is_top: bool) -> list[tuple[bytes, bool]] | None:
    """The names in a directory, and which of them are directories. None for one below the top that is of another
    device, whether or not we may read it."""
    try:
        fd = root.open_dir(directory)
    except PermissionError:
        found = root.stat_or_none(directory)
        return [] if is_top or found is None or found.st_dev == root.device else None
    except (FileNotFoundError, NotADirectoryError):
        return []  # gone meanwhile
    except OSError as error:
        if error.errno != errno.EXDEV or is_top:
            raise
        return None
    with closing_fd(fd):
        if not is_top and os.fstat(fd).st_dev != root.device:
            return None
        with os.scandir(fd) as listing:
            return [(os.fsencode(each.name), each.is_dir(follow_symlinks=False)) for each in listing]


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
