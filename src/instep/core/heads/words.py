"""The date of a line that comes over hubs: when its writer is known to have said which head is its newest."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from instep.core.heads.stand import NAMED_MAX, Stand
from instep.core.heads.vocabulary import WordHeard
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.standing import Standing

CLOCKS_DIFFER_MS = 300_000
"""So far two clocks may differ that were never compared."""
WAYS = 8
"""So many words show how long the way of one takes; a clock that was put right counts after them."""
INTERVALS = 3
STALE_MIN_MS = 5_000
WITHHELD, STALE = "head_withheld", "stale"
OF_WORDS = (WITHHELD, STALE)
"""The codes of standings that the writer's words decide."""
AHEAD_MS = 5_000
"""So long a newer head may be on its way when its word is here."""


def date_of(time_ms: int, now_ms: int, on_its_way_ms: Iterable[int], skew_ms: int | None) -> int:
    """When a word that is dated ``time_ms`` by its writer was said, by the clock that shows ``now_ms``. ``skew_ms`` is
    the writer's clock less this one, where it was measured; ``on_its_way_ms`` are the differences between arrival and
    date of the newest words, this one too. Words that arrive before their date show that the writer's clock is ahead at
    least by so much; late ones may have been held back."""
    if skew_ms is None:
        skew_ms = max(-CLOCKS_DIFFER_MS, -min(on_its_way_ms))
    return min(now_ms, time_ms - skew_ms)


@dataclass(slots=True)
class WordDates:
    """The dates of one line's words by this node's clock. Which word counts is decided here, too: the one with the
    latest date of its writer.

    A word that is dated ahead of this clock may be of any time before its arrival. Its date is its first arrival, so no
    word that comes again, and none that is older than one that came, makes the line look fresh."""

    time_ms: int | None = None
    """What the writer dated the word that counts."""
    latest_ms: int = 0
    """The latest date of all words, and when it arrived."""
    latest_at_ms: int = 0
    ways_ms: deque[int] = field(default_factory=lambda: deque(maxlen=WAYS))

    def is_news(self, time_ms: int, now_ms: int, skew_ms: int | None) -> bool:
        """Whether a word takes the place of the one that counts: it is later, or the writer's clock was ahead and
        was put right."""
        if self.time_ms is None or time_ms > self.time_ms:
            return True
        return not ahead_ms(time_ms, now_ms, skew_ms) and ahead_ms(self.time_ms, now_ms, skew_ms) > 0

    def take(self, time_ms: int, now_ms: int, skew_ms: int | None) -> int:
        """The date of a word that counts from now on."""
        self.time_ms = time_ms
        self.ways_ms.append(now_ms - time_ms)
        date = date_of(time_ms, now_ms, self.ways_ms, skew_ms)
        if time_ms > self.latest_ms:
            self.latest_ms, self.latest_at_ms = time_ms, now_ms
        elif ahead_ms(time_ms, now_ms, skew_ms):
            date = min(date, self.latest_at_ms)
        return date


def ahead_ms(time_ms: int, now_ms: int, skew_ms: int | None) -> int:
    """How far a word is dated ahead of this node's clock, after the measured difference of the two; 0 while two clocks
    may differ by so much."""
    ahead = time_ms - (skew_ms or 0) - now_ms
    return ahead if ahead > CLOCKS_DIFFER_MS else 0


@dataclass(slots=True)
class WordBook:
    """The newest word of one line, by the clock of its machine."""

    word: WordHeard | None = None
    said_at_ms: int = 0
    ahead_since_ms: int | None = None
    """Since when the word names a newer head than the one that is known."""
    over_hubs_since_ms: int | None = None
    """Since when the line comes over hubs alone."""

    def take(self, word: WordHeard, now_ms: int) -> None:
        self.word, self.said_at_ms = word, now_ms - word.age_ms

    def look(self, head: HeadRef | None, over_hubs: bool, now_ms: int) -> None:
        """Follow what the sources and the head are now."""
        if not over_hubs:
            self.over_hubs_since_ms = None
        elif self.over_hubs_since_ms is None:
            self.over_hubs_since_ms = now_ms
        is_ahead = (
            over_hubs and head is not None and self.word is not None and self.word.position > head.position
        )
        if not is_ahead:
            self.ahead_since_ms = None
        elif self.ahead_since_ms is None:
            self.ahead_since_ms = now_ms

    def stale_at_ms(self, poll_ms: int, *, wants_first: bool) -> int | None:
        """When the line is stale unless a word comes; None while it does not come over hubs, and where no word was
        heard and none is wanted."""
        since = self.over_hubs_since_ms
        if since is None:
            return None
        if self.word is None:
            return since + max(STALE_MIN_MS, INTERVALS * poll_ms) if wants_first else None
        limit = max(STALE_MIN_MS, INTERVALS * max(poll_ms, self.word.every_ms))
        return max(self.said_at_ms + limit, since + STALE_MIN_MS)

    def withheld_at_ms(self) -> int | None:
        """When a head that the writer named counts as withheld."""
        return None if self.ahead_since_ms is None else self.ahead_since_ms + AHEAD_MS

    def stand(
        self,
        line: LineId,
        writer: NodeName,
        head: HeadRef,
        hubs: tuple[NodeName, ...],
        stale_at: int | None,
        now: int,
    ) -> Stand | None:
        """Why ``head`` may not be the writer's newest, by its own words; None where nothing says so."""
        named = " and ".join(hubs[:NAMED_MAX])
        steps = (f"on {hubs[0]}: instep status {line.fileset}",) if hubs else ()
        withheld_at = self.withheld_at_ms()
        if self.word is not None and withheld_at is not None and now >= withheld_at:
            reason = (
                f"{writer} itself named generation {self.word.position[1]} at {self.word.as_of}, and {named}, from "
                f"which it comes, did not send it; served is generation {head.number}"
            )
            return Stand(Standing.BEHIND, WITHHELD, reason, steps)
        if stale_at is None or now < stale_at:
            return None
        what = "nothing was ever heard" if self.word is None else f"nothing was heard since {self.word.as_of}"
        reason = f"serves generation {head.number}; of {writer} itself {what}, over {named}: it may be behind"
        return Stand(Standing.BEHIND, STALE, reason, (*steps, f"on {writer}: instep status {line.fileset}"))
