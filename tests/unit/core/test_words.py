"""The date of a word, and when a line over hubs is stale or its head withheld."""

from __future__ import annotations

import random

import pytest

from instep.core.heads import vocabulary as h
from instep.core.heads.words import WordDates, date_of
from instep.core.keep import vocabulary as k
from instep.core.keep.machine import KeepMachine
from instep.core.vocabulary import Started, TimerFired
from instep.model.ids import Digest, FilesetName, HeadRef, LineId, NodeName

LINE = LineId(FilesetName("data"), NodeName("gamma"))
HUB, GAMMA = NodeName("hub"), NodeName("gamma")
HEAD = HeadRef(1, 7, Digest(b"i" * 32), Digest(b"r" * 32))
NOW = 1_000_000_000


@pytest.mark.parametrize(
    ("sent", "ways", "skew", "age"),
    [
        (NOW - 40, [40], None, 0),  # a short way, clocks alike
        (NOW - 60_000, [60_000], None, 0),  # a home whose clock is a minute behind
        (NOW + 3_600_000, [-3_600_000], None, 0),  # an hour ahead: never after the arrival
        (NOW + 3_000_000, [-3_000_000, -3_600_000], None, 600_000),  # those before came ten minutes sooner
        (NOW - 3_600_000, [3_600_000], None, 3_300_000),  # held back for an hour
        (NOW - 90_000, [90_000, 30_000], None, 60_000),  # the quickest one shows the clocks
        (NOW - 90_000, [90_000], -30_000, 60_000),  # measured
        (NOW - 90_000, [90_000], 600_000, 690_000),
    ],
)
def test_a_word_is_dated_by_this_clock(sent: int, ways: list[int], skew: int | None, age: int) -> None:
    assert NOW - date_of(sent, NOW, ways, skew) == age


def test_words_dated_ahead_are_as_old_as_their_first_arrival() -> None:
    """A hub that has two of them, and one of the time before, gets no later date out of any of them again."""
    dates, hour, at = WordDates(), 3_600_000, NOW

    def says(time_ms: int, skew_ms: int | None = None) -> int | None:
        """The age of the word, where it counts."""
        if not dates.is_news(time_ms, at, skew_ms):
            return None
        return at - dates.take(time_ms, at, skew_ms)

    assert says(NOW) == 0
    assert says(NOW + hour) == 0
    assert says(NOW + hour + 10_000) == 0
    at += 600_000
    assert says(NOW + hour) is None, "it is the older one"
    for _ in range(20):
        before, of_ahead = says(NOW), says(NOW + hour + 10_000)
        assert before is not None and before >= 600_000, "it looks like one of a clock that was put right"
        assert of_ahead == 600_000
        assert says(NOW + hour) is None
    assert [says(at + n) for n in range(8)][-1] == 0, "now its clock is right"
    assert says(NOW + hour + 10_000) == 600_000
    assert says(NOW + hour + 20_000, hour - 580_000) == 0, "so far its clock was measured to be ahead"


class _Line:
    """A kept line whose head is here, over a hub."""

    def __init__(self, passes_words: bool = True) -> None:
        self.now = 1_000
        facts = k.KeepFacts(head=HEAD, kept=HEAD)
        config = k.KeepConfig(writer=GAMMA, poll_ms=2_000)
        self.machine = KeepMachine(LINE, config, random.Random(1), facts)
        self.gets(Started())
        self.gets(h.SourceUp(HUB, False, HEAD.id, None, passes_words))

    def gets(self, event: k.KeepEvent) -> str | None:
        """The code of the standing then."""
        self.machine.step(event, self.now)
        assert self.machine.report is not None
        return self.machine.report.code

    def after(self, ms: int) -> str | None:
        self.now += ms
        return self.gets(TimerFired("word"))

    def word(self, number: int = 7, age_ms: int = 0) -> str | None:
        return self.gets(h.WordHeard((1, number), age_ms, 3_000, "then"))


def test_it_is_stale_three_intervals_after_the_last_word() -> None:
    line = _Line()
    assert line.word() is None
    assert line.after(8_999) is None
    assert line.after(1) == "stale", "three times the longer interval, which is the writer's"
    assert line.word() is None
    assert line.word(age_ms=20_000) == "stale", "a word that was old when it came"
    assert line.gets(h.SourceUp(GAMMA, True, HEAD.id)) is None, "its writer is connected"
    line.after(60_000)
    assert line.gets(h.SourceDown(GAMMA)) is None, "a moment for the hub to say its word"
    assert line.after(5_000) == "stale"


@pytest.mark.parametrize("passes_words", [True, False])
def test_without_any_word_it_is_stale_where_the_hubs_pass_words_on(passes_words: bool) -> None:
    """A hub of a version before has none to pass on."""
    line = _Line(passes_words)
    assert line.after(5_999) is None
    assert line.after(1) == ("stale" if passes_words else None)


def test_a_newer_head_that_does_not_come_is_withheld() -> None:
    line = _Line()
    assert line.word(8) is None, "it may be on its way"
    assert line.after(4_999) is None
    assert line.after(1) == "head_withheld"
    assert line.word(7) is None, "a word about the head that is here"
