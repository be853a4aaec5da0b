"""The boring loop around a machine: take an event, step, record it, perform the effects in order.

An effect that fails because this machine lacks something (a full disk, a lost mount, a busy database) is performed
again, with growing pauses, until it succeeds. The effects after it wait, so ``Save`` stays a barrier; ``on_stuck``
says so outside.

One driver owns one machine. Small messages go through it; file bytes never do: long effects run as
child tasks that end in exactly one event. ``Save`` is a barrier because ``perform`` is awaited before the
next effect starts.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from typing import Any, Generic, TypeVar

from instep.core.record.recorder import FlightRecorder
from instep.errors import InstepError, ResourceError, Retry, UnavailableError
from instep.node.runtime.records import write_record
from instep.tree.root.os_errors import help_for, path_of_people

INBOX_MAX = 4096
LOGGED_EVENTS_MAX = 50
EFFECTS_PER_EVENT_MAX = 1000
HURRY_S = 0.02
HURRY_MOST_S = 2.0
"""So long a command waits for an effect that failed before, as writing to a disk that was full."""
SETTLED_MOST_S = 10.0
"""So long a command waits for a machine that is busy with what came before."""
AGAIN_MIN_S = 0.25
AGAIN_MAX_S = 5.0
"""The longest pause between two attempts at an effect that this machine cannot carry out now."""

log = logging.getLogger(__name__)

EventT = TypeVar("EventT")
EffectT = TypeVar("EffectT")
ResultT = TypeVar("ResultT")


_skipped_ns = 0


def monotonic_ms() -> int:
    """The clock for deciding: milliseconds since boot, counting suspended time."""
    return (time.clock_gettime_ns(time.CLOCK_BOOTTIME) + _skipped_ns) // 1_000_000


_shift_ms = 0


def wall_ms() -> int:
    """The clock for showing: milliseconds since 1970."""
    return (time.time_ns() + _skipped_ns) // 1_000_000 + _shift_ms


def call_at_wall_ms(until_ms: int | None, call: Callable[[int], None]) -> None:
    """Call with ``until_ms`` once the wall clock should show it; on the event loop. Nothing for None."""
    if until_ms is not None:
        delay_s = max(0, until_ms - wall_ms()) / 1000
        asyncio.get_running_loop().call_later(delay_s, call, until_ms)


def shift_wall_clock(by_ms: int) -> None:
    """Show another time than the machine's: for tests of gates between clocks, set by ``daemon/process.py`` alone."""
    global _shift_ms
    _shift_ms = by_ms


def skip_time(by_s: float) -> None:
    """Let both clocks go on by so much at once: for an event loop that skips idle time."""
    global _skipped_ns
    _skipped_ns += round(by_s * 1e9)


def clocks() -> tuple[int, int]:
    """What moves the clocks of this process against the machine's, for ``set_clocks``: skipped nanoseconds, and the
    milliseconds of ``shift_wall_clock``."""
    return _skipped_ns, _shift_ms


def set_clocks(moved: tuple[int, int]) -> None:
    """Bring the clocks back to what ``clocks`` told."""
    global _skipped_ns, _shift_ms
    _skipped_ns, _shift_ms = moved


class Driver(Generic[EventT, EffectT]):
    """Runs one machine. ``perform`` carries out one effect; it may call ``spawn`` for long work and
    ``set_timer`` for named timers. A broken invariant in the machine stops the driver and leaves its last
    events in a file of ``records``."""

    def __init__(
        self,
        name: str,
        machine: Any,
        perform: Callable[[EffectT], Awaitable[None]],
        timer_fired: Callable[[str], EventT],
        records: Path | None = None,
    ) -> None:
        self.name = name
        self.recorder = FlightRecorder(name, machine)
        self._records = records
        """The folder of records; None where none is kept."""
        self._perform = perform
        self._timer_fired = timer_fired
        self._first: deque[EventT] = deque()
        self._inbox: asyncio.Queue[EventT] = asyncio.Queue()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        self._children: set[asyncio.Task[None]] = set()
        self.failure: BaseException | None = None
        self.stuck: InstepError | None = None
        """Why the effect under way cannot be performed now."""
        self.on_step: Callable[[], None] | None = None
        """Called after every event, also one that had no effects."""
        self.on_stuck: Callable[[InstepError | None], Awaitable[None]] | None = None
        """Called with the reason whenever it changes, and with None when it is over."""
        self._hurry = asyncio.Event()
        self._posted = self._performed = 0
        """Events that were handed in, and those whose effects are all performed."""

    def post(self, event: EventT) -> None:
        """Hand in an event; never blocks and never drops: an answer that is lost would be waited for without
        end. A sender that can wait, as a peer's stream, waits for ``room`` before it hands in more."""
        self._posted += 1
        self._inbox.put_nowait(event)
        if self._inbox.qsize() >= INBOX_MAX:
            self._has_room.clear()

    def begin(self, event: EventT) -> None:
        """Hand in how the machine starts, before ``run``: it is taken before all events that were posted meanwhile."""
        self._posted += 1
        self._first.append(event)

    @property
    def has_room(self) -> bool:
        """False from the moment the inbox is full until half of it is taken."""
        return self._has_room.is_set()

    async def room(self) -> None:
        """Return once the inbox is not too full."""
        await self._has_room.wait()

    def set_timer(self, name: str, at_ms: int | None) -> None:
        """Set or replace a named timer; it arrives as the event that ``timer_fired`` makes. None takes it away."""
        handle = self._timers.pop(name, None)
        if handle is not None:
            handle.cancel()
        if at_ms is None:
            return
        delay = max(0, at_ms - monotonic_ms()) / 1000
        loop = asyncio.get_running_loop()
        self._timers[name] = loop.call_later(delay, self._fire, name)

    def _fire(self, name: str) -> None:
        self._timers.pop(name, None)
        self.post(self._timer_fired(name))

    def spawn(
        self, work: Coroutine[Any, Any, EventT], failed: Callable[[InstepError], EventT]
    ) -> asyncio.Task[None]:
        """Run long work as a child task that ends in one event: its result, or ``failed(error)``; none when
        it is cancelled."""
        task = asyncio.get_running_loop().create_task(self._child(work, failed))
        self._children.add(task)
        task.add_done_callback(self._children.discard)
        task.add_done_callback(lambda _: work.close())  # one that was cancelled before it began
        return task

    async def _child(
        self, work: Coroutine[Any, Any, EventT], failed: Callable[[InstepError], EventT]
    ) -> None:
        try:
            event = await work
        except (InstepError, OSError) as error:
            event = failed(own_error(error))
        except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
            log.exception("%s: a child task broke", self.name)
            event = failed(InstepError(f"{type(error).__name__}: {error}", code="unexpected"))
        self.post(event)

    async def run(self) -> None:
        """Own the machine until cancelled. Children are cancelled and awaited on the way out."""
        try:
            while self._first:
                await self._take(self._first.popleft())
            while True:
                await self._take(await self._inbox.get())
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.failure = error
            last = [(step.at_ms, step.event) for step in self.recorder.last[-LOGGED_EVENTS_MAX:]]
            log.exception("%s stopped; its last events: %s", self.name, last)
            self._leave_record()
            raise
        finally:
            for name in list(self._timers):
                self.set_timer(name, None)
            for child in list(self._children):
                child.cancel()
            await asyncio.gather(*self._children, return_exceptions=True)

    def _leave_record(self) -> None:
        """Leave the last events on disk, where the machine itself is what broke."""
        if self.recorder.broken is None or self._records is None:
            return
        try:
            path = write_record(self._records, self.recorder, "broken")
        except OSError as error:
            log.error("%s: its record cannot be written: %s", self.name, error)
        else:
            log.error(
                "%s: its last events are in %s; look with: instep debug replay %s", self.name, path, path
            )

    async def _take(self, event: EventT) -> None:
        if self._inbox.qsize() < INBOX_MAX // 2:
            self._has_room.set()
        effects = self.recorder.step(event, monotonic_ms(), wall_ms())
        assert len(effects) <= EFFECTS_PER_EVENT_MAX, (self.name, type(event).__name__, len(effects))
        for effect in effects:
            await self._carry_out(effect)
        self._performed += 1
        if self.on_step is not None:
            self.on_step()

    async def _carry_out(self, effect: EffectT) -> None:
        pause = AGAIN_MIN_S
        while True:
            try:
                await self._perform(effect)
                break
            except (InstepError, OSError) as error:
                trouble = own_error(error)
                if trouble.retry is not Retry.LATER:
                    raise
            await self._say_stuck(trouble)
            self._hurry.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._hurry.wait()
            pause = min(pause * 2, AGAIN_MAX_S)
        if self.stuck is not None:
            await self._say_stuck(None)

    async def _say_stuck(self, trouble: InstepError | None) -> None:
        before, self.stuck = self.stuck, trouble
        if trouble is None:
            log.warning("%s goes on", self.name)
        elif before is None or before.error_code != trouble.error_code:
            log.error("%s waits: %s", self.name, trouble.reason)
        else:
            return
        if self.on_stuck is not None:
            await self.on_stuck(trouble)

    def nudge(self) -> None:
        """Perform what is stuck at once, if anything is."""
        self._hurry.set()

    async def hurry(self, within_s: float = HURRY_MOST_S) -> None:
        """Perform what is stuck at once; the reason is raised when it is still stuck after ``within_s``."""
        deadline = monotonic_ms() + within_s * 1000
        while self.stuck is not None:
            self._hurry.set()
            if monotonic_ms() > deadline:
                raise self.stuck
            await asyncio.sleep(HURRY_S)

    async def settled(self) -> None:
        """Return once every event that was handed in before has its effects, also the saved ones. The reason is raised
        when one of them stays stuck; ``UnavailableError`` ``line_busy`` when they take too long."""
        wanted, deadline = self._posted, monotonic_ms() + SETTLED_MOST_S * 1000
        while self._performed < wanted:
            await self.hurry()
            if monotonic_ms() > deadline:
                raise UnavailableError(
                    f"{self.name} has not come to this yet: it is busy with earlier requests",
                    hint="instep status; then repeat the command",
                    code="line_busy",
                )
            await asyncio.sleep(HURRY_S)

    async def unless_stuck(self, wait: Coroutine[Any, Any, ResultT]) -> ResultT:
        """The result of a wait for this machine's answer. The reason is raised when an effect stays stuck
        meanwhile: the answer would not come before that is over."""
        waiting = asyncio.get_running_loop().create_task(wait)
        try:
            while not (await asyncio.wait((waiting,), timeout=AGAIN_MIN_S))[0]:
                await self.hurry()
            return waiting.result()
        finally:
            waiting.cancel()


async def run_all(*works: Coroutine[Any, Any, None]) -> None:
    """Run drivers that belong together until one ends: then all end, with its error."""
    tasks = [asyncio.get_running_loop().create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def own_error(error: InstepError | OSError) -> InstepError:
    """An error of the kernel as one of ours, with a step that helps where its file is known; another one as it is."""
    if isinstance(error, InstepError):
        return error
    name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else None
    is_known = bool(name and path_of_people(name))
    code, step = help_for(error.errno or 0, Path(name if is_known and name else "/"))
    hint = f"{step if is_known else 'see what failed in the log of the daemon'}; instep goes on by itself"
    reason = f"{error.strerror or error}" + (f": {name}" if name else "")
    return ResourceError(reason, code=code, hint=hint, errno=error.errno, path=name)
