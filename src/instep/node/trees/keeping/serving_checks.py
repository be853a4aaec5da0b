"""The records that the shelf of one fileset keeps between requests, so that it never sends wrong bytes a second time.

A large file of the tree whose size and time are right is sent as it lies there, and the asker verifies it: hashing it
before each request would cost more than it finds. An asker that got wrong bytes asks for them again. So a file that
is asked for a second time is hashed first. Contents of the history and the archive are always hashed before they are
sent.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from enum import Enum
from typing import NamedTuple

from instep.model.ids import Digest, LineId, NodeName
from instep.model.manifest.entry import Entry
from instep.model.paths import shown
from instep.node.runtime.driver import monotonic_ms
from instep.node.runtime.runtime import Runtime
from instep.tree.archive.contents import readable_digest

RIGHT_FOR_MS = 600_000
"""So long a file that was hashed counts as right while its stat stays the same."""
RIGHT_MAX = 4_096
ASKED_FOR_MS = 3_600_000
ASKED_MAX = 1_024
RANGES_MAX = 16_384
"""Of more ranges of one content, only the whole stretch is kept."""

Range = tuple[int, int]


class Where(Enum):
    """The places of a fileset on this node in which contents lie."""

    TREE = "tree"
    HISTORY = "history"
    ARCHIVE = "archive"


class _Stat(NamedTuple):
    dev: int
    ino: int
    size: int
    mtime_ns: int
    ctime_ns: int
    digest: Digest


class ServingChecks:
    """For several threads at once. ``rotten`` receives the entry of each file of the tree that holds other bytes under
    an unchanged stat."""

    def __init__(self, rotten: Callable[[Entry], None], now_ms: Callable[[], int] = monotonic_ms) -> None:
        self.rotten = rotten
        self._now_ms = now_ms
        self._lock = threading.Lock()
        self._right: OrderedDict[_Stat, int] = OrderedDict()
        self._asked: OrderedDict[tuple[NodeName, Digest], tuple[int, list[Range]]] = OrderedDict()

    def is_right(self, fd: int, entry: Entry, *, is_again: bool) -> bool:
        """Whether ``fd`` holds the entry's contents; hashed unless that was done a short time ago, and always when they
        are asked for again."""
        found = os.fstat(fd)
        if found.st_size != entry.size:
            return False
        key = _Stat(
            found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns, entry.digest
        )
        now = self._now_ms()
        with self._lock:
            at = self._right.get(key)
        if at is not None and now - at < RIGHT_FOR_MS and not is_again:
            return True
        if readable_digest(fd) != entry.digest:
            return False
        with self._lock:
            self._right[key] = now
            self._right.move_to_end(key)
            while len(self._right) > RIGHT_MAX:
                self._right.popitem(last=False)
        return True

    def is_again(self, who: NodeName, entry: Entry, ranges: Sequence[Range]) -> bool:
        """Whether ``who`` asked for some of these bytes within the last hour."""
        key, now = (who, entry.digest), self._now_ms()
        mine = sorted((offset, offset + length) for offset, length in ranges)
        with self._lock:
            at, before = self._asked.pop(key, (now, []))
            if now - at > ASKED_FOR_MS:
                before = []
            is_again = _overlap(before, mine)
            both = before if is_again else sorted(before + mine)
            self._asked[key] = now, both if len(both) <= RANGES_MAX else [(both[0][0], both[-1][1])]
            while len(self._asked) > ASKED_MAX:
                self._asked.popitem(last=False)
        return is_again


def _overlap(some: Sequence[Range], others: Sequence[Range]) -> bool:
    """Of two sorted rows of ``(begin, end)``."""
    i = j = 0
    while i < len(some) and j < len(others):
        if some[i][1] <= others[j][0]:
            i += 1
        elif others[j][1] <= some[i][0]:
            j += 1
        else:
            return True
    return False


def note_rotten(runtime: Runtime, line: LineId, path: bytes) -> None:
    """Name a file of the tree that was to be sent and holds other bytes than its generation says."""
    text = (
        f"{shown(path)} has other bytes than its generation under an unchanged time and size: it is not sent"
    )
    runtime.note("file_damaged", text, line, path=shown(path))
