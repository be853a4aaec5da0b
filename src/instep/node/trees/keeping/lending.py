"""This node's contents of a line, for the line's writer that lost them: looked up, and handed out in parts.

Only the writer of the line is answered, over the stream that this node opened to it: a line's contents may always go
back to its own writer (P6). A hub between the two shows the writer's warrant. Every other asker gets the same refusal,
whether the contents are here or not.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable

from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import validated
from instep.net.messages import messages as m
from instep.net.messages.lending import PARTS_BYTES_MAX
from instep.tree.archive.contents import Contents


def entry_wanted(want: m.Wanted) -> Entry:
    """The entry that a wanted content stood in, as far as a look-up needs it. ``PeerError`` ``bad_path``."""
    validated(want.path)
    kind = Kind.SYMLINK if want.is_link else Kind.FILE
    return Entry(want.path, kind, 0, want.size, 0, Digest(want.digest), 0)


class Lending:
    """One fileset's contents on this node, kept open between the requests of one restore."""

    def __init__(self, make: Callable[[], Contents]) -> None:
        self._make = make
        self._lock = threading.Lock()
        self._contents: Contents | None = None
        self._stamp = 0

    async def held(self, wants: tuple[m.Wanted, ...]) -> tuple[bool, ...]:
        return await asyncio.to_thread(self._held, wants)

    async def parts(self, wants: tuple[m.PartWant, ...]) -> tuple[m.Part, ...]:
        return await asyncio.to_thread(self._parts, wants)

    def _held(self, wants: tuple[m.Wanted, ...]) -> tuple[bool, ...]:
        with self._lock:
            contents = self._opened(is_new=True)
            entries = [entry_wanted(want) for want in wants]
            missing = {id(entry) for entry in contents.missing_of(entries)}
            return tuple(id(entry) not in missing for entry in entries)

    def _parts(self, wants: tuple[m.PartWant, ...]) -> tuple[m.Part, ...]:
        parts: list[m.Part] = []
        size = 0
        with self._lock:
            contents = self._opened(is_new=False)
            contents.expect(entry_wanted(each.wanted) for each in wants)
            for each in wants:
                if parts and size + each.length > PARTS_BYTES_MAX:
                    break
                data = contents.read(entry_wanted(each.wanted), each.offset, each.length)
                parts.append(m.Part(False) if data is None else m.Part(True, data))
                size += each.length
        return tuple(parts)

    def _opened(self, *, is_new: bool) -> Contents:
        """The contents as they are indexed; indexed anew for a new question, and when a batch came or went."""
        if self._contents is None or is_new or _stamp(self._contents) != self._stamp:
            self._close()
            self._contents = self._make()
            self._stamp = _stamp(self._contents)
        return self._contents

    def _close(self) -> None:
        if self._contents is not None:
            self._contents.close()
            self._contents = None


def _stamp(contents: Contents) -> int:
    try:
        return os.stat(contents.place.archive).st_mtime_ns
    except OSError:
        return 0
