"""Contents that a writer asks its partners for, over the streams that they opened: which partner has which, and the
bytes."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Protocol

from instep.errors import DamagedError, InstepError, PeerError, UnavailableError
from instep.model.ids import Digest, LineId, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import shown
from instep.net.messages import messages as m
from instep.net.messages.lending import HAS_MAX, PARTS_BYTES_MAX, PARTS_MAX
from instep.node.lines.line_net import Lender
from instep.node.runtime.runtime import Worker
from instep.tree.stage.stage import Want

log = logging.getLogger(__name__)

REQUEST_BYTES = 1 << 20
"""Paths in one request, together."""
LOOKED_AT_BYTES = 4 << 30
"""Contents that one request has a partner hash, together, so that an honest one answers within its deadline."""


class LargeTarget(Protocol):
    """One large content on its way: parts are written where it misses some, then it is checked as a whole."""

    def missing(self, limit: int, /) -> list[tuple[int, int]]: ...

    def write(self, offset: int, data: bytes, /) -> None: ...

    def finish(self) -> None: ...

    def close(self) -> None: ...


class Target(Protocol):
    """Where fetched contents are laid: a stage, or a history. Each is verified as it is laid."""

    def lay(self, want: Want, data: bytes, /) -> None: ...

    def large(self, want: Want, /) -> LargeTarget: ...


def wanted(entry: Entry) -> m.Wanted:
    """How a content is asked for."""
    return m.Wanted(entry.digest, entry.size, entry.path, entry.kind is Kind.SYMLINK)


class PartnerContents:
    """Where contents are, among these partners; made for one restore. A partner that does not answer, or whose answer
    is wrong, is left out from then on, and the next that has the content is asked."""

    def __init__(self, line: LineId, lenders: Sequence[Lender]) -> None:
        self._line = line
        self._lenders = {lender.who: lender for lender in lenders}
        self.asked = tuple(lender.who for lender in lenders)
        self._has: dict[Digest, list[NodeName]] = {}
        self.failures: dict[NodeName, str] = {}
        """Why a partner was left out."""
        self.fetched_bytes = 0
        self.gave: set[NodeName] = set()
        """The partners of which contents were laid."""

    async def locate(self, entries: Sequence[Entry]) -> None:
        """Ask every partner at once which of these contents it has."""
        await asyncio.gather(*(self._ask(lender, entries) for lender in list(self._lenders.values())))

    async def _ask(self, lender: Lender, entries: Sequence[Entry]) -> None:
        for batch in _batches(entries, LOOKED_AT_BYTES, HAS_MAX):
            try:
                held = await lender.held(self._line, tuple(wanted(entry) for entry in batch))
            except InstepError as error:
                self.leave_out(lender.who, error.reason)
                return
            for entry, is_there in zip(batch, held, strict=True):
                who = self._has.setdefault(entry.digest, [])
                if is_there and lender.who not in who:
                    who.append(lender.who)

    def who_has(self, entry: Entry) -> tuple[NodeName, ...]:
        """The partners that said they have it, and were not left out since."""
        return tuple(name for name in self._has.get(entry.digest, ()) if name in self._lenders)

    def leave_out(self, who: NodeName, reason: str) -> None:
        """Ask this partner no more."""
        self._lenders.pop(who, None)
        self.failures[who] = reason
        log.info("%s: %s is not asked for contents any more: %s", self._line, who, reason)

    # --- fetching -------------------------------------------------------------------------------------------------

    async def lay(self, stage: Target, wants: Sequence[Want], worker: Worker) -> None:
        """Get these and lay them, each verified as it is laid. ``UnavailableError`` ``contents_missing`` when no
        partner gave one of them."""
        left = [want for want in wants if not want.is_large]
        while left:
            who = self._first(left)
            mine = [want for want in left if who in self.who_has(want.entry)]
            left = [want for want in left if who not in self.who_has(want.entry)]
            left += await self._small(who, mine, stage, worker)
        for want in wants:
            if want.is_large:
                await self._large(want, stage, worker)

    def _first(self, wants: Sequence[Want]) -> NodeName:
        who = self.who_has(wants[0].entry)
        if not who:
            raise _gone(self._line.fileset, wants[0].entry, self.failures)
        return who[0]

    async def _small(self, who: NodeName, wants: Sequence[Want], stage: Target, worker: Worker) -> list[Want]:
        """Lay the contents that ``who`` gives; return the wants that it did not give."""
        left = list(wants)
        while left:
            batch = left[: len(next(_batches([want.entry for want in left], PARTS_BYTES_MAX, PARTS_MAX)))]
            asked = tuple(m.PartWant(wanted(want.entry), 0, want.entry.size) for want in batch)
            try:
                parts = await self._lenders[who].parts(self._line, asked)
                for want, part in zip(batch, parts, strict=False):
                    if not part.is_there:
                        self._has[want.entry.digest].remove(who)
                        return left
                    await worker.run(stage.lay, want, part.data)
                    self.gave.add(who)
                    self.fetched_bytes += len(part.data)
                    left.remove(want)
                if not parts:
                    raise PeerError(f"{who} answered without any part", code="bad_answer")
            except (PeerError, UnavailableError, DamagedError) as error:
                self.leave_out(who, error.reason)
                return left
        return left

    async def _large(self, want: Want, stage: Target, worker: Worker) -> None:
        for who in self.who_has(want.entry):
            large = await worker.run(stage.large, want)
            try:
                await self.read(who, want.entry, large.missing, large.write, worker)
                await worker.run(large.finish)
                self.gave.add(who)
                return
            except (PeerError, UnavailableError, DamagedError) as error:
                self.leave_out(who, error.reason)
            finally:
                await asyncio.shield(worker.run(large.close))
        raise _gone(self._line.fileset, want.entry, self.failures)

    async def read(
        self,
        who: NodeName,
        entry: Entry,
        missing: Callable[[int], list[tuple[int, int]]],
        write: Callable[[int, bytes], None],
        worker: Worker,
    ) -> None:
        """The parts of one large file that are missing, from one partner; the caller verifies the whole."""
        while ranges := await worker.run(missing, PARTS_MAX):
            for offset, length in _pieces(ranges):
                asked = (m.PartWant(wanted(entry), offset, length),)
                parts = await self._lenders[who].parts(self._line, asked)
                if not parts or not parts[0].is_there or len(parts[0].data) != length:
                    raise UnavailableError(
                        f"{who} no longer has the contents of {shown(entry.path)}",
                        code="superseded",
                        node=who,
                    )
                await worker.run(write, offset, parts[0].data)
                self.fetched_bytes += length


def _pieces(ranges: Sequence[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    for offset, length in ranges:
        for start in range(offset, offset + length, PARTS_BYTES_MAX):
            yield start, min(PARTS_BYTES_MAX, offset + length - start)


def _batches(entries: Sequence[Entry], bytes_max: int, count_max: int) -> Iterator[Sequence[Entry]]:
    """As many as one request can name and one answer can hold, and at least one."""
    start = names = size = 0
    for at, entry in enumerate(entries):
        names += len(entry.path)
        size += entry.size
        if at > start and (names > REQUEST_BYTES or size > bytes_max or at - start >= count_max):
            yield entries[start:at]
            start, names, size = at, len(entry.path), entry.size
    if start < len(entries):
        yield entries[start:]


def _gone(fileset: str, entry: Entry, failures: Mapping[NodeName, str]) -> UnavailableError:
    why = "".join(f"; {who}: {reason}" for who, reason in sorted(failures.items()))
    return UnavailableError(
        f"the contents of {shown(entry.path)} could not be fetched from any partner{why}",
        hint=f"repeat the command when a partner that has them is connected; see which: instep log {fileset}",
        code="contents_missing",
        paths=[shown(entry.path)],
    )
