"""The bases that both homes keep, and the one from which a run goes. Implements "The base" of ``docs/spec/sync.md``."""

from __future__ import annotations

from collections.abc import Sequence

from instep.model.sync import BASES_KEPT, SyncBase, SyncMark


def common_base(bases: Sequence[SyncBase], marks: Sequence[SyncMark]) -> SyncBase | None:
    """The newest base that the carrying home has and the other one knows. Both are in order, the newest last."""
    known = frozenset(marks)
    return next((base for base in reversed(bases) if base.mark in known), None)


def with_base(bases: Sequence[SyncBase], new: SyncBase) -> tuple[SyncBase, ...]:
    """What a home keeps after a run. Bases of that number or above are of runs that did not end at both homes."""
    return (*(each for each in bases if each.run < new.run), new)[-BASES_KEPT:]


def with_mark(marks: Sequence[SyncMark], new: SyncMark) -> tuple[SyncMark, ...]:
    return (*(each for each in marks if each.run < new.run), new)[-BASES_KEPT:]
