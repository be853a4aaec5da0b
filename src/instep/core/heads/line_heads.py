"""The part of a machine that finds the newest generation of a line: which sources have it, which to ask and when."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, ClassVar, assert_never

from instep.core.backoff import Chance
from instep.core.facts_book import EffectT, FactsT
from instep.core.heads import vocabulary as h
from instep.core.heads.sources import Sources, SourceState
from instep.core.heads.stand import Stand
from instep.core.heads.words import WordBook
from instep.core.line_machine import ConfigT, LineMachine, PhaseT, ReportT
from instep.core.lines.accept import AcceptedHead, KnownRecord, OldRecord, Refused, judge_head
from instep.core.vocabulary import EpochSeen, KeepGeneration, Refuse, SetTimer, Trouble
from instep.errors import Retry
from instep.model.ids import HeadRef, LineId, NodeName

CONTACT_MS = 5_000
POLL, OWN_POLL = "poll", "poll-"
"""The timers of the interval of all sources, and of those that have their own, by name."""


class LineHeads(LineMachine[FactsT, ConfigT, PhaseT, EffectT, ReportT]):
    """Takes heads and epoch records from sources, refuses those that are not the line's, and chooses the source to
    fetch from.

    Facts have ``head`` and ``epochs``; a configuration has ``writer``, ``poll_ms``, ``retry_min_ms``, ``retry_max_ms``
    and ``overrules``."""

    wants_first_word: ClassVar[bool] = False
    """A line of which no word was ever heard is stale, too, where its sources pass words on."""

    def __init__(self, line: LineId, config: ConfigT, rng: Chance, facts: FactsT) -> None:
        super().__init__(line, config, rng, facts)
        self._sources = Sources()
        self._words = WordBook()
        self._word_timer_ms: int | None = None
        self._offer_trouble: Trouble | None = None
        """Why the writer's own offer was refused, until a head is accepted."""
        self._lost_at_ms: int | None = None

    @abstractmethod
    def _head_accepted(self, head: HeadRef) -> None:
        """The head is new, and is going to be kept: forget what was of the one before."""

    def _say(self, effect: Any) -> None:
        """An effect of this floor: each machine that stands on it has it among its own."""
        self._out.append(effect)

    def _retry_most(self) -> int:
        """Never longer than a poll interval, so that a cause that has gone is noticed in time (P8)."""
        most: int = min(self._config.retry_max_ms, self._config.poll_ms)
        return most

    def _source_up(self, event: h.SourceUp) -> None:
        self._sources.up(event.source, event.is_writer, event.has)
        source = self._sources.get(event.source)
        if source is not None:
            source.passes_words = event.passes_words
        if source is not None and source.poll_ms != event.poll_ms:
            source.poll_ms = event.poll_ms
            self._arm_own_poll(source)
        self._lost_at_ms = None
        self._out.append(SetTimer("contact", None))

    def _source_down(self, event: h.SourceDown) -> None:
        source = self._sources.get(event.source)
        if source is not None and source.poll_ms is not None:
            self._out.append(SetTimer(f"{OWN_POLL}{source.name}", None))
        self._sources.down(event.source)
        if not self._sources.is_any_up and self._lost_at_ms is None:
            self._lost_at_ms = self._now
            self._out.append(SetTimer("contact", self._now + self._contact_ms()))

    def _contact_ms(self) -> int:
        """How long a line without a source still counts as in touch: a sender may just be restarted."""
        contact: int = min(self._config.poll_ms, CONTACT_MS)
        return contact

    def _look_at_words(self) -> None:
        """After each event: follow what the writer's own words say, and look again when that may change."""
        words, now = self._words, self._now
        words.look(self._facts.head, bool(self._sources.hubs()), now)
        due = (words.withheld_at_ms(), self._stale_at_ms())
        at = min((each for each in due if each is not None and each > now), default=None)
        if at != self._word_timer_ms:
            self._word_timer_ms = at
            self._out.append(SetTimer("word", at))

    def _stale_at_ms(self) -> int | None:
        wants_first = self.wants_first_word and self._sources.all_pass_words
        return self._words.stale_at_ms(self._config.poll_ms, wants_first=wants_first)

    def _by_words(self, head: HeadRef) -> Stand | None:
        """Why ``head`` may not be the newest one, by the words of the line's writer."""
        hubs = self._sources.hubs()
        return self._words.stand(self.line, self._config.writer, head, hubs, self._stale_at_ms(), self._now)

    def _source_noticed(self, event: h.SourceNoticed) -> None:
        """A hub's word about what it knows: it is shown, and decides nothing."""
        source = self._sources.get(event.source)
        if source is not None:
            source.knows, source.is_cut_off = event.head, event.is_cut_off

    def _head_seen(self, event: h.HeadSeen) -> None:
        source = self._sources.get(event.source)
        # A head may come before the link that it came over counts as up: the configuration names the writer.
        beside = event.beside if event.source == self._config.writer else None
        judged = judge_head(
            event.signed, event.verdict, self.line, self._facts.head, self._facts.epochs, beside
        )
        match judged:
            case AcceptedHead():
                self._accept(judged, event, source)
            case KnownRecord():
                if source is not None:
                    source.told(event.signed.id)
                self._offer_trouble = None
            case OldRecord():
                if source is not None:
                    source.told(event.signed.id)
                self._remind(source)
                self._name_old(judged, source)
            case Refused():
                self._out.append(Refuse(event.source, judged.trouble))
                if judged.trouble.code == "unknown_epoch":
                    self._ask_epoch(source)
                    return
                if source is not None and source.is_writer:
                    self._offer_trouble = judged.trouble
                    if judged.trouble.code == "reused_number":
                        self._remind(source)
            case _:
                assert_never(judged)

    def _remind(self, source: SourceState | None) -> None:
        """A writer that offers less than it once published has lost its state."""
        if source is not None and source.is_writer and self._facts.head is not None:
            self._say(h.OfferHead(source.name, self._facts.head))

    def _name_old(self, judged: OldRecord, source: SourceState | None) -> None:
        """A hub may be late; a writer that offers what it once surpassed is worth a line."""
        head = self._facts.head
        if source is None or not source.is_writer or head is None:
            return
        epoch, number = judged.position
        code = "old_epoch" if epoch < head.epoch else "old_number"
        reason = f"generation {number} of epoch {epoch} is older than the head, {head.number} of epoch {head.epoch}"
        self._out.append(Refuse(source.name, Trouble(code, reason, Retry.ELSEWHERE, 9)))

    def _accept(self, judged: AcceptedHead, event: h.HeadSeen, source: SourceState | None) -> None:
        if source is not None:
            source.told(judged.head.id)
        self._out.append(KeepGeneration(event.signed))
        self._set(head=judged.head)
        self._head_accepted(judged.head)
        self._offer_trouble = None
        self._note(
            "head", f"generation {judged.head.number} is the head, from {event.source}", source=event.source
        )

    def _epoch_seen(self, event: EpochSeen) -> None:
        judged = self._judge_epoch(event, self._config.writer)
        if judged is None:
            return
        self._offer_trouble = None
        if judged.is_disputed:
            self._note("epoch_conflict", f"epoch {judged.body.epoch} was given to more than one node")
        else:
            self._note("epoch", f"{judged.body.writer} writes epoch {judged.body.epoch}")

    def _ask_epoch(self, source: SourceState | None) -> None:
        """Ask for the epoch records that a head needs, once a retry interval."""
        if source is None:
            return
        if source.asked_at_ms is None or self._now - source.asked_at_ms >= self._config.retry_min_ms:
            source.asked_at_ms = self._now
            self._say(h.AskHeads(self._next_req(), source.name))

    def _ask_all(self) -> None:
        for source in self._sources.all_up():
            self._ask(source)

    def _ask(self, source: SourceState) -> None:
        self._say(h.AskHeads(self._next_req(), source.name, is_repeated=source.has is None))

    def _arm_poll(self) -> None:
        """A quarter of the interval is jitter, so that many partners do not ask at once."""
        delay = self._config.poll_ms * (1 - self._rng.random() / 4)
        self._out.append(SetTimer(POLL, self._now + max(1, round(delay))))

    def _arm_own_poll(self, source: SourceState) -> None:
        interval = source.poll_ms or 0
        delay = interval * (1 - self._rng.random() / 4) if interval else 0
        at = self._now + max(1, round(delay)) if interval else None
        self._out.append(SetTimer(f"{OWN_POLL}{source.name}", at))

    def _polled(self, timer: str) -> None:
        """A poll interval has passed: that of all sources, or that of one which has its own."""
        if timer == POLL:
            for source in self._sources.all_up():
                if source.poll_ms is None:
                    self._ask(source)
            self._arm_poll()
            return
        for source in self._sources.all_up():
            if source.poll_ms and timer == f"{OWN_POLL}{source.name}":
                self._ask(source)
                self._arm_own_poll(source)

    def _choose(self, target: HeadRef) -> NodeName | None:
        source = self._sources.choose(target.id, self._now)
        if source is not None:
            return source.name
        at = self._sources.next_try_ms(target.id)
        if at is not None:
            self._out.append(SetTimer("retry-source", at))
        return None

    def _penalize(self, name: NodeName | None) -> None:
        source = None if name is None else self._sources.get(name)
        if source is None:
            return
        delay = min(self._retry_most(), self._config.retry_min_ms << source.failures)
        source.failures = min(source.failures + 1, 20)
        source.not_before_ms = self._now + max(1, round(delay * (0.5 + self._rng.random() / 2)))
