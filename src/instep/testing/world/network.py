"""The lying network: loss, delay, reordering, duplication, flipped bits, one-way cuts, isolation.

Messages are the real ones of ``net.messages``, encoded. A call is a request with one answer or a timeout; a
session is a partner's open stream: both ends learn late that it broke.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Protocol

from instep.testing.world.world import World

CALL_TIMEOUT_MS = 3_000


class Peer(Protocol):
    """A node as the network needs it."""

    name: str
    is_alive: bool

    @property
    def incarnation(self) -> int: ...

    def serve(self, asker: str, raw: bytes) -> bytes | None: ...

    def hear(self, sender: str, raw: bytes) -> None: ...


class Network:
    """Delivers bytes between peers, or does not."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._rng = world.stream("network")
        self._cuts: dict[tuple[str, str], None] = {}
        self._strangers: dict[tuple[str, str], None] = {}
        self._streams: dict[tuple[str, str], int] = {}
        self._opened = 0
        self._last_at: dict[tuple[str, str], float] = {}
        self._broken: dict[tuple[str, str], None] = {}
        self.peers: dict[str, Peer] = {}

    def cut(self, source: str, target: str) -> None:
        self._cuts[source, target] = None
        self._world.record("net", "!", f"cut {source} -> {target}")

    def heal(self) -> None:
        self._cuts.clear()
        self._world.record("net", "!", "healed")

    def know(self, one: str, other: str, *, is_known: bool) -> None:
        """Two nodes list each other, or hear nothing of each other."""
        if is_known:
            self._strangers.pop(_pair(one, other), None)
        else:
            self._strangers[_pair(one, other)] = None

    def is_open(self, source: str, target: str) -> bool:
        is_cut = (source, target) in self._cuts or _pair(source, target) in self._strangers
        return not is_cut and self.peers[source].is_alive and self.peers[target].is_alive

    def send(self, source: str, target: str, raw: bytes) -> None:
        """A message of the stream: may be lost, doubled, late, out of order, damaged."""
        peer = self.peers[target]
        for _ in range(self._copies()):
            damaged = self._damaged(raw)
            self._world.at(self._delay(), partial(self._arrive, source, peer, damaged))

    def open_stream(self, one: str, other: str) -> None:
        self._opened += 1
        self._streams[_pair(one, other)] = self._opened

    def is_broken(self, one: str, other: str) -> bool:
        return _pair(one, other) in self._broken

    def close_stream(self, one: str, other: str) -> None:
        self._streams.pop(_pair(one, other), None)
        self._broken.pop(_pair(one, other), None)

    def stream(self, source: str, target: str, raw: bytes) -> None:
        """A message that arrives once and in its turn, or the stream breaks: the promise of TCP and TLS. Nothing of a
        stream arrives after its end."""
        pair = _pair(source, target)
        number = self._streams.get(pair)
        if number is None or pair in self._broken:
            return
        if self._copies() == 0 or self._damaged(raw) != raw:
            self._broken[pair] = None
            return
        at = max(self._world.now + self._delay(), self._last_at.get((source, target), 0.0))
        self._last_at[source, target] = at

        def arrive() -> None:
            if self._streams.get(pair) != number or pair in self._broken:
                return
            if self.is_open(source, target):
                self.peers[target].hear(source, raw)
            else:
                self._broken[pair] = None

        self._world.at(at - self._world.now, arrive)

    def call(self, source: str, target: str, raw: bytes, done: Callable[[bytes | None], None]) -> None:
        """A request: ``done`` is called once, with the answer or with None after a timeout."""
        peer, asker = self.peers[target], self.peers[source]
        state = {"open": True}

        def finish(answer: bytes | None) -> None:
            if state["open"]:
                state["open"] = False
                done(answer)

        def arrive() -> None:
            if not self.is_open(source, target):
                return
            answer = peer.serve(source, raw)
            if answer is not None and self._copies() and asker.is_alive:
                late = self._damaged(answer)
                self._world.at(self._delay(), lambda: finish(late) if self.is_open(target, source) else None)

        if self._copies():
            self._world.at(self._delay(), arrive)
        self._world.at(CALL_TIMEOUT_MS, lambda: finish(None))

    def _arrive(self, source: str, peer: Peer, raw: bytes) -> None:
        if self.is_open(source, peer.name):
            peer.hear(source, raw)

    def _copies(self) -> int:
        if not self._world.is_faulty:
            return 1
        options = self._world.options
        if self._rng.random() < options.loss:
            return 0
        return 2 if self._rng.random() < options.duplicate else 1

    def _delay(self) -> float:
        options = self._world.options
        delay = self._rng.uniform(0.5, 1.5) * options.delay_ms
        if self._world.is_faulty and self._rng.random() < options.reorder:
            delay += self._rng.uniform(0, 20) * options.delay_ms
        return delay

    def _damaged(self, raw: bytes) -> bytes:
        if not self._world.is_faulty or self._rng.random() >= self._world.options.corrupt or not raw:
            return raw
        at = self._rng.randrange(len(raw))
        return raw[:at] + bytes([raw[at] ^ (1 << self._rng.randrange(8))]) + raw[at + 1 :]


def _pair(one: str, other: str) -> tuple[str, str]:
    return (one, other) if one < other else (other, one)
