"""A simulated node with several machines: it can die at any effect, and each machine has its own timers."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any

from instep.core import vocabulary as w
from instep.errors import Retry
from instep.testing.unions.options import UnionOptions
from instep.testing.world.network import Network
from instep.testing.world.node import Crashed
from instep.testing.world.world import World


def trouble(code: str, exit_code: int = 7, retry: Retry = Retry.LATER) -> w.Trouble:
    return w.Trouble(code, f"{code} (simulated)", retry, exit_code)


class UnionProcess(ABC):
    """``machines`` are by name; the effects of each go to ``perform``."""

    def __init__(self, world: World, net: Network, name: str, options: UnionOptions) -> None:
        self.world = world
        self.net = net
        self.name = name
        self.options = options
        self.rng = world.stream(f"home {name}")
        self.machines: dict[str, Any] = {}
        self.is_alive = False
        self.incarnation = 0
        self._timers: dict[tuple[str, str], int] = {}
        self._cancelled: set[tuple[str, int]] = set()
        self._booted_at = 0
        net.peers[name] = self

    def now_ms(self) -> int:
        """This node's monotonic clock."""
        return self.world.now - self._booted_at + 1_000_000 * self.incarnation

    def boot(self) -> None:
        self.incarnation += 1
        self.is_alive = True
        self._booted_at = self.world.now
        self._timers.clear()
        self._cancelled.clear()
        self.machines.clear()
        self.world.record(self.name, "!", "starts")
        try:
            self.began()
        except Crashed as death:
            self.crash(str(death))

    def crash(self, why: str) -> None:
        if self.is_alive:
            self.world.record(self.name, "!", f"dies: {why}")
            self.is_alive = False
            self.ended()
            self.world.at(self.rng.uniform(100, 2_000), self.boot)

    def later(self, delay_ms: float, do: Callable[[], None]) -> None:
        """In this life, or never."""
        life = self.incarnation

        def act() -> None:
            if self.is_alive and self.incarnation == life:
                try:
                    do()
                except Crashed as death:
                    self.crash(str(death))

        self.world.at(delay_ms, act)

    def chance(self, probability: float) -> bool:
        return self.world.is_faulty and probability > 0 and self.rng.random() < probability

    def post(self, machine: str, event: Any, delay_ms: float = 0) -> None:
        self.later(delay_ms, lambda: self.take(machine, event))

    def answer(self, machine: str, req: int, event: Any, delay_ms: float = 0) -> None:
        """The answer to a request, unless it was cancelled."""
        self.later(delay_ms, lambda: self._answered(machine, req, event))

    def _answered(self, machine: str, req: int, event: Any) -> None:
        if (machine, req) not in self._cancelled:
            self.take(machine, event)

    def take(self, machine: str, event: Any) -> None:
        """One event into a machine, its effects in order; the process may die before each."""
        found = self.machines.get(machine)
        if found is None:
            return
        self.world.events += 1
        self.world.record(f"{self.name} {machine}", ">", event)
        for effect in found.step(event, self.now_ms()):
            if self.chance(self.options.crash_at_effect):
                raise Crashed(f"before {type(effect).__name__}")
            self.world.record(f"{self.name} {machine}", "<", effect)
            self._perform(machine, effect)

    def _perform(self, machine: str, effect: Any) -> None:
        match effect:
            case w.SetTimer(name, at_ms):
                number = self._timers[machine, name] = self._timers.get((machine, name), 0) + 1
                if at_ms is not None:
                    self.later(max(0, at_ms - self.now_ms()) + 1, partial(self._fire, machine, name, number))
            case w.Cancel(req):
                if self.rng.random() < 0.5:  # else the work goes on, and its answer comes late
                    self._cancelled.add((machine, req))
            case w.Note() | w.Refuse():
                pass
            case _:
                self.perform(machine, effect)

    def _fire(self, machine: str, name: str, number: int) -> None:
        if self._timers.get((machine, name)) == number:
            self.take(machine, w.TimerFired(name))

    @abstractmethod
    def hear(self, sender: str, raw: bytes) -> None:
        """A message of a stream."""

    @abstractmethod
    def serve(self, asker: str, raw: bytes) -> bytes | None:
        """The answer to a request."""

    @abstractmethod
    def began(self) -> None:
        """Make the machines from their durable facts, and post their first events."""

    @abstractmethod
    def ended(self) -> None:
        """Drop what dies with the process."""

    @abstractmethod
    def perform(self, machine: str, effect: Any) -> None:
        """Carry out one effect."""
