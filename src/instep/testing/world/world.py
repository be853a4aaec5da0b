"""Virtual time, one queue, named streams of chance, and the flight recorder of a simulated cluster."""

from __future__ import annotations

import hashlib
import heapq
from collections import deque
from collections.abc import Callable
from random import Random

from instep.core.rollout.vocabulary import PartnerReport, RolloutFacts, RolloutView
from instep.model.ids import HeadRef
from instep.model.rollout import Order
from instep.testing.world.options import Options

RECORDED_MAX = 50
EVENTS_MAX = 2_000_000
SHOWN = frozenset(
    (
        "req",
        "source",
        "name",
        "kind",
        "paths",
        "standing",
        "code",
        "at_ms",
        "text",
        "answered",
        "node",
        "partners",
    )
)
"""Plain fields that a line of the flight recorder shows."""


class BrokenPromise(Exception):
    """A promise of design section 3 does not hold in this run."""

    def __init__(self, promise: str, text: str) -> None:
        super().__init__(f"{promise}: {text}")
        self.promise = promise


class World:
    """One thread, one queue ordered by (time, order of scheduling)."""

    def __init__(self, seed: int, options: Options, plant: str | None = None) -> None:
        self.seed = seed
        self.options = options
        self.plant = plant
        self.now = 0
        self.events = 0
        self.is_faulty = True
        self.recorded: deque[tuple[int, str, str, object]] = deque(maxlen=RECORDED_MAX)
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self._trace = hashlib.blake2b(digest_size=16)

    def stream(self, name: str) -> Random:
        """A stream of chance of its own: drawing more in one place does not shift another."""
        return Random(f"{self.seed}/{name}")

    def at(self, delay_ms: float, do: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (self.now + max(0, int(delay_ms)), self._order, do))

    def run(self, until_ms: int, stop: Callable[[], bool] | None = None) -> bool:
        """Run to that moment, or until ``stop`` says so (then True)."""
        while self._queue and self._queue[0][0] <= until_ms:
            moment, _, do = heapq.heappop(self._queue)
            self.now = moment
            do()
            if stop is not None and stop():
                return True
            if self.events > EVENTS_MAX:
                raise BrokenPromise("P9", f"more than {EVENTS_MAX} events: something goes in circles")
        self.now = until_ms
        return False

    def record(self, node: str, arrow: str, what: object) -> None:
        """One line of the flight recorder; formatted only when a promise breaks."""
        self.recorded.append((self.now, node, arrow, what))
        name = what if isinstance(what, str) else type(what).__name__
        self._trace.update(f"{self.now}{node}{arrow}{name}{getattr(what, 'req', '')}\n".encode())

    @property
    def trace_digest(self) -> str:
        return self._trace.hexdigest()

    def transcript(self) -> list[str]:
        return [f"{at:>8} {node:<6} {arrow} {words(what)}" for at, node, arrow, what in self.recorded]


def words(what: object) -> str:
    """An event or effect in glossary words, short enough for a line."""
    if isinstance(what, str):
        return what
    parts = [type(what).__name__]
    for name in getattr(type(what), "__match_args__", ()):
        value = getattr(what, name)
        if value is None or value == ():
            continue
        if isinstance(value, HeadRef):
            parts.append(f"{name}={value.epoch}.{value.number}/{value.id.hex()[:6]}")
        elif name == "facts" and hasattr(value, "head"):
            parts.append(_facts(value))
        elif isinstance(value, RolloutFacts):
            parts.append(_rollout(value))
        elif isinstance(value, Order):
            parts.append(_order(value))
        elif isinstance(value, PartnerReport):
            parts.append(_partner(value))
        elif isinstance(value, RolloutView):
            parts.append(f"{value.facts.state.value}: {value.reason}")
        elif name == "signed":
            parts.append(f"{value.id.hex()[:6]} by {value.signature.signer}")
        elif name in ("part", "parts"):
            several = value if name == "parts" else (value,)
            parts.append(f"{name}=" + ",".join(f"{each.origin} {each.head.number}" for each in several))
        elif name == "trouble":
            parts.append(f"trouble={value.code}")
        elif name in SHOWN:
            parts.append(f"{name}={getattr(value, 'value', value)}")
    return " ".join(parts)


def _facts(facts: object) -> str:
    shown = []
    for name in ("head", "live", "tree", "due", "refused", "highest"):
        value = getattr(facts, name, None)
        if isinstance(value, HeadRef):
            shown.append(f"{name} {value.epoch}.{value.number}")
        elif value is not None and name in ("due", "highest"):
            shown.append(f"{name} {getattr(value, 'value', value)}")
    return "(" + ", ".join(shown) + ")"


def _order(order: Order) -> str:
    confirm = "" if order.confirm_within_ms is None else f" confirm within {order.confirm_within_ms}"
    attempt = "" if order.attempt == 1 else f" attempt {order.attempt}"
    drains = " drained" if order.drains else ""
    head = f"{order.head.epoch}.{order.head.number}"
    return f"{order.verdict.value} {head}{drains} serial {order.serial}{attempt}{confirm}"


def _rollout(facts: RolloutFacts) -> str:
    target = "nothing" if facts.target is None else f"{facts.target.epoch}.{facts.target.number}"
    parts = [f"{facts.state.value} {target}", f"serial {facts.serial}"]
    listed = (("granted", facts.granted), ("finishing", facts.finishing))
    parts.extend(f"{name} {'/'.join(nodes)}" for name, nodes in listed if nodes)
    if facts.attempt > 1:
        parts.append(f"attempt {facts.attempt}")
    if facts.is_paused:
        parts.append("paused")
    if facts.failed_code:
        parts.append(f"failed {facts.failed_node or ''} {facts.failed_code}")
    return f"({', '.join(parts)})"


def _partner(report: PartnerReport) -> str:
    parts = [report.standing.value]
    for name in ("head", "live", "tree", "staged", "replaced", "refused"):
        ref = getattr(report, name)
        if ref is not None:
            parts.append(f"{name} {ref.epoch}.{ref.number}")
    if report.waits_for_permit:
        parts.append("waits")
    if report.is_drained:
        parts.append("drained")
    return f"({', '.join((*parts, f'serial {report.order_serial}'))})"
