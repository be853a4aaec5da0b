"""The stamp of each path of a tree, and a quick look that finds the paths whose stamps are others than before.

A stamp is a hash of what ``lstat`` returns: device, inode, ``ctime``, ``mtime``, size and mode. The interpreter hashes
bytes under a key of its process, so that no file can be given the stamp of another. A scan would believe the row of a
path whose stamp is as before, and so need not be asked: the quick look takes a third of the time of a scan. It sees
every change that a scan by stat sees, also a write through a mapping or through a name outside the tree, which no watch
reports. Paths that a scan does not believe by their stat are ``restless``: they need a scan each time.
"""

from __future__ import annotations

import stat
import struct
from array import array
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from instep.tree.objects.rows import RACY_NS
from instep.tree.root.beneath import Root
from instep.tree.scan.listing import Child, Lister, Problem
from instep.tree.scan.rules import Rules

Former = Callable[[Collection[bytes]], dict[bytes, list[bytes]]]
"""Gives the children that a manifest has in each of these directories, in order."""
RESTLESS_MAX = 10_000
"""With more restless paths no stamps are kept: a scan of everything takes less time. No look holds many more."""
_bytes_of = struct.Struct("<QQqqqI").pack


@dataclass(slots=True)
class Stamps:
    """By directory: a hash of the names of its children, and their stamps in that order. ``now_ns`` is the wall clock
    before the look."""

    now_ns: int
    by_directory: dict[bytes, tuple[int, bytes]] = field(default_factory=dict)
    restless: set[bytes] = field(default_factory=set)

    def saw(self, directory: bytes, children: list[Child]) -> None:
        """Keep a directory as it is listed."""
        oldest_young = self.now_ns - RACY_NS
        marks = array("q")
        for path, found in children:
            if isinstance(found, Problem):
                marks.append(0)
                continue
            mode, changed = found.st_mode, found.st_ctime_ns
            if changed > oldest_young and not stat.S_ISREG(mode):
                self._rests_not(path)  # of a file the scan itself judges that
            try:
                raw = _bytes_of(found.st_dev, found.st_ino, changed, found.st_mtime_ns, found.st_size, mode)
            except struct.error:
                self._rests_not(path)  # a time that no manifest takes
                marks.append(0)
            else:
                marks.append(hash(raw))
        self.by_directory[directory] = _names([path for path, _ in children]), marks.tobytes()

    def _rests_not(self, path: bytes) -> None:
        if len(self.restless) <= RESTLESS_MAX:
            self.restless.add(path)


@dataclass(slots=True)
class QuickLook:
    """``stamps`` are those of now. ``changed`` are paths with another stamp; ``renamed`` are the paths in each
    directory whose names are others than before, or of which no stamps are, or were, kept."""

    stamps: Stamps
    changed: set[bytes] = field(default_factory=set)
    renamed: dict[bytes, list[bytes]] = field(default_factory=dict)

    def paths(self, known: Stamps, former: Former) -> set[bytes]:
        """The paths that need a scan. ``former`` is of the manifest that ``known`` belongs to."""
        found = self.changed | known.restless
        before = former(self.renamed) if self.renamed else {}
        for directory, now in self.renamed.items():
            was, (names, old) = before.get(directory, []), known.by_directory.get(directory, (None, b""))
            if _names(was) != names or directory not in self.stamps.by_directory:
                found.update(was, now)  # a child was there that no manifest has, or the stamps are not kept
                continue
            marks = dict(zip(was, array("q", old), strict=True))
            new = array("q", self.stamps.by_directory[directory][1])
            found.update(path for path, mark in zip(now, new, strict=True) if marks.pop(path, None) != mark)
            found.update(marks)
        return found


def quick_look(root: Root, rules: Rules, known: Stamps, now_ns: int) -> QuickLook:
    """Look at all of the tree by stat, and compare with ``known``."""
    look = QuickLook(Stamps(now_ns))
    lister = Lister(root, rules, look.stamps.saw)
    pending, device = [b""], root.device
    while pending:
        directory = pending.pop()
        try:
            children = list(lister.children(directory))
        except OSError:
            look.changed.add(directory)  # the scan names the reason
            continue
        _compare(look, known, directory, children)
        for path, found in children:
            if not isinstance(found, Problem) and stat.S_ISDIR(found.st_mode) and found.st_dev == device:
                pending.append(path)
    return look


def _compare(look: QuickLook, known: Stamps, directory: bytes, children: list[Child]) -> None:
    was, now = known.by_directory.get(directory), look.stamps.by_directory.get(directory)
    if was is None or now is None or was[0] != now[0]:
        look.renamed[directory] = [path for path, _ in children]
    elif was[1] != now[1]:
        marks = zip(children, array("q", was[1]), array("q", now[1]), strict=True)
        look.changed.update(path for (path, _), old, new in marks if old != new)


def _names(paths: Sequence[bytes]) -> int:
    return hash(b"\0".join(paths))
