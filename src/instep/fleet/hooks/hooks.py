"""Hooks: programs and requests that the node's own configuration names, run with deadlines and retries.

A hook's failure is an outcome, not an exception: the caller decides what follows from it. Hooks run at least
once for each call, never through a shell, and never with more of the daemon's environment than given.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from instep.fleet.hooks.aside import Aside, Hangs
from instep.fleet.hooks.http import is_unverified, request
from instep.fleet.hooks.run import MINIMAL_ENVIRONMENT, Account, Told, account_of, run_program
from instep.fleet.hooks.small import send_signal, touch
from instep.fleet.hooks.spec import OUTPUT_KEPT, Attempt, HookCall, HookOutcome, HookSpec, quoted
from instep.model.counts import lasting

_LONGEST_PAUSE_MS = 30_000
SMALL = Aside("hook", 8)
"""Signals and touched files of all filesets."""
SYSTEMCTL = Path("/usr/bin/systemctl")


async def run_hook(
    spec: HookSpec,
    call: HookCall,
    *,
    backoff_ms: int = 500,
    systemctl: Path = SYSTEMCTL,
) -> HookOutcome:
    """Try until it goes well or ``spec.retries`` are used up, pausing ``backoff_ms``, then twice as long.

    Ends within (retries + 1) times the timeout, plus the pauses and a few seconds for stopping a program.
    Cancelling ends the program's process group first.
    """
    started = time.monotonic()
    attempts = 0
    pause_ms = backoff_ms
    account: Account | str | None = None
    if spec.user is not None:
        account = await asyncio.to_thread(account_of, spec.user)
    if isinstance(account, str):
        return HookOutcome(False, account, "", 1, 0)
    with Told(call, account) as told:
        while True:
            attempts += 1
            attempt = await _attempt(spec, call, told, account, systemctl)
            if attempt.ok or attempts > spec.retries:
                break
            await asyncio.sleep(pause_ms / 1000)
            pause_ms = min(pause_ms * 2, _LONGEST_PAUSE_MS)
    return HookOutcome(
        ok=attempt.ok,
        reason=attempt.reason,
        output_tail=attempt.output[-OUTPUT_KEPT:].decode("utf-8", "replace"),
        attempts=attempts,
        duration_ms=round((time.monotonic() - started) * 1000),
        is_unverified=is_unverified(spec),
        quote="" if attempt.ok else quoted(attempt.output, is_answer=spec.http is not None),
    )


async def _attempt(
    spec: HookSpec,
    call: HookCall,
    told: Told,
    account: Account | None,
    systemctl: Path,
) -> Attempt:
    if spec.http is not None:
        return await request(spec, call)
    if spec.signal is not None:
        assert spec.pid_file is not None
        return await _within(spec, partial(send_signal, spec.signal, spec.pid_file))
    if spec.touch is not None:
        return await _within(spec, partial(touch, spec.touch))
    arguments = spec.run
    if spec.systemd is not None:
        verb, unit = spec.systemd
        arguments = (str(systemctl), "--no-ask-password", verb, "--", unit)
    try:
        files = await asyncio.to_thread(told.files)
    except OSError as error:
        return Attempt(f"the list of changes could not be written: {error.strerror}")
    environment = {**MINIMAL_ENVIRONMENT, **call.environment(), "INSTEP_CHANGED": str(files.changed)}
    with files.json.open("rb") as stdin:
        return await run_program(arguments, stdin.fileno(), environment, spec.timeout_ms, account)


async def _within(spec: HookSpec, work: Callable[[], Attempt]) -> Attempt:
    """A file system that hangs keeps its thread; the caller that waits for the hook goes on at the timeout."""
    try:
        return await SMALL.run(work, spec.timeout_ms / 1000)
    except Hangs as error:
        return Attempt(f"did not end within its timeout of {lasting(spec.timeout_ms)}: {error}")
