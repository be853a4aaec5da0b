"""What the machines of a line at a partner and at its writer have in common: facts, one job at a time, and a save
before all that depends on it."""

from __future__ import annotations

import enum
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from instep.core import vocabulary as w
from instep.core.backoff import Backoff, Chance
from instep.core.contract import PhaseRow
from instep.core.facts_book import EffectT, FactsBook, FactsT
from instep.core.lines.accept import AcceptedEpoch, Refused, judge_epoch, word_of
from instep.model.ids import HeadRef, LineId, NodeName

ConfigT = TypeVar("ConfigT", bound=Any)
PhaseT = TypeVar("PhaseT", bound=enum.Enum)
ReportT = TypeVar("ReportT")


@dataclass(frozen=True, slots=True)
class LineJob(Generic[PhaseT]):
    """The one request whose answer the machine waits for."""

    req: int
    phase: PhaseT
    head: HeadRef | None = None
    source: NodeName | None = None


class LineMachine(
    FactsBook[FactsT, EffectT | w.LineEffect], ABC, Generic[FactsT, ConfigT, PhaseT, EffectT, ReportT]
):
    """``rng`` is for jitter; ``facts`` are what ``Save`` carried last. All else is derived anew after a start."""

    phases: ClassVar[Mapping[Any, PhaseRow]]
    numbered: ClassVar[tuple[type, ...]]
    """Effects that carry a number and begin no phase."""
    early: ClassVar[tuple[type, ...]]
    """Effects that name nothing which is not durable: they need not wait for the ``Save`` of their step."""
    save: ClassVar[type[Any]]
    """The effect that saves facts alone."""
    acts_and_saves: ClassVar[type]
    """The effect that saves facts with what it does."""

    def __init__(self, line: LineId, config: ConfigT, rng: Chance, facts: FactsT) -> None:
        super().__init__(facts)
        self.line = line
        self._config = config
        self._rng = rng
        self._now = 0
        self._is_started = False
        self._job: LineJob[PhaseT] | None = None
        self._backoff = Backoff(rng)
        self._blind: w.Trouble | None = None
        """Why the watch cannot see all paths."""
        self._reported: ReportT | None = None

    @property
    def report(self) -> ReportT | None:
        """The last standing that was reported."""
        return self._reported

    @property
    def phase(self) -> str | None:
        """The phase of the present job, for status; None when at rest."""
        return self._job.phase.value if self._job else None

    def _begin(self, phase: PhaseT, head: HeadRef | None = None, source: NodeName | None = None) -> int:
        assert self._job is None
        self._job = LineJob(self._next_req(), phase, head, source)
        return self._job.req

    def _end_job(self, answer: Any) -> LineJob[PhaseT] | None:
        """The job that this answer ends; None when it answers an older request."""
        job = self._job
        if job is None or job.req != answer.req:
            return None
        assert isinstance(answer, self.phases[job.phase].events), (job, answer)
        self._job = None
        return job

    def _hold_back(self, key: str, least_ms: int, most_ms: int) -> None:
        """Retry after a back-off."""
        self._out.append(w.SetTimer(f"retry-{key}", self._backoff.fail(key, self._now, least_ms, most_ms)))

    def _pause(self, event: w.Paused | None) -> None:
        """None ends the pause."""
        is_paused, event = event is not None, event or w.Paused()
        self._set(is_paused=is_paused, paused_reason=event.reason, paused_until_wall_ms=event.until_wall_ms)

    def _watch_changed(self, trouble: w.Trouble | None) -> None:
        if trouble == self._blind:
            return
        self._blind = trouble
        if trouble is None:
            self._note("watched", "the watch sees the whole tree again")
        else:
            self._note("not_watched", trouble.reason, hint=trouble.hint or "")
        if self._is_started:
            self._arm_full_look()

    @abstractmethod
    def _arm_full_look(self) -> None:
        """Set the timer of the next look at the whole tree."""

    def _judge_epoch(self, event: w.EpochSeen, configured: NodeName) -> AcceptedEpoch | None:
        """Keep the record when it is a new one and valid. ``configured`` is the writer that this node's file names."""
        epochs = self._facts.epochs
        word = word_of(configured, epochs, overrules=self._config.overrules)
        judged = judge_epoch(event.signed, event.verdict, self.line, epochs, word)
        if isinstance(judged, Refused):
            self._out.append(w.Refuse(event.source, judged.trouble))
        if not isinstance(judged, AcceptedEpoch):
            return None
        self._out.append(w.KeepEpoch(event.signed))
        self._set(epochs=judged.book)
        return judged

    def _ordered(self) -> tuple[EffectT | w.LineEffect, ...]:
        """The effects with at most one ``Save``, before everything that depends on it."""
        saves: Any = next((e for e in self._out if isinstance(e, self.acts_and_saves)), None)
        if saves is not None:
            self._saved = saves.facts
        if saves is not None or self._is_saved():
            return tuple(self._out)
        self._saved = self._facts
        early = [e for e in self._out if isinstance(e, self.early)]
        late = [e for e in self._out if not isinstance(e, self.early)]
        return (*early, type(self).save(self._facts), *late)

    def _is_saved(self) -> bool:
        return self._saved == self._facts


def begins_one_job(machine: LineMachine[Any, Any, Any, Any, Any], effects: tuple[Any, ...]) -> bool:
    """A step begins at most one job, by an effect of the phase that it is in, with the number of that job."""
    job = machine._job
    begun = [e for e in effects if hasattr(e, "req") and not isinstance(e, machine.numbered)]
    if job is None or not begun:
        return not begun
    return (
        len(begun) == 1
        and begun[0].req == job.req
        and isinstance(begun[0], machine.phases[job.phase].effects)
    )
