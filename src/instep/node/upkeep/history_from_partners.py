"""Contents that a writer's history lost and that this node has nowhere else, asked of the line's partners by itself.

A partner answers from its tree, history and archive, as it does for a restore. The work is bounded: a round has a
deadline and a limit of contents and bytes, it rests while something is published, and the next one comes later and
later for as long as nothing comes back.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import tempfile
from collections.abc import Iterator, Sequence

from instep.errors import InstepError, UnavailableError
from instep.model.counts import counted, which
from instep.model.ids import Digest, FilesetName
from instep.model.manifest.entry import Entry
from instep.node.lines.line_service import LineService
from instep.node.lines.partner_contents import PartnerContents
from instep.node.node import Node
from instep.node.upkeep.mending import Mending
from instep.tree.archive.history import History
from instep.tree.root.control_folder import open_folder
from instep.tree.stage.stage import Want

FIRST_S = 1.0
MOST_S = 900.0
ROUND_S = 300.0
ROUND_BYTES_S = 8 << 20
"""A round has so much more time for each of its bytes: a single large content is hashed by a partner, then sent."""
ROUND_CONTENTS = 4_096
ROUND_BYTES = 256 << 20
BATCH_CONTENTS = 256
BATCH_BYTES = 4 << 20
REST_S = 0.2
log = logging.getLogger(__name__)


class HistoryFromPartners:
    """One task for each fileset whose history has lost contents; it ends when all of them are back."""

    def __init__(self, node: Node, mending: Mending) -> None:
        self._node = node
        self._mending = mending
        self._tasks: dict[FilesetName, asyncio.Task[None]] = {}
        self._at: dict[FilesetName, int] = {}
        """Where among the lost contents the next round begins: a content that no partner has does not hide the rest."""

    def begin(self, service: LineService) -> None:
        """Fetch the contents that the last look found lost; does nothing while that is under way already."""
        name = service.fileset.name
        task = self._tasks.get(name)
        if task is not None and task.done():
            del self._tasks[name]
            task.result()
            task = None
        if task is None and self._lost(service):
            self._tasks[name] = asyncio.get_running_loop().create_task(self._chase(service))

    async def close(self) -> None:
        """Stop; fetched contents are kept."""
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)
        self._tasks.clear()

    def _lost(self, service: LineService) -> list[Entry]:
        """Nothing once another service took the place of this one."""
        name = service.fileset.name
        mended = self._mending.found.get(name)
        return mended.lost if mended is not None and self._node.services.get(name) is service else []

    async def _chase(self, service: LineService) -> None:
        pause = FIRST_S
        while self._lost(service):
            await asyncio.sleep(pause)
            try:
                came = await self._round(service)
            except (InstepError, OSError) as error:
                log.warning("lost contents of %s did not come back from partners: %s", service.line, error)
                came = False
            pause = FIRST_S if came else min(pause * 2, MOST_S)

    async def _round(self, service: LineService) -> bool:
        """Ask for some of the lost contents, and take those that come; whether any came."""
        partners = PartnerContents(service.line, service.lenders())
        wanted = self._some(service) if partners.asked else []
        if not wanted:
            return False
        shelf = _Shelf(service.tree.history)
        within_s = ROUND_S + sum(entry.size for entry in wanted) / ROUND_BYTES_S
        try:
            async with asyncio.timeout(within_s):
                await partners.locate(wanted)
                await self._fetch(service, partners, shelf, [e for e in wanted if partners.who_has(e)])
        except TimeoutError:
            log.info(
                "%s: lost contents: the round ends after %.0f s, the next goes on", service.line, within_s
            )
        left = await service.worker.run(self._left, service)
        self._mending.found[service.fileset.name].lost = left
        if shelf.laid:
            who = sorted(partners.gave)
            text = (
                f"{counted(shelf.laid, 'content')} that the history had lost came back from {', '.join(who)}"
            )
            if left:
                text += f"; {len(left)} {which(len(left), 'is', 'are')} still lost"
            self._node.runtime.note("history_mended", text, service.line, contents=shelf.laid, nodes=who)
        return shelf.laid > 0

    def _some(self, service: LineService) -> list[Entry]:
        lost = self._lost(service)
        start = self._at.get(service.fileset.name, 0) % max(1, len(lost))
        some: list[Entry] = []
        size = 0
        for entry in (*lost[start:], *lost[:start]):
            size += entry.size
            if some and (size > ROUND_BYTES or len(some) >= ROUND_CONTENTS):
                break
            some.append(entry)
        self._at[service.fileset.name] = start + len(some)
        return some

    async def _fetch(
        self, service: LineService, partners: PartnerContents, shelf: _Shelf, entries: Sequence[Entry]
    ) -> None:
        for batch in _batches(entries):
            while service.machine.phase is not None:  # publishing comes first
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(REST_S):
                        await self._node.runtime.changed.wait()
            wants = [Want(Digest(b""), 0, entry, 0, b"") for entry in batch]
            try:
                await partners.lay(shelf, wants, service.worker)
            except UnavailableError as error:
                log.info("%s: %s", service.line, error.reason)

    def _left(self, service: LineService) -> list[Entry]:
        history = service.tree.history
        history.sync()
        return [entry for entry in self._lost(service) if not history.has(entry.digest)]


class _Shelf:
    """A history as the place where fetched contents are laid: each is verified before it counts."""

    def __init__(self, history: History) -> None:
        self.history = history
        self.laid = 0

    def lay(self, want: Want, data: bytes) -> None:
        self.history.put(want.digest, data)
        self.laid += 1

    def large(self, want: Want) -> _Large:
        return _Large(self, want.entry)


class _Large:
    """A large content on its way, in a file without a name on the history's own file system."""

    def __init__(self, shelf: _Shelf, entry: Entry) -> None:
        self._shelf = shelf
        self._entry = entry
        self._missing = [(0, entry.size)]
        folder = open_folder(shelf.history.place, b"history")
        try:
            self._file = tempfile.TemporaryFile(dir=f"/proc/self/fd/{folder}")  # noqa: SIM115 - ``close`` closes it
        finally:
            os.close(folder)

    def missing(self, limit: int) -> list[tuple[int, int]]:
        missing, self._missing = self._missing, []
        return missing

    def write(self, offset: int, data: bytes) -> None:
        self._file.seek(offset)
        self._file.write(data)

    def finish(self) -> None:
        self._file.flush()
        self._shelf.history.put_file(self._entry.digest, self._file.fileno(), self._entry.size)
        self._shelf.laid += 1

    def close(self) -> None:
        self._file.close()


def _batches(entries: Sequence[Entry]) -> Iterator[list[Entry]]:
    batch: list[Entry] = []
    size = 0
    for entry in entries:
        if batch and (len(batch) >= BATCH_CONTENTS or size + entry.size > BATCH_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(entry)
        size += entry.size
    if batch:
        yield batch
