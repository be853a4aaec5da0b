"""When a writer's whole tree is looked at: by the clock, by what it costs, and by what the watch does not see."""

from __future__ import annotations

from instep.core.publish_guards import PublishGuards
from instep.core.rescan import ScanCost, rescan_after_ms
from instep.core.vocabulary import Note, SetTimer, Trouble

__all__ = ["PublishLook"]


class PublishLook(PublishGuards):
    """Keeps the timer of the full scan."""

    def _arm_rescan(self) -> None:
        most_ms = after_ms = self._config.rescan_ms
        if self._cost is not None or self._blind is not None:
            cost = self._cost or ScanCost()
            after_ms = rescan_after_ms(cost, is_watched=self._blind is None, most_ms=most_ms)
        self._out.append(SetTimer("rescan", self._now + after_ms))

    def _watch_changed(self, trouble: Trouble | None) -> None:
        if trouble == self._blind:
            return
        self._blind = trouble
        if trouble is None:
            self._out.append(Note("watched", "the watch sees the whole tree again"))
        else:
            self._out.append(Note("not_watched", trouble.reason, (("hint", trouble.hint or ""),)))
        if self._is_started:
            self._arm_rescan()
