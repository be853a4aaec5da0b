"""A hub's own partners, asked for contents that the line's writer lost and that the hub has not.

The writer's warrant goes along, so that a partner behind the hub knows for which node it is asked. A partner that does
not answer, or refuses, counts as one that has nothing: the writer gets what the hub has in any case.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence

from instep.errors import InstepError
from instep.model.ids import Digest, LineId, NodeName
from instep.net.messages import messages as m
from instep.net.messages.lending import PARTS_BYTES_MAX
from instep.node.peers.peer_context import BehindLender, PeerContext
from instep.node.peers.questions.warrants import HAS_S, PARTS_S, reading_s

FORWARD_S = 8.0
"""A partner that answers at all has answered by then; the time to read the contents comes on top."""
SHARE = 0.5
"""So much of the time that is left to the asker its question may take one step further."""
LEAST_S = 1.0
"""With less than that a question is not passed on."""
KNOWN_MAX = 65_536
log = logging.getLogger(__name__)


class Forwarding:
    """One for each sender. Remembers which partner has what it was asked for, for the parts that are asked for next."""

    def __init__(self, peers: PeerContext, asker: NodeName) -> None:
        self._peers = peers
        self._asker = asker
        self._has: OrderedDict[tuple[LineId, Digest], list[NodeName]] = OrderedDict()

    async def held(self, request: m.HasRequest, mine: Sequence[bool], began_s: float) -> tuple[bool, ...]:
        """Our own answer, and true for each content besides that a partner has."""
        missing = {
            want.digest: want for want, is_there in zip(request.wants, mine, strict=True) if not is_there
        }
        for digest in missing:
            self._has.pop((request.line, Digest(digest)), None)
        wants = tuple(missing.values())
        within_s = _left(request.within_ms, HAS_S, began_s, wants)
        if wants and within_s >= LEAST_S:
            lenders = self._lenders(request.line, request.warrant)
            await asyncio.gather(*(self._ask(lender, request, wants, within_s) for lender in lenders))
        pairs = zip(request.wants, mine, strict=True)
        return tuple(is_there or bool(self._who_has(request.line, want)) for want, is_there in pairs)

    async def parts(
        self, request: m.PartsRequest, mine: Sequence[m.Part], began_s: float
    ) -> tuple[m.Part, ...]:
        """Our own parts, and those that a partner has where ours are missing; as many as fit an answer."""
        filled = list(mine)
        for name, lender in self._lenders_by_name(request).items():
            asked = [
                index
                for index, part in enumerate(filled)
                if not part.is_there and name in self._who_has(request.line, request.wants[index].wanted)
            ]
            wants = tuple(request.wants[index] for index in asked)
            within_s = _left(request.within_ms, PARTS_S, began_s, [want.wanted for want in wants])
            if not wants or within_s < LEAST_S:
                continue
            try:
                found = await lender.parts(request.line, wants, warrant=request.warrant, within_s=within_s)
            except InstepError as error:
                log.info("%s gives no contents of %s: %s", name, request.line, error.reason)
                continue
            for index, part in zip(asked, found, strict=False):
                if part.is_there and len(part.data) == request.wants[index].length:
                    filled[index] = part
                elif name in (known := self._who_has(request.line, request.wants[index].wanted)):
                    known.remove(name)  # several parts of one content say so once
            if len(found) < len(asked):
                del filled[max(1, asked[len(found)]) :]
        return _fitting(filled)

    async def _ask(
        self, lender: BehindLender, request: m.HasRequest, wants: tuple[m.Wanted, ...], within_s: float
    ) -> None:
        try:
            held = await lender.held(request.line, wants, warrant=request.warrant, within_s=within_s)
        except InstepError as error:
            log.info("%s does not say what it has of %s: %s", lender.who, request.line, error.reason)
            return
        for want, is_there in zip(wants, held, strict=True):
            if is_there:
                self._has.setdefault((request.line, Digest(want.digest)), []).append(lender.who)
        while len(self._has) > KNOWN_MAX:
            self._has.popitem(last=False)

    def _who_has(self, line: LineId, want: m.Wanted) -> list[NodeName]:
        return self._has.get((line, Digest(want.digest)), [])

    def _lenders(self, line: LineId, warrant: m.Warrant | None) -> list[BehindLender]:
        if warrant is None or warrant.via != self._peers.runtime.name:
            return []  # a node behind another hub was asked: it may not ask further
        lenders = self._peers.lenders(line)
        return [each for each in lenders if each.who != self._asker and "warrant" in each.hello.takes]

    def _lenders_by_name(self, request: m.PartsRequest) -> dict[NodeName, BehindLender]:
        return {lender.who: lender for lender in self._lenders(request.line, request.warrant)}


def _left(asked_ms: int, usual_s: float, began_s: float, wants: Sequence[m.Wanted]) -> float:
    """The time for one step further, always below what is left to the asker."""
    asked_s = asked_ms / 1000 if asked_ms else usual_s
    left_s = asked_s - (asyncio.get_running_loop().time() - began_s)
    return min(FORWARD_S + reading_s(wants), left_s * SHARE)


def _fitting(parts: Sequence[m.Part]) -> tuple[m.Part, ...]:
    """As many as one answer can hold, and at least one."""
    fitting: list[m.Part] = []
    size = 0
    for part in parts:
        size += len(part.data)
        if fitting and size > PARTS_BYTES_MAX:
            break
        fitting.append(part)
    return tuple(fitting)
