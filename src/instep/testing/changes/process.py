"""A simulated process around one machine of changes: it dies at any effect, stands still, and starts again."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec

from instep.core import vocabulary as w
from instep.core.vocabulary import Trouble
from instep.errors import Retry
from instep.testing.changes.options import ChangeOptions
from instep.testing.world.network import Network
from instep.testing.world.node import Crashed
from instep.testing.world.world import World

WALL_MS = 20_000 * 86_400_000
RESTART_MS = 300


class Parcel(msgspec.Struct, frozen=True, array_like=True):
    """A request, its answer or a notice, with the number of the request."""

    kind: str
    number: int
    raw: bytes


def trouble(code: str, retry: Retry = Retry.LATER) -> Trouble:
    return Trouble(code, f"{code} (simulated)", retry, 7)


class SimProcess(ABC):
    """The driver is as boring as the real one. What waits while the process stands still happens when it goes on."""

    def __init__(self, world: World, net: Network, name: str, options: ChangeOptions) -> None:
        self.world = world
        self.net = net
        self.name = name
        self.options = options
        self.rng: Random = world.stream(f"process {name}")
        self.machine: Any = None
        self.is_alive = False
        self.incarnation = 0
        self.boot = 1
        self._clock_zero = -self.rng.randrange(100_000)
        self._stopped_until = 0
        self._timers: dict[str, int | None] = {}
        self._inbox: deque[Any] = deque()
        self._is_stepping = False
        net.peers[name] = self

    # --- time -------------------------------------------------------------------------------------------------

    @property
    def now_ms(self) -> int:
        """CLOCK_BOOTTIME of this machine."""
        return self.world.now - self._clock_zero

    @property
    def is_stopped(self) -> bool:
        return self.world.now < self._stopped_until

    def stop_for(self, for_ms: int, *, with_clock: bool) -> None:
        """SIGSTOP; ``with_clock``: the virtual machine stands still, and its clock too."""
        self.world.record(
            self.name, "!", f"stands still for {for_ms} ms{' with its clock' if with_clock else ''}"
        )
        self._stopped_until = max(self._stopped_until, self.world.now + for_ms)
        if with_clock:
            self._clock_zero += for_ms

    def go_on(self) -> None:
        self._stopped_until = 0

    def later(self, delay_ms: float, do: Callable[[], None]) -> None:
        """In this life, and not while the process stands still."""
        life = self.incarnation

        def act() -> None:
            if not self.is_alive or self.incarnation != life:
                return
            if self.is_stopped:
                self.world.at(self._stopped_until - self.world.now + 1, act)
            else:
                do()

        self.world.at(delay_ms, act)

    def chance(self, probability: float) -> bool:
        return self.world.is_faulty and probability > 0 and self.rng.random() < probability

    # --- life and death ---------------------------------------------------------------------------------------

    def start(self) -> None:
        self.incarnation += 1
        self.is_alive = True
        self._timers.clear()
        self._inbox.clear()
        self._is_stepping = False
        self.world.record(self.name, "!", "starts")
        self.began()

    def crash(self, why: str) -> None:
        if not self.is_alive:
            return
        self.world.record(self.name, "!", f"ends: {why}")
        self.is_alive = False
        if self.chance(self.options.reboots):
            self.boot += 1
            self._clock_zero = self.world.now + RESTART_MS - self.rng.randrange(50_000)
        self.world.at(RESTART_MS, self._start_again)

    def _start_again(self) -> None:
        if self.is_stopped:
            self.world.at(self._stopped_until - self.world.now + 1, self._start_again)
        elif not self.is_alive:
            self.start()

    def tick(self) -> None:
        if self.chance(self.options.crash_at_effect):
            raise Crashed

    def post(self, event: Any) -> None:
        """Take one event after another. While the process stands still they wait."""
        if not self.is_alive:
            return
        self._inbox.append(event)
        if self.is_stopped:
            self.later(0, self._run)
        elif not self._is_stepping:
            self._run()

    def _run(self) -> None:
        self._is_stepping = True
        try:
            while self._inbox:
                event = self._inbox.popleft()
                self.world.events += 1
                self.world.record(self.name, ">", event)
                for effect in self.machine.step(event, self.now_ms, WALL_MS + self.world.now):
                    self.tick()
                    self.world.record(self.name, "<", effect)
                    if isinstance(effect, w.SetTimer):
                        self._set_timer(effect.name, effect.at_ms)
                    else:
                        self.act(effect)
        except Crashed:
            self.crash("power")
        finally:
            self._is_stepping = False

    def _set_timer(self, name: str, at_ms: int | None) -> None:
        self._timers[name] = at_ms
        if at_ms is not None:
            self.later(max(0, at_ms - self.now_ms), lambda: self._fire(name, at_ms))

    def _fire(self, name: str, at_ms: int) -> None:
        if self._timers.get(name) != at_ms:
            return
        if self.now_ms < at_ms:  # The clock stood still meanwhile.
            self._set_timer(name, at_ms)
            return
        self._timers[name] = None
        self.post(w.TimerFired(name))

    # --- messages ---------------------------------------------------------------------------------------------

    def send(self, other: str, kind: str, number: int, raw: bytes) -> None:
        parcel = msgspec.msgpack.encode(Parcel(kind, number, raw))
        self.net.send(self.name, other, parcel)
        if self.chance(self.options.late_copy):
            self.world.at(self.rng.uniform(1_000, 15_000), lambda: self.net.send(self.name, other, parcel))

    def hear(self, sender: str, raw: bytes) -> None:
        parcel = msgspec.msgpack.decode(raw, type=Parcel)
        if self.is_stopped:
            self.later(0, lambda: self.got(sender, parcel))
        else:
            self.got(sender, parcel)

    def serve(self, asker: str, raw: bytes) -> bytes | None:
        """Nothing is asked in one call here."""
        raise AssertionError(asker, raw)

    @abstractmethod
    def began(self) -> None:
        """Make the machine from its durable facts, and post its first event."""

    @abstractmethod
    def act(self, effect: Any) -> None:
        """Carry out one effect."""

    @abstractmethod
    def got(self, sender: str, parcel: Parcel) -> None:
        """A message arrived."""
