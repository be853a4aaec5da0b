"""The cost of a look at a whole tree, measured in the thread that looks."""

from __future__ import annotations

import time

from instep.core.rescan import ScanCost

__all__ = ["CostWatch"]


class CostWatch:
    """Starts when it is made."""

    def __init__(self) -> None:
        self._cpu_ns = time.thread_time_ns()
        self._wall_ns = time.monotonic_ns()

    def cost(self) -> ScanCost:
        """Since then; call it in the same thread."""
        cpu_ns, wall_ns = time.thread_time_ns() - self._cpu_ns, time.monotonic_ns() - self._wall_ns
        return ScanCost(cpu_ns // 1_000_000, wall_ns // 1_000_000)
