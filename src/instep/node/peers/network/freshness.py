"""Words of writers about their newest heads: said for the lines that are written here, kept and passed on for others.

Implements the section "Freshness" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from instep.core.heads.vocabulary import WordHeard
from instep.core.heads.words import WordDates, ahead_ms
from instep.errors import PeerError
from instep.model.counts import lasting
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import LineId, NodeName
from instep.model.replication.freshness import EVERY_MIN_MS, VERSION, SignedWord, WordBody, word_id
from instep.net.messages import messages as m
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import moment
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on

SAY_MS = 10_000
"""A writer speaks at least so often, so that a date is worth something between two polls."""
KEEP_MS = 30_000
"""So much older the date in the state may be: not each word is written there."""
STORED = "word/"


class WordListener(Protocol):
    """A connected partner."""

    who: NodeName

    def tell_word(self, service: LineService) -> None:
        """Send the newest word of the line, where the partner may have it."""


class _Stored(msgspec.Struct, frozen=True, array_like=True):
    """A word in the state, and its date by this node's clock; the latest date of all words, and when that arrived."""

    word: SignedWord
    as_of_ms: int
    latest_ms: int = 0
    latest_at_ms: int = 0


@dataclass(slots=True)
class _Heard:
    word: SignedWord
    body: WordBody
    as_of_ms: int
    dates: WordDates = field(default_factory=WordDates)
    source: NodeName | None = None
    stored_ms: int = 0
    is_named: bool = False
    """Whether an event of this run says that its writer's clock is ahead."""


class Freshness:
    """One per node."""

    def __init__(
        self,
        runtime: Runtime,
        lines: Mapping[LineId, LineService],
        skews: Callable[[], Mapping[NodeName, int]],
    ) -> None:
        """``skews`` are the clocks of connected nodes, less this one's."""
        self._runtime, self._lines, self._skews = runtime, lines, skews
        self._heard: dict[LineId, _Heard | None] = {}
        self._own: dict[LineId, SignedWord] = {}
        self.listeners: dict[NodeName, WordListener] = {}
        """Connected partners that understand words."""

    # Saying -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Say again and again which heads of this node's own lines are the newest."""
        while True:
            await asyncio.sleep(self._every_ms() / 1000)
            if self.listeners:
                for service in list(self._lines.values()):
                    if service.is_written_here and self._say(service):
                        self._pass_on(service, None)

    def _every_ms(self) -> int:
        return max(EVERY_MIN_MS, min(SAY_MS, self._runtime.settings.poll_ms))

    def _say(self, service: LineService) -> bool:
        head, line = service.head, service.line
        if head is None or service.writer != self._runtime.name:
            self._own.pop(line, None)
            return False
        every = self._every_ms()
        body = WordBody(
            VERSION, line.fileset, line.origin, head.epoch, head.number, head.id, wall_ms(), every
        )
        raw = body.encoded()
        self._own[line] = SignedWord(raw, self._runtime.pki.sign(word_id(raw)))
        return True

    def of_line(self, service: LineService) -> m.Fresh | None:
        """The newest word for a partner that is connected just now, or to pass on."""
        if service.is_written_here:
            return m.Fresh(service.line, self._own[service.line]) if self._say(service) else None
        heard = self._known(service.line)
        return None if heard is None else m.Fresh(service.line, heard.word)

    def _pass_on(self, service: LineService, source: NodeName | None) -> None:
        for listener in list(self.listeners.values()):
            if listener.who not in (source, service.writer):
                listener.tell_word(service)

    # Hearing ------------------------------------------------------------------------------------------------

    def heard(self, source: NodeName, message: m.Fresh, service: LineService | None) -> None:
        """Keep a word that is news of a followed line, report it to the line, and pass it on."""
        if service is None or service.is_written_here:
            return
        known = self._known(service.line)
        if known is not None and known.word.raw == message.word.raw:
            return
        body = message.word.body()
        if body.line != service.line:
            raise PeerError(
                f"{source} sent a word about {body.line} as one of {service.line}", code="wrong_line"
            )
        now, skew_ms = wall_ms(), self._skews().get(service.writer)
        if known is not None and not known.dates.is_news(body.time_ms, now, skew_ms):
            return
        if not self._is_of_writer(source, message.word, body, service):
            return
        found = known or _Heard(message.word, body, 0)
        found.as_of_ms = found.dates.take(body.time_ms, now, skew_ms)
        found.word, found.body, found.source = message.word, body, source
        self._heard[service.line] = found
        if not found.is_named and self.ahead_ms(service):
            found.is_named = True
            self._name_ahead(service, source)
        self._store(service.line, found)
        self.begun(service)
        self._pass_on(service, source)

    def _name_ahead(self, service: LineService, source: NodeName) -> None:
        ahead, writer = lasting(self.ahead_ms(service)), service.writer
        text = f"{writer} dates its words {ahead} ahead of this clock: they count from their arrival over {source}"
        self._runtime.note_of_peer(writer, "clock_ahead", text, service.line, node=writer)

    def ahead_ms(self, service: LineService) -> int:
        """How far the newest word is dated ahead of this node's clock, where that is more than two clocks may differ:
        nothing shows then for how long the nodes on its way held it back. 0 where it is not."""
        heard = None if service.is_written_here else self._known(service.line)
        if heard is None:
            return 0
        return ahead_ms(heard.body.time_ms, wall_ms(), self._skews().get(service.writer))

    def _is_of_writer(self, source: NodeName, word: SignedWord, body: WordBody, service: LineService) -> bool:
        current = service.facts.epochs.current
        if current is None or body.epoch != current.epoch or service.facts.epochs.disputed is not None:
            return False
        verdict = verdict_on(self._runtime, word.signature, word.id)
        if not verdict.is_valid:
            text = f"refused a word of {word.signature.signer} that {source} sent: {verdict.reason}"
            self._runtime.note_of_peer(source, "refused", text, service.line, code=verdict.code, node=source)
        return verdict.is_valid and not verdict.is_ca and verdict.signer == current.writer

    def begun(self, service: LineService) -> None:
        """A source of the line is connected, or a word is news: the line gets to know the date."""
        heard = self._known(service.line)
        if heard is not None and not service.is_written_here:
            body, age_ms = heard.body, max(0, wall_ms() - heard.as_of_ms)
            position = (body.epoch, body.number)
            service.driver.post(WordHeard(position, age_ms, body.every_ms, moment(heard.as_of_ms) or ""))

    def as_of_ms(self, service: LineService) -> int | None:
        """When the line's writer last said which head is its newest, by this node's clock; None for never, and for a
        line that is written here."""
        heard = None if service.is_written_here else self._known(service.line)
        return None if heard is None else heard.as_of_ms

    # The state ----------------------------------------------------------------------------------------------

    def _known(self, line: LineId) -> _Heard | None:
        if line not in self._heard:
            self._heard[line] = self._stored(line)
        return self._heard[line]

    def _stored(self, line: LineId) -> _Heard | None:
        raw = self._runtime.store.get(f"{STORED}{line}")
        if raw is None:
            return None
        try:
            kept = msgspec.msgpack.decode(raw, type=_Stored)
            body = kept.word.body()
        except (*DECODE_ERRORS, PeerError):
            return None  # of another version: the next word comes soon
        latest = max((body.time_ms, kept.as_of_ms), (kept.latest_ms, kept.latest_at_ms))
        dates = WordDates(body.time_ms, *latest)
        return _Heard(kept.word, body, kept.as_of_ms, dates, stored_ms=kept.as_of_ms)

    def _store(self, line: LineId, heard: _Heard) -> None:
        if abs(heard.as_of_ms - heard.stored_ms) < KEEP_MS:
            return
        heard.stored_ms = heard.as_of_ms
        dates = heard.dates
        kept = _Stored(heard.word, heard.as_of_ms, dates.latest_ms, dates.latest_at_ms)
        raw = msgspec.msgpack.encode(kept)
        self._runtime.deferred.write(("word", line), lambda store: store.put(f"{STORED}{line}", raw))
