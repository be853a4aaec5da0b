"""Notices of events: of trouble that lasts, of its end, and of warnings; together, and not again and again.

A notice reports a line that stood badly for ``after_ms``, and when the line stands well again. It reports another event
at once, and one like it only after ``again_ms``. Events that are due within ``group_ms`` go out as one notice.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import msgspec

WAITING_MAX = 1_000
RECENT_MAX = 10_000
_BEGINS, _ENDS = "trouble", "in_step"


class Noted(msgspec.Struct, frozen=True, array_like=True):
    """One event. ``fileset`` is empty where it is of none, ``node`` where it is about this node."""

    kind: str
    text: str
    at_ms: int
    fileset: str = ""
    node: str = ""
    code: str = ""


class LastingTrouble(msgspec.Struct, frozen=True, array_like=True):
    """A line that stands badly since ``since_ms``; ``told_ms``: when a notice reported it last."""

    noted: Noted
    since_ms: int
    told_ms: int | None = None


class NoticeFacts(msgspec.Struct, frozen=True, array_like=True):
    """What outlives a restart."""

    lasting: tuple[LastingTrouble, ...] = ()
    waiting: tuple[Noted, ...] = ()
    recent: tuple[tuple[str, int], ...] = ()
    """Events that a notice reported, by their likeness, and when."""
    dropped: int = 0
    """Events beyond ``WAITING_MAX`` since the last notice."""


@dataclass(frozen=True, slots=True)
class NoticeRules:
    """``again_ms`` None: nothing is reported twice."""

    after_ms: int
    group_ms: int
    again_ms: int | None


class NoticeBook:
    """Of one receiver. Times are the wall clock's, in milliseconds; one that was put back delays, and loses nothing."""

    def __init__(self, facts: NoticeFacts | None = None) -> None:
        self.facts = facts or NoticeFacts()

    def take(self, noted: Noted, rules: NoticeRules) -> None:
        if noted.kind == _BEGINS:
            self._begin(noted)
        elif noted.kind == _ENDS:
            self._end(noted)
        else:
            self._warn(noted, rules)

    def _begin(self, noted: Noted) -> None:
        """Other trouble of the same line is reported, too, without waiting again."""
        known = self._lasting_of(noted)
        since_ms, told_ms = noted.at_ms, None
        if known is not None:
            since_ms = known.since_ms
            told_ms = known.told_ms if known.noted.code == noted.code else None
        self._replace(known, LastingTrouble(noted, since_ms, told_ms))

    def _end(self, noted: Noted) -> None:
        known = self._lasting_of(noted)
        if known is None:
            return
        self._replace(known, None)
        if known.told_ms is not None:
            self._wait(noted)

    def _warn(self, noted: Noted, rules: NoticeRules) -> None:
        alike = "\0".join((noted.kind, noted.fileset, noted.node, noted.code))
        told = dict(self.facts.recent).get(alike)
        if told is not None and (rules.again_ms is None or 0 <= noted.at_ms - told < rules.again_ms):
            return
        recent = (*(each for each in self.facts.recent if each[0] != alike), (alike, noted.at_ms))
        self._set(recent=recent[-RECENT_MAX:])
        self._wait(noted)

    def _wait(self, noted: Noted) -> None:
        if len(self.facts.waiting) < WAITING_MAX:
            self._set(waiting=(*self.facts.waiting, noted))
        else:
            self._set(dropped=self.facts.dropped + 1)

    def keep(self, filesets: Collection[str], nodes: Collection[str]) -> bool:
        """Forget trouble of lines and partners that are no more; True when there was any."""
        kept = tuple(
            each
            for each in self.facts.lasting
            if each.noted.fileset in filesets and (not each.noted.node or each.noted.node in nodes)
        )
        is_changed = len(kept) < len(self.facts.lasting)
        self._set(lasting=kept)
        return is_changed

    def next_ms(self, rules: NoticeRules) -> int | None:
        """When the next notice is due."""
        ready = [at_ms for at_ms, _ in self._ready(rules)]
        return min(ready) + rules.group_ms if ready else None

    def due(self, now_ms: int, rules: NoticeRules) -> tuple[Noted, ...]:
        """The events of the notice that is due now: all that is ready, the oldest first."""
        next_ms = self.next_ms(rules)
        if next_ms is None or next_ms > now_ms:
            return ()
        ready = sorted(self._ready(rules), key=lambda each: each[0])
        return tuple(noted for at_ms, noted in ready if at_ms <= now_ms)

    def _ready(self, rules: NoticeRules) -> Iterator[tuple[int, Noted]]:
        for each in self.facts.lasting:
            if each.told_ms is None:
                yield each.since_ms + rules.after_ms, each.noted
            elif rules.again_ms is not None:
                yield each.told_ms + rules.again_ms, each.noted
        yield from ((noted.at_ms, noted) for noted in self.facts.waiting)

    def sent(self, told: tuple[Noted, ...], now_ms: int) -> None:
        """The notice arrived."""
        heard = set(told)
        lasting = (
            msgspec.structs.replace(each, told_ms=now_ms) if each.noted in heard else each
            for each in self.facts.lasting
        )
        waiting = tuple(noted for noted in self.facts.waiting if noted not in heard)
        self._set(lasting=tuple(lasting), waiting=waiting, dropped=0)

    def _lasting_of(self, noted: Noted) -> LastingTrouble | None:
        about = noted.fileset, noted.node
        return next(
            (each for each in self.facts.lasting if (each.noted.fileset, each.noted.node) == about), None
        )

    def _replace(self, known: LastingTrouble | None, now: LastingTrouble | None) -> None:
        kept = tuple(each for each in self.facts.lasting if each is not known)
        self._set(lasting=kept if now is None else (*kept, now))

    def _set(self, **fields: object) -> None:
        self.facts = msgspec.structs.replace(self.facts, **fields)
