"""Operators of the simulated writer who go back: rollbacks, snapshots, and the decision that ``held: restored`` asks
for."""

from __future__ import annotations

from instep.core.publish.machine import PublishMachine
from instep.testing.world.world import World
from instep.testing.writers.rollouts import SimRollouts
from instep.testing.writers.writer import SimWriter


def has_to_decide(machine: PublishMachine) -> bool:
    """The writer stands ``held: restored``, or a number of its own exists twice."""
    report = machine.report
    return machine.facts.is_adopted or (report is not None and report.code == "generation_twice")


class RestoreOperators:
    """Everything is drawn from a stream of its own. ``backups`` are the writer's state and tree, oldest first."""

    def __init__(self, world: World, writer: SimWriter, rollouts: SimRollouts | None) -> None:
        self._world = world
        self._writer = writer
        self._rollouts = rollouts
        self._rng = world.stream("restorers")
        self.backups: list[tuple[tuple[object, ...], dict[bytes, bytes]]] = []

    def back_up(self) -> None:
        """A snapshot of the writer's machine; not in the middle of a restore."""
        if self._writer.place.journal is None:
            self.backups.append((self._writer.store.backup(), dict(self._writer.place.tree)))

    def snapshot(self) -> None:
        """The writer's whole machine is put back to an older snapshot: its tree as well as its state."""
        if not self.backups:
            return
        writer = self._writer
        writer.crash("its machine is put back to a snapshot")
        if self._rollouts is not None:
            self._rollouts.watch.restored()
        backup, tree = self._rng.choice(self.backups)
        writer.store.restore(backup)
        writer.place.tree = dict(tree)
        writer.place.put_back()
        writer.restores.came_back(writer.store.facts)

    def roll_back(self) -> None:
        """An operator goes back to any generation that the writer knows."""
        known = sorted(self._writer.store.generations.values(), key=lambda signed: signed.id)
        known = [signed for signed in known if signed.body().line == self._writer.line]
        if known:
            target = self._rng.choice(known).ref()
            self._writer.restores.ask(target, accept_deletions=self._rng.random() < 0.3)

    def decide(self) -> None:
        """An operator who sees ``held: restored`` says which is right."""
        writer = self._writer
        if not self._has_to_decide():
            return
        head = writer.machine.facts.head
        if writer.machine.facts.is_adopted and head is not None and self._rng.random() < 0.5:
            writer.restores.ask(head, accept_deletions=True)
        else:
            writer.ask_publish(accept_deletions=True, is_over=True)

    def _has_to_decide(self) -> bool:
        return self._writer.is_alive and has_to_decide(self._writer.machine)

    def end_holds(self) -> None:
        """The operator who sees ``held: restored`` in the end says that the tree is right."""
        writer = self._writer
        if self._has_to_decide():
            writer.ask_publish(accept_deletions=True, is_over=True)
        self._world.at(3_000, self.end_holds)
