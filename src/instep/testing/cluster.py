"""The frame of every simulated cluster: from faults through peace to rest, sessions between nodes, and trouble."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Protocol

from instep.errors import InstepError
from instep.model.ids import FilesetName, LineId, NodeName
from instep.testing.checkers.ledger import Ledger
from instep.testing.world.network import Network
from instep.testing.world.options import Options
from instep.testing.world.world import BrokenPromise, World

SESSION_MS = 300
REST_MS = 2_000
"""In step must last that long to count as rest."""


@dataclass(frozen=True, slots=True)
class Result:
    seed: int
    options: Options
    events: int
    virtual_ms: int
    trace: str
    converged_after_ms: int
    generations: int
    broken: str | None = None
    promise: str | None = None
    transcript: tuple[str, ...] = ()


class SessionEnd(Protocol):
    """A node, as a session with it is kept."""

    @property
    def name(self) -> str: ...

    @property
    def is_alive(self) -> bool: ...

    @property
    def incarnation(self) -> int: ...

    def opened(self, other: str, *, is_dialer: bool) -> None: ...

    def closed(self, other: str) -> None: ...


class SimCluster(ABC):
    """The nodes of one line, their operators, and the trouble that befalls them."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = world.stream("trouble")
        self.people = world.stream("people")
        self.net = Network(world)
        self.ledger = Ledger()
        self.line = LineId(FilesetName("catalog"), NodeName("main"))
        self._sessions: dict[tuple[str, str], tuple[int, int]] = {}
        self._edits = 0
        self._rest_since: int | None = None

    def run(self) -> Result:
        """Faults, then peace, then rest within the bound; or up to the first broken promise."""
        world, options = self.world, self.world.options
        broken = promise = None
        converged = -1
        try:
            self.disturb()
            world.run(options.faulty_ms)
            self.make_peace()
            if not world.run(world.now + options.bound_ms, self.is_at_rest):
                why = f"not in step {options.bound_ms} ms after the faults: {self.lagging()}"
                raise BrokenPromise("P8", why)
            converged = world.now - options.faulty_ms
            self.check_end()
        except BrokenPromise as finding:
            broken, promise = str(finding), finding.promise
        except (AssertionError, InstepError, KeyError) as error:
            broken, promise = f"invariant: {type(error).__name__}: {error}", "invariant"
        return Result(
            world.seed, options, world.events, world.now, world.trace_digest, converged,
            len(self.ledger.committed), broken, promise, tuple(world.transcript()) if broken else (),
        )  # fmt: skip

    @abstractmethod
    def disturb(self) -> None:
        """Schedule the faults and the acts of operators."""

    @abstractmethod
    def make_peace(self) -> None:
        """The faults stop; operators finish what only they can."""

    @abstractmethod
    def lagging(self, *, is_short: bool = False) -> str:
        """The nodes that are not in step, and why; empty when all are. The first one will do where ``is_short``."""

    @abstractmethod
    def check_end(self) -> None:
        """Check the promises at rest."""

    @abstractmethod
    def links(self) -> Iterable[tuple[SessionEnd, SessionEnd]]:
        """Each node with each that it dials."""

    def is_at_rest(self) -> bool:
        if self.world.now < self.world.options.faulty_ms + 8_600 or self.lagging(is_short=True):
            self._rest_since = None
            return False
        if self._rest_since is None:
            self._rest_since = self.world.now
        return self.world.now - self._rest_since >= REST_MS

    def _tend_sessions(self) -> None:
        """Open the streams that can be opened, close broken ones; both ends notice within ``SESSION_MS``."""
        for node, other in self.links():
            key, lives = (node.name, other.name), (node.incarnation, other.incarnation)
            is_open = self.net.is_open(*key) and self.net.is_open(other.name, node.name)
            is_open = is_open and not self.net.is_broken(*key)
            known = self._sessions.get(key)
            if known is not None and (not is_open or known != lives):
                del self._sessions[key]
                self.net.close_stream(*key)
                if node.is_alive and known[0] == node.incarnation:
                    node.closed(other.name)
                if other.is_alive and known[1] == other.incarnation:
                    other.closed(node.name)
            elif known is None and is_open:
                self._sessions[key] = lives
                self.net.open_stream(*key)
                node.opened(other.name, is_dialer=True)
                other.opened(node.name, is_dialer=False)
        self.world.at(SESSION_MS, self._tend_sessions)

    def _every(self, mean_ms: int, do: Callable[[], object]) -> None:
        """Now and then while there are faults; never with a mean of 0."""
        if not mean_ms:
            return

        def again() -> None:
            if self._is_troubled():
                do()
                self.world.at(self.rng.uniform(0.5, 1.5) * mean_ms, again)

        self.world.at(self.rng.uniform(0.2, 1.5) * mean_ms, again)

    def _is_troubled(self) -> bool:
        return self.world.is_faulty
