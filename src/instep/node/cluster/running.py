"""One run on this node: its program, its row in the cluster's database, and its end.

The row is renewed while the program runs. A run that is not this node's any more is ended at once. Where another
attempt may follow (``on_lost = "rerun"``), it is ended before that can begin, also when the database cannot be asked.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

from instep.errors import InstepError
from instep.fleet.hooks.guard import guarded
from instep.fleet.hooks.run import GRACE_S, MINIMAL_ENVIRONMENT, account_of, as_account, run_program
from instep.fleet.hooks.spec import Attempt, quoted
from instep.node.cluster.service import ClusterService
from instep.node.runtime.driver import monotonic_ms
from instep.store.cluster.runs import ClusterRun, Outcome, end_run, let_go, renew_run

RUN_TTL_MS = 30_000
"""How long a run stays its node's without a renewal."""
RENEW_S = 7.0
RECORD_AGAIN_S = 2.0
STOPPED_S = 3.0
"""How long a daemon that stops tries to record the end of its runs."""
TAIL_KEPT = 4_000
"""Characters of a run's output that are kept: the last ones."""
_STOP_MS = round(2 * GRACE_S * 1000) + 1_000
"""How long the end of a program can take."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SharedProgram:
    """A program of a job or request, as this node's settings have it."""

    arguments: tuple[str, ...]
    timeout_ms: int
    user: str | None = None
    payload: str = ""
    environment: Mapping[str, str] = field(default_factory=dict)


async def carry_out(service: ClusterService, run: ClusterRun, program: SharedProgram) -> Outcome:
    """Run the program to its end and record it. A run that was lost, or that the daemon's end stops, ends at once."""
    loop = asyncio.get_running_loop()
    control = _Control(run)
    working = loop.create_task(_work(run, program, control))
    renewing = loop.create_task(_renew(service, run, control))
    try:
        await asyncio.wait([working, renewing], return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            renewing.result()
            return Outcome("lost", None, "its node could not renew it, and ended it", "")
        outcome = working.result()
    except asyncio.CancelledError:
        working.cancel()
        await asyncio.gather(working, return_exceptions=True)
        await asyncio.shield(_record_stopped(service, run))
        raise
    finally:
        renewing.cancel()
        await asyncio.gather(renewing, return_exceptions=True)
        control.close()
    if not await _record(service, run, outcome):
        return outcome._replace(state="lost", reason="it was given up as lost before it ended")
    return outcome


class _Control:
    """The pipe to a program's guard: how long the program may run without another word, for a run that another node may
    begin again. The guard ends the program when the daemon is gone."""

    def __init__(self, run: ClusterRun) -> None:
        self.read_end, self._write_end = os.pipe2(os.O_CLOEXEC)
        self._is_limited = run.on_lost == "rerun"
        self.until_ms = 0
        self.extend(monotonic_ms())

    def extend(self, sent_ms: int) -> None:
        """A renewal that was sent then has succeeded."""
        # Less than the database waits: the clocks of two machines may run at different rates.
        self.until_ms = sent_ms + RUN_TTL_MS * 9 // 10 - 1_000
        if self._is_limited:
            with suppress(BrokenPipeError):
                os.write(self._write_end, b"%d\n" % self.until_ms)

    def close(self) -> None:
        os.close(self.read_end)
        os.close(self._write_end)


async def _work(run: ClusterRun, program: SharedProgram, control: _Control) -> Outcome:
    account = await asyncio.to_thread(account_of, program.user) if program.user is not None else None
    if isinstance(account, str):
        return Outcome("failed", None, account, "")
    name = f"{run.subject}:{run.key}:{run.attempt}:{run.session}"
    mark = f"INSTEP_RUN={name}"
    environment = {**MINIMAL_ENVIRONMENT, **program.environment, "INSTEP_RUN": name}
    arguments = guarded(as_account(program.arguments, account), control.read_end, mark)
    stdin = os.memfd_create("instep-run", os.MFD_CLOEXEC)
    try:
        os.write(stdin, program.payload.encode())
        os.lseek(stdin, 0, os.SEEK_SET)
        inherited = (control.read_end,)
        attempt = await run_program(
            arguments, stdin, environment, program.timeout_ms, mark=mark, descriptors=inherited
        )
    finally:
        os.close(stdin)
    return _outcome(attempt)


def _outcome(attempt: Attempt) -> Outcome:
    tail = attempt.output.decode("utf-8", "replace").replace("\0", "\ufffd")[-TAIL_KEPT:]
    if attempt.ok:
        return Outcome("done", 0, "", tail)
    state = "timed_out" if attempt.status is None and attempt.reason.startswith("ran longer") else "failed"
    return Outcome(state, attempt.status, attempt.reason + quoted(attempt.output), tail)


async def _renew(service: ClusterService, run: ClusterRun, control: _Control) -> None:
    """Ends when the run has to end."""
    while True:
        await asyncio.sleep(RENEW_S)
        sent_ms = monotonic_ms()
        try:
            async with asyncio.timeout(RENEW_S), service.transaction() as (transaction, _):
                if not await renew_run(transaction, run, RUN_TTL_MS):
                    return
            control.extend(sent_ms)
        except (InstepError, OSError) as error:
            log.warning("the run %s %s cannot be renewed: %s", run.subject, run.key, error)
            if run.on_lost == "rerun" and monotonic_ms() + RENEW_S * 1000 > control.until_ms - _STOP_MS:
                return


async def _record(service: ClusterService, run: ClusterRun, outcome: Outcome) -> bool:
    while True:
        try:
            async with service.transaction() as (transaction, _):
                return await end_run(transaction, run, outcome)
        except (InstepError, OSError) as error:
            log.warning("the end of the run %s %s is not recorded yet: %s", run.subject, run.key, error)
        await asyncio.sleep(RECORD_AGAIN_S)


async def _record_stopped(service: ClusterService, run: ClusterRun) -> None:
    try:
        async with asyncio.timeout(STOPPED_S), service.transaction() as (transaction, _):
            if run.on_lost == "rerun":
                await let_go(transaction, run)
            else:
                await end_run(transaction, run, Outcome("stopped", None, "its daemon was stopped", ""))
    except (InstepError, OSError) as error:
        log.warning("the run %s %s was stopped, and counts as lost soon: %s", run.subject, run.key, error)
