"""One session of one tool: lay out, carry, edit, carry again; each step timed, counted and compared."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from bench.arena import Arena, Field
from bench.cage import Cage, ToolFailed
from bench.check import compare
from bench.kernel import warm_memory
from bench.peers.base import Can, Peer, Session, Setting
from bench.rows import Edited, Scenario, Step
from bench.waiting import DeadlinePassed, until
from bench.workloads import live_write

__all__ = ["Measurement", "Plan", "measure"]

_LIVE_WRITES, _LIVE_BUDGET_S, _LIVE_AT_LEAST = 200, 40.0, 20
_MILLION_WRITES = 20
_LOCKED_EDITS = 20
# What a tool, its set-up or the machine can do wrong; it fails one measurement, the others go on.
_TROUBLE = (
    ToolFailed,
    DeadlinePassed,
    OSError,
    RuntimeError,
    subprocess.SubprocessError,
    ValueError,
    LookupError,
)


@dataclass
class Measurement:
    """What one step of one tool took. ``error`` is set when it failed or when the result is not the source."""

    row: str
    peer: str
    run: int
    wall_s: float | None = None
    synced_s: float | None = None
    cpu_s: float | None = None
    peak_bytes: int | None = None
    sent_bytes: int | None = None
    entries: int = 0
    lost: dict[str, int] = field(default_factory=dict)
    more: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Plan:
    """What the command line chose."""

    seed: int
    scale: float
    rows: frozenset[str]
    within_s: float
    base: Path


def measure(
    arena: Arena, plan: Plan, scenario: Scenario, peer: Peer, run: int, note: Callable[[Measurement], None]
) -> None:
    """Do a scenario's steps, up to the last one wanted; ``note`` gets each wanted one as soon as it is known."""
    steps = [step for step in scenario.steps if step.can in peer.can]
    while steps and steps[-1].row not in plan.rows:
        steps.pop()
    if not steps:
        return
    scratch = plan.base / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(mode=0o700)
    size = max(400 << 20, int(scenario.image_bytes * min(1.0, plan.scale * 2)))
    place = arena.field(scenario.targets, scenario.file_system, size)
    step = steps[0]
    try:
        with Cage(peer.name, scratch) as cage:
            setting = Setting(
                place,
                cage,
                scratch,
                scenario.settle,
                plan.within_s,
                scenario.edit_both is not None,
                int(scenario.warm_bytes * min(1.0, plan.scale)),
            )
            session = peer.open(setting)
            session.prepare()
            for step in steps:
                taken = Measurement(step.row, peer.name, run)
                _do(step, taken, session, scenario, plan, place)
                if step.row in plan.rows:
                    note(taken)
                if taken.error:
                    return
    except _TROUBLE as failure:
        kept = plan.base / f"failed-{peer.name}-{step.row}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(scratch, kept, ignore=shutil.ignore_patterns("*.sock", "ssh", "key", "*.token"))
        note(
            Measurement(
                step.row, peer.name, run, error=f"{type(failure).__name__}: {failure} (--keep saves the logs)"
            )
        )


def _do(
    step: Step, taken: Measurement, session: Session, scenario: Scenario, plan: Plan, place: Field
) -> None:
    match step.can:
        case Can.FIRST | Can.FOUR:
            _clocked(taken, session, lambda: _lay_out(scenario, plan, place), session.first)
        case Can.CHANGE:
            assert step.edit is not None
            seen: list[Edited] = []

            def edit() -> None:
                assert step.edit is not None
                seen.append(step.edit(place.source, plan.seed, plan.scale))
                if not session.watches:
                    place.sync()

            _clocked(taken, session, edit, lambda: session.change(seen[0].landed))
            if seen[0].changed_bytes and taken.sent_bytes is not None:
                taken.more["sent_share"] = taken.sent_bytes / seen[0].changed_bytes
        case Can.BOTH:
            _both(taken, session, scenario, plan, place)
            return
        case Can.CATCH_UP:
            _catch_up(taken, session, step, scenario, plan, place)
        case Can.LOCK:
            _start_equal(session, scenario, plan, place)
            _lock(taken, session, plan, place)
        case Can.UNCHANGED:
            _start_equal(session, scenario, plan, place)
            _clocked(taken, session, place.sync, session.unchanged)
        case Can.LATENCY:
            _start_equal(session, scenario, plan, place)
            _latency(taken, session, plan, place, _LIVE_WRITES)
        case Can.MILLION:
            began = time.perf_counter()
            _start_equal(session, scenario, plan, place)
            taken.more["start_s"] = time.perf_counter() - began
            taken.more["start_peak_bytes"] = session.cage.peak_bytes()
            _latency(taken, session, plan, place, _MILLION_WRITES)
    _check(taken, place)


def _both(taken: Measurement, session: Session, scenario: Scenario, plan: Plan, place: Field) -> None:
    """Each side must have all that only the other one changed, and no text of a path that both changed may be gone."""
    assert scenario.edit_both is not None
    _start_equal(session, scenario, plan, place)
    seen: list[Edited] = []

    def edit() -> None:
        assert scenario.edit_both is not None
        seen.append(scenario.edit_both(place.source, place.targets[0], plan.seed, plan.scale))
        if not session.watches:
            place.sync()

    _clocked(taken, session, edit, session.both)
    (edited,) = seen
    if taken.sent_bytes is not None:
        taken.more["sent_share"] = taken.sent_bytes / edited.changed_bytes
    _check(taken, place, edited.apart)
    if not edited.landed(place.targets[0]):
        taken.error = "a text of a path that both sides changed is gone"


def _catch_up(
    taken: Measurement, session: Session, step: Step, scenario: Scenario, plan: Plan, place: Field
) -> None:
    """The edits are made and taken in at the source while the target is away; its coming back is timed."""
    assert step.edit is not None
    _start_equal(session, scenario, plan, place)
    session.cut_off()
    edited = step.edit(place.source, plan.seed, plan.scale)
    place.sync()
    session.noticed()
    _clocked(taken, session, place.sync, session.catch_up)
    if taken.sent_bytes is not None:
        taken.more["sent_share"] = taken.sent_bytes / edited.changed_bytes


def _lock(taken: Measurement, session: Session, plan: Plan, place: Field) -> None:
    """Files of the target changed under a lock, one after another, each until the source shows the new bytes."""
    waits_ms: list[float] = []
    found = sorted(str(path.relative_to(place.source)) for path in (place.source / "data").rglob("*.xml"))
    chosen = random.Random(f"{plan.seed} locks").sample(found, _LOCKED_EDITS)
    cpu, sent = session.cage.cpu_s(), session.cage.sent_bytes()
    session.cage.forget_peak()
    for number, path in enumerate(chosen):
        _, body = live_write(place.source, plan.seed, number)
        started = time.perf_counter()
        session.locked_edit(path, body)
        until(lambda: (place.source / path).read_bytes() == body, plan.within_s, f"{path} at the source")  # noqa: B023
        waits_ms.append((time.perf_counter() - started) * 1e3)
    taken.cpu_s, taken.peak_bytes = session.cage.cpu_s() - cpu, session.cage.peak_bytes()
    now = session.cage.sent_bytes()
    taken.sent_bytes = now - sent if now is not None and sent is not None else None
    waits_ms.sort()
    taken.wall_s = statistics.median(waits_ms) / 1e3
    taken.more |= {"writes": len(waits_ms), "p50_ms": statistics.median(waits_ms), "p99_ms": waits_ms[-1]}
    until(
        lambda: compare(place.source, place.targets[0]).is_right,
        plan.within_s,
        "target equal to source",
        0.05,
    )


def _clocked(
    taken: Measurement, session: Session, before: Callable[[], None], work: Callable[[], None]
) -> None:
    """CPU and bytes are counted from before the edit, so that work done ahead of the clock is not hidden."""
    cage = session.cage
    cpu, sent = cage.cpu_s(), cage.sent_bytes()
    before()
    warm_memory(session.setting.warm_bytes)
    cage.forget_peak()
    started = time.perf_counter()
    work()
    done = time.perf_counter()
    session.field.sync_targets()
    synced = time.perf_counter()
    taken.wall_s, taken.synced_s = done - started, synced - started
    taken.cpu_s, taken.peak_bytes = cage.cpu_s() - cpu, cage.peak_bytes()
    now = cage.sent_bytes()
    taken.sent_bytes = now - sent if now is not None and sent is not None else None


def _lay_out(scenario: Scenario, plan: Plan, place: Field) -> None:
    scenario.populate(place.source, plan.seed, plan.scale)
    place.sync()


def _start_equal(session: Session, scenario: Scenario, plan: Plan, place: Field) -> None:
    _lay_out(scenario, plan, place)
    if session.adopts:
        for target in place.targets:
            subprocess.run(["cp", "-a", f"{place.source}/.", f"{target}/"], check=True, timeout=plan.within_s)
    session.adopt()
    place.sync()


def _check(taken: Measurement, place: Field, apart: Sequence[str] = ()) -> None:
    for target in place.targets:
        verdict = compare(place.source, target, apart)
        taken.entries = verdict.entries
        taken.lost.update(verdict.lost)
        if not verdict.is_right:
            taken.error = f"the result differs in {len(verdict.wrong)} paths: {'; '.join(verdict.wrong[:3])}"


def _latency(taken: Measurement, session: Session, plan: Plan, place: Field, writes: int) -> None:
    """Single writes, with a pause of 30 to 130 ms (from the seed) between them so that each meets an idle tool.

    Seen by inotify in the target: a write counts from before its ``open`` until the whole new content can be read.
    """
    pauses = random.Random(f"{plan.seed} pauses")
    source, target = place.source / "data", place.targets[0] / "data"
    waits_ms: list[float] = []
    publishes_ms: list[float] = []
    cpu, sent = session.cage.cpu_s(), session.cage.sent_bytes()
    session.cage.forget_peak()
    began = time.monotonic()
    with contextlib.closing(INotify()) as watch:
        watch.add_watch(
            target, flags.CREATE | flags.MOVED_TO | flags.MODIFY | flags.CLOSE_WRITE | flags.ATTRIB
        )
        for number in range(writes):
            if number >= _LIVE_AT_LEAST and time.monotonic() - began > _LIVE_BUDGET_S:
                break
            name, body = live_write(source, plan.seed, number)
            _pause(watch, pauses.randrange(30, 130) / 1e3)
            wall = time.time()
            started = time.perf_counter()
            descriptor = os.open(source / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
            os.write(descriptor, body)
            os.close(descriptor)
            handle = session.nudge()
            _await_content(watch, target / name, body, plan.within_s)
            waits_ms.append((time.perf_counter() - started) * 1e3)
            if handle is not None:
                handle.finish()
            if taken.row == "million" and (told := session.facts()):
                publishes_ms.append((told["published_at"] - wall) * 1e3)
    taken.cpu_s = session.cage.cpu_s() - cpu
    taken.peak_bytes = session.cage.peak_bytes()
    now = session.cage.sent_bytes()
    taken.sent_bytes = now - sent if now is not None and sent is not None else None
    waits_ms.sort()
    taken.wall_s = statistics.median(waits_ms) / 1e3
    taken.more |= {
        "writes": len(waits_ms),
        "p50_ms": statistics.median(waits_ms),
        "p99_ms": waits_ms[min(len(waits_ms) - 1, int(len(waits_ms) * 0.99))],
    }
    if taken.row == "million":
        taken.more["daemon_bytes"] = max(session.cage.resident_each(), default=0)
    if publishes_ms:
        taken.more["publish_ms"] = statistics.median(publishes_ms)
    until(
        lambda: compare(place.source, target.parent).is_right, plan.within_s, "target equal to source", 0.05
    )


def _pause(watch: INotify, seconds: float) -> None:
    """Wait for the whole time: the events of the last write still come, and must not shorten it."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        watch.read(timeout=int(left * 1e3) + 1)


def _await_content(watch: INotify, path: Path, body: bytes, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while True:
        with contextlib.suppress(FileNotFoundError):
            if path.read_bytes() == body:
                return
        left = deadline - time.monotonic()
        if left <= 0:
            raise DeadlinePassed(f"{path} with the new content: not within {within_s:g} s")
        watch.read(timeout=min(1000, int(left * 1e3) + 1))
