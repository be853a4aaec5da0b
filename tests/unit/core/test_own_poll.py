"""Sources with an interval of their own: a timer for each, beside the one of all others."""

from __future__ import annotations

import random

from instep.core.heads import vocabulary as h
from instep.core.keep import vocabulary as k
from instep.core.keep.machine import KeepMachine
from instep.core.vocabulary import SetTimer, Started, TimerFired
from instep.model.ids import FilesetName, LineId, NodeName

LINE = LineId(FilesetName("data"), NodeName("gamma"))
NIGHTLY, NEVER, OTHER = NodeName("nightly"), NodeName("never"), NodeName("other")


class _Machine:
    def __init__(self) -> None:
        self.now_ms = 1_000
        config = k.KeepConfig(writer=NodeName("gamma"), poll_ms=10_000)
        self.machine = KeepMachine(LINE, config, random.Random(1), k.KeepFacts())

    def gets(self, event: object) -> tuple[set[str], dict[str, int | None]]:
        """The sources that it asks then, and the timers that it sets."""
        effects = self.machine.step(event, self.now_ms)  # type: ignore[arg-type]
        asked = {effect.source for effect in effects if isinstance(effect, h.AskHeads)}
        timers = {effect.name: effect.at_ms for effect in effects if isinstance(effect, SetTimer)}
        return {str(name) for name in asked}, timers


def test_each_source_is_asked_in_its_own_time() -> None:
    """Goal: a partner may be asked once a night or never, and the others as before (M4). Method: three sources; every
    timer fires; then one leaves."""
    it = _Machine()
    it.gets(Started())
    for name, poll_ms in ((NIGHTLY, 86_400_000), (NEVER, 0), (OTHER, None)):
        _, timers = it.gets(h.SourceUp(name, False, None, poll_ms))
        assert (f"poll-{name}" in timers) == (poll_ms is not None)
    at_ms = it.gets(h.SourceUp(NIGHTLY, False, None, 3_600_000))[1]["poll-nightly"]
    assert at_ms is not None
    assert 0.74 * 3_600_000 < at_ms - it.now_ms <= 3_600_000
    it.now_ms += 10_000
    asked, timers = it.gets(TimerFired("poll"))
    assert asked == {"other"}
    assert "poll" in timers
    assert "poll-nightly" not in timers, "the other interval goes on"
    it.now_ms += 3_600_000
    asked, timers = it.gets(TimerFired("poll-nightly"))
    assert asked == {"nightly"}
    assert "poll-nightly" in timers
    assert not it.gets(TimerFired("poll-never"))[0]
    assert it.gets(h.PollAsked())[0] == {"nightly", "never", "other"}, "an operator asks all"
    assert it.gets(h.SourceDown(NIGHTLY, None))[1]["poll-nightly"] is None
