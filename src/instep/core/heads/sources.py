"""Where a line's pages and contents can come from: which source is up, which has which head, which to try next."""

from __future__ import annotations

from dataclasses import dataclass

from instep.model.ids import Digest, HeadRef, NodeName

SOURCES_MAX = 64
HAD_MAX = 64
"""So many heads of a source are kept: a writer may publish several times a second while one is fetched."""


@dataclass(slots=True)
class SourceState:
    """``has`` is the id of the newest head that it reported, ``had`` are the ones before, which it keeps for
    a while; after a failure it is not asked before ``not_before_ms``."""

    name: NodeName
    is_writer: bool = False
    is_up: bool = False
    has: Digest | None = None
    failures: int = 0
    not_before_ms: int = 0
    asked_at_ms: int | None = None
    had: tuple[Digest, ...] = ()
    knows: HeadRef | None = None
    """The head that a hub knows, served there or not."""
    is_cut_off: bool = False
    """A hub without a source of its own."""
    poll_ms: int | None = None
    """How often it is asked; 0 for never, None for the interval of all."""
    passes_words: bool = False
    """It passes words of the line's writer on."""

    def told(self, head: Digest) -> None:
        """The source reported a head, and keeps the ones before for nodes that are still fetching them. An older one
        than before is mostly a message that came late."""
        if self.has is not None and self.has != head:
            self.had = (*self.had, self.has)[-HAD_MAX:]
        self.has = head

    def lost(self) -> None:
        """The source does not have the head that it reported."""
        self.has, self.had = None, ()

    def holds(self, head: Digest) -> bool:
        """Whether the source reported this head, now or a while ago."""
        return head == self.has or head in self.had


class Sources:
    """At most ``SOURCES_MAX``; those beyond are ignored until others leave."""

    def __init__(self) -> None:
        self._all: dict[NodeName, SourceState] = {}

    def up(self, name: NodeName, is_writer: bool, has: Digest | None = None) -> None:
        source = self.get(name)
        if source is not None:
            if has is not None:
                source.told(has)
            source.is_up, source.is_writer = True, is_writer
            source.failures = source.not_before_ms = 0
            source.asked_at_ms = None

    def down(self, name: NodeName) -> None:
        self._all.pop(name, None)

    def get(self, name: NodeName) -> SourceState | None:
        """The source, made when there is room."""
        found = self._all.get(name)
        if found is None and len(self._all) < SOURCES_MAX:
            found = self._all[name] = SourceState(name)
        return found

    def all_up(self) -> list[SourceState]:
        return [s for s in self._all.values() if s.is_up]

    @property
    def is_any_up(self) -> bool:
        return any(s.is_up for s in self._all.values())

    def ahead_of(self, head: HeadRef) -> SourceState | None:
        """The source that knows most above ``head``; None where the writer is connected, for its heads come by
        themselves, and while a source is ahead of nothing."""
        known = [s for s in self._hubs() if s.knows is not None and s.knows.position > head.position]
        return max(known, key=lambda s: (s.knows.position if s.knows else (0, 0), s.name), default=None)

    def cut_off(self) -> tuple[NodeName, ...]:
        """All sources by name, where none of them has a source of its own."""
        hubs = self._hubs()
        return tuple(sorted(s.name for s in hubs)) if hubs and all(s.is_cut_off for s in hubs) else ()

    def hubs(self) -> tuple[NodeName, ...]:
        """The sources by name, where the writer is none of them."""
        return tuple(sorted(s.name for s in self._hubs()))

    @property
    def all_pass_words(self) -> bool:
        return all(s.passes_words for s in self.all_up())

    def _hubs(self) -> list[SourceState]:
        """The sources that are up, unless the writer is among them."""
        up = self.all_up()
        return [] if any(s.is_writer for s in up) else up

    def choose(self, has: Digest, now_ms: int) -> SourceState | None:
        """The best source that has this generation and may be tried now: reliable ones before ones that failed, the
        ones that name it as their newest, the writer before hubs, names last so that every run chooses alike."""
        fit = [s for s in self.all_up() if s.holds(has) and s.not_before_ms <= now_ms]
        return min(fit, key=lambda s: (s.failures, s.has != has, not s.is_writer, s.name), default=None)

    def next_try_ms(self, has: Digest) -> int | None:
        """When the first source that has it may be retried; None when no connected source has it."""
        return min((s.not_before_ms for s in self.all_up() if s.holds(has)), default=None)

    def forgive(self) -> None:
        for source in self._all.values():
            source.failures = source.not_before_ms = 0
            source.asked_at_ms = None
