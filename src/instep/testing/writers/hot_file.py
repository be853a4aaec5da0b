"""A program at the simulated writer that rewrites one file all the time, and the other changes, which must arrive all
the same."""

from __future__ import annotations

from instep.testing.partners.partner import SimPartner
from instep.testing.world.world import BrokenPromise
from instep.testing.writers.writer import SimWriter
from instep.testing.writers.writer_scan import HOT

BESIDE = b"beside the hot one"


class HotProgram:
    """Writes from the beginning until ``ends_at_ms``."""

    def __init__(self, writer: SimWriter, partners: list[SimPartner], every_ms: int) -> None:
        self._writer = writer
        self._partners = partners
        self._every_ms = every_ms
        self._rng = writer.world.stream("hot")
        self._number = 0
        self._ends_at_ms: int | None = None

    def write(self) -> None:
        """Write now, and again soon."""
        world = self._writer.world
        if self._ends_at_ms is not None and world.now >= self._ends_at_ms:
            return
        self._number += 1
        self._writer.hot_at_ms = world.now
        if self._writer.place.has_marker:
            self._writer.edit_tree(HOT, b"hot %d" % self._number)
        world.at(self._rng.uniform(0.5, 1.5) * self._every_ms, self.write)

    def end_after(self, ms: int) -> None:
        """Peace: something else is written once; when the program ends, every partner must have it."""
        world = self._writer.world
        self._ends_at_ms = world.now + ms
        world.at(9_000, lambda: self._writer.edit_tree(b"beside", BESIDE))
        world.at(ms - 1, self._check)

    def _check(self) -> None:
        for partner in self._partners:
            if partner.config.is_observing or not partner.is_member:
                continue
            if partner.place.tree.get(b"beside") != BESIDE:
                raise BrokenPromise("P8", f"{partner.name} starves behind a file that changes all the time")
