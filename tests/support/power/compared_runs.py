"""Runs of compare and set that are cut: a switch that takes steps only where the tree holds the base."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from instep.tree.journal.journal import Compare, Journal
from instep.tree.journal.plan import object_key
from tests.support.apply_world import Tree, World, expected, seen
from tests.support.power.runs import CARRIED, LATER_NS, OLD, Apply, Noted, Run, without_renameat2

__all__ = ["COMPARED_RUNS"]


class Compared(Apply):
    """The same changes; the directory that holds an ignored file is no longer its base, and stays as it is."""

    displaced = (b"a/changed", b"a/removed", b"becomes-dir", b"becomes-file/x", b"gone/one")

    def stage(self, world: World) -> Journal:
        rows = {self.row.path: self.row}
        return world.stage(self.target, now_ns=LATER_NS, live_row=rows.get, compare=Compare.EACH)

    def close(self, world: World, journal: Journal, note: Noted) -> None:
        assert journal.outdated == {object_key(b"half")}, "another answer"
        super().close(world, journal, note)

    def assert_holds(self, world: World, tree: Tree) -> None:
        kept = {path: what for path, what in OLD.items() if path.startswith(b"half/")}
        wanted = {**expected({**tree, **kept}, world.contents), "half/cache.tmp": ("file", CARRIED)}
        found = seen(world.root)
        found["half/cache.tmp"] = ("file", found.get("half/cache.tmp", ("",))[-1])
        for each in (wanted, found):
            each.update({path: what[:2] for path, what in each.items() if what[0] == "dir"})
        wrong = [name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)]
        assert not wrong, (
            f"the {'new' if tree is self.after else 'old'} generation is there but for {sorted(wrong)}"
        )


class ComparedByLink(Compared):
    """Where there is no exchange."""

    def act(self, note: Noted) -> None:
        with without_renameat2():
            super().act(note)

    def check(self, notes: frozenset[str]) -> None:
        with without_renameat2():
            super().check(notes)


COMPARED_RUNS: dict[str, Callable[[Path], Run]] = {
    "compared": Compared,
    "compared by link": ComparedByLink,
}
