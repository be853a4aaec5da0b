"""Jobs and requests on this node: ticks that are due, runs that wait for any node, and runs that were lost.

Every node that has a job in its settings tries to start each tick; the database lets one of them. Time is the
database's: each transaction shows how far this node's clock is from it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections import deque
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from instep.core.cluster.schedule import CatchUp, due_ticks
from instep.errors import InstepError
from instep.node.cluster.maintenance import ClusterMaintenance, Maintenance, cluster_maintenance
from instep.node.cluster.running import RUN_TTL_MS, SharedProgram, carry_out
from instep.node.cluster.service import ClusterService
from instep.node.config.shared_parts.jobs import JobSettings, RequestSettings
from instep.node.runtime.driver import monotonic_ms, run_all, wall_ms
from instep.store.cluster import agreements, runs
from instep.store.cluster.agreements import Agreed
from instep.store.cluster.eras import Era
from instep.store.cluster.port import Transaction
from instep.store.cluster.runs import ClusterRun, NotStarted, Outcome, Runner

LOOK_S = 5.0
"""How often this node looks for lost and waiting runs by itself; announcements make it look at once."""
AGAIN_S = 1.0
PRUNE_S = 60.0
RUNNING_MAX = 64
"""Runs of this node at a time; further ticks are left to other nodes."""
ENDED_KEPT = 200
SPREAD_S = 0.05
"""Nodes try a tick within this time, so that not always the quickest one has it."""
log = logging.getLogger(__name__)


class JobRules(msgspec.Struct, frozen=True):
    """The part of a job's settings that has to be equal on all its nodes."""

    cron: str
    zone: str
    timeout_ms: int
    on_lost: str
    catch_up: str

    @classmethod
    def of(cls, job: JobSettings) -> JobRules:
        return cls(job.cron, str(job.zone), job.timeout_ms, job.on_lost, job.catch_up.value)

    def as_text(self) -> str:
        return msgspec.json.encode(self).decode()


JOB, REQUEST = "job:", "request:"


def job_subject(name: str) -> str:
    return f"{JOB}{name}"


def request_subject(kind: str) -> str:
    return f"{REQUEST}{kind}"


class SharedWork:
    """One per node. ``run`` goes on until it is cancelled; then its runs are ended."""

    def __init__(self, service: ClusterService, chance: random.Random) -> None:
        self._service, self._chance = service, chance
        self.maintenance = Maintenance(service.runtime.draining)
        self._runtime = service.runtime
        self.differing: dict[str, Agreed] = {}
        """Jobs whose settings differ from those that count: this node does not start them."""
        self.running: dict[ClusterRun, asyncio.Task[None]] = {}
        self._dealt_with_s: dict[str, int] = {}
        """By job: up to which second its ticks are dealt with."""
        self._ahead_ms = 0
        """How far the database's clock is ahead of this node's."""
        self._wake = asyncio.Event()
        self._upkeep_at_ms = self._prune_at_ms = 0
        self._is_closed = False
        self._era = 0
        self._ended: deque[tuple[ClusterRun, Outcome]] = deque(maxlen=ENDED_KEPT)
        """The last runs that ended here: a failover may have lost their rows, which are written again then."""

    @property
    def runner(self) -> Runner:
        return Runner(self._runtime.name, self._service.session)

    async def run(self) -> None:
        self._is_closed = False
        self._service.on_change(self._heard)
        try:
            await run_all(self._work(), self._mind_settings())
        finally:
            self._service.forget(self._heard)
            await self.close()

    async def close(self) -> None:
        """End what runs here, and begin nothing more."""
        self._is_closed = True
        tasks = tuple(self.running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def look(self) -> None:
        """Look at once, for something has changed."""
        self._upkeep_at_ms = 0
        self._wake.set()

    def _heard(self, topic: str) -> None:
        if topic in ("", "run", "era", "maintenance"):
            self.look()

    async def _work(self) -> None:
        while True:
            self._wake.clear()
            pause_s = await self._look()
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._wake.wait()

    async def _mind_settings(self) -> None:
        """New settings, and the end of a maintenance, are looked at when they come."""
        while True:
            changed, seen = self._runtime.changed, (self._runtime.settings, self.maintenance.is_on)
            await changed.wait()
            if seen[0] is not self._runtime.settings or seen[1] != self.maintenance.is_on:
                self.look()

    async def _look(self) -> float:
        """Do what is due; how long nothing will be."""
        settings = self._runtime.settings
        if self._is_closed or not (
            settings.jobs or settings.requests or settings.cluster_file or self._dealt_with_s
        ):
            return LOOK_S * 12
        try:
            if monotonic_ms() >= self._upkeep_at_ms:
                self._upkeep_at_ms = monotonic_ms() + round(LOOK_S * 1000)
                await self._keep_up()
            return await self._start_due()
        except (InstepError, OSError) as error:
            log.debug("jobs wait for the cluster's database: %s", error)
            self._upkeep_at_ms = 0
            return AGAIN_S

    def follow_maintenance(self, wanted: ClusterMaintenance) -> None:
        """Do what the cluster's row says, and note it."""
        if self.maintenance.follow(wanted):
            why = f": {wanted.reason}" if wanted.reason else ""
            word = "begins" if wanted.is_on else "ends"
            self._runtime.note("maintenance", f"maintenance of the whole cluster {word} here{why}")

    def troubles(self) -> list[str]:
        """What ``status`` warns of."""
        return [
            f"job {name} has other settings at {found.node}, which were changed last, and is not started here; next:"
            f" let [jobs.{name}] of instep.toml say the same on all nodes"
            for name, found in self.differing.items()
        ]

    # Upkeep ---------------------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Declare the jobs, give up lost runs, and take waiting ones."""
        jobs = self._runtime.settings.jobs
        async with self._service.transaction() as (transaction, era):
            self._note_clock(era)
            if self._era not in (0, era.era):
                for run, outcome in self._ended:
                    await runs.end_run(transaction, run, outcome)
            wanted = await cluster_maintenance(transaction)
            agreed = await self._declare_all(transaction)
            await self._take_up(transaction, agreed)
            lost = await runs.give_up_lost(transaction, era)
            if monotonic_ms() >= self._prune_at_ms:
                self._prune_at_ms = monotonic_ms() + round(PRUNE_S * 1000)
                await self._prune(transaction)
        self._era = era.era
        self.follow_maintenance(wanted)
        self._note_differing(jobs, agreed)
        for run in lost:
            self._note(
                "run_lost", run, f"{_shown(run)} was lost with {run.node}, which did not renew it in time"
            )
        if not self.maintenance.is_on:
            await self._claim()

    async def _declare_all(self, transaction: Transaction) -> dict[str, Agreed]:
        """Record what this node runs; what counts of each job."""
        settings, node = self._runtime.settings, self._runtime.name
        wanted = {job_subject(name): JobRules.of(job).as_text() for name, job in settings.jobs.items()}
        wanted |= {request_subject(name): one.on_lost for name, one in settings.requests.items()}
        for subject in await agreements.subjects_of(transaction, node):
            if subject not in wanted and subject.startswith((JOB, REQUEST)):
                await agreements.withdraw(transaction, subject, node)
        found = {
            subject: await agreements.declare(transaction, subject, node, value)
            for subject, value in wanted.items()
        }
        return {name: found[job_subject(name)] for name in settings.jobs}

    async def _take_up(self, transaction: Transaction, agreed: Mapping[str, Agreed]) -> None:
        """Where the ticks of a job that is new here begin: behind the last run, or where the schedule was changed."""
        for name, found in agreed.items():
            since_s = found.since_ms // 1000
            if name not in self._dealt_with_s:
                last_s = await runs.last_due_ms(transaction, job_subject(name)) // 1000
                self._dealt_with_s[name] = max(last_s, since_s)
            self._dealt_with_s[name] = max(self._dealt_with_s[name], since_s)
        for name in [name for name in self._dealt_with_s if name not in agreed]:
            del self._dealt_with_s[name]

    def _note_differing(self, jobs: Mapping[str, JobSettings], agreed: Mapping[str, Agreed]) -> None:
        before = self.differing
        self.differing = {
            name: found for name, found in agreed.items() if found.value != JobRules.of(jobs[name]).as_text()
        }
        for name, found in self.differing.items():
            if before.get(name) != found:
                self._runtime.note(
                    "job_differs",
                    f"job {name} has other settings at {found.node}, which were changed last: it is not started here",
                    job=name,
                    node=found.node,
                )

    async def _prune(self, transaction: Transaction) -> None:
        settings = self._runtime.settings
        for subject in (*map(job_subject, settings.jobs), *map(request_subject, settings.requests)):
            await runs.prune_runs(transaction, subject)

    async def _claim(self) -> None:
        settings = self._runtime.settings
        for name, job in settings.jobs.items():
            if name not in self.differing:
                await self._claim_all(job_subject(name), RUNNING_MAX, job)
        for kind, request in settings.requests.items():
            await self._claim_all(request_subject(kind), request.at_once, request)

    async def _claim_all(self, subject: str, most: int, work: JobSettings | RequestSettings) -> None:
        while len(self.running) < RUNNING_MAX and self._count(subject) < most:
            async with self._service.transaction() as (transaction, era):
                run = await runs.claim(transaction, era, subject, self.runner, RUN_TTL_MS)
            if run is None:
                return
            self._begin(run, work)

    def _count(self, subject: str) -> int:
        return sum(run.subject == subject for run in self.running)

    # Ticks ----------------------------------------------------------------------------------------------------------

    async def _start_due(self) -> float:
        """Try every tick that is due; how long until the next one, or until the next look."""
        pause_ms = self._upkeep_at_ms - monotonic_ms()
        for name, job in self._runtime.settings.jobs.items():
            now_ms = wall_ms() + self._ahead_ms
            if name in self.differing or name not in self._dealt_with_s:
                continue
            after_s, now_s = self._dealt_with_s[name], now_ms // 1000
            if self.maintenance.is_on or len(self.running) >= RUNNING_MAX:
                continue
            for tick_s in due_ticks(job.schedule, after_s, now_s, CatchUp(job.catch_up)):
                early_ms = await self._start(job, tick_s)
                if early_ms:
                    pause_ms = min(pause_ms, early_ms)
                    break
                self._dealt_with_s[name] = tick_s
            following = job.schedule.next_after(now_s)
            if following is not None:
                pause_ms = min(pause_ms, following * 1000 - now_ms)
        return max(0, pause_ms) / 1000 + self._chance.random() * SPREAD_S

    async def _start(self, job: JobSettings, tick_s: int) -> int:
        """How much too early it is, by the database's clock."""
        async with self._service.transaction() as (transaction, era):
            self._note_clock(era)
            subject = job_subject(job.name)
            run = await runs.start_tick(
                transaction, era, subject, tick_s, job.on_lost, self.runner, RUN_TTL_MS
            )
        if isinstance(run, NotStarted):
            return run.early_ms
        self._begin(run, job)
        return 0

    def _note_clock(self, era: Era) -> None:
        self._ahead_ms = era.now_ms - wall_ms()

    # Runs -----------------------------------------------------------------------------------------------------------

    def _begin(self, run: ClusterRun, work: JobSettings | RequestSettings) -> None:
        kind, _, name = run.subject.partition(":")
        about = {f"INSTEP_{kind.upper()}": name, "INSTEP_ATTEMPT": str(run.attempt)}
        about["INSTEP_NODE"] = self._runtime.name
        about["INSTEP_TICK" if kind == "job" else "INSTEP_REQUEST_ID"] = run.key
        program = SharedProgram(work.run, work.timeout_ms, work.user, run.payload, about)
        task = asyncio.get_running_loop().create_task(self._carry_out(run, program))
        self.running[run] = task

    async def _carry_out(self, run: ClusterRun, program: SharedProgram) -> None:
        try:
            outcome = await carry_out(self._service, run, program)
        finally:
            del self.running[run]
            self.look()
        self._ended.append((run, outcome))
        self._note_end(run, outcome)

    def _note_end(self, run: ClusterRun, outcome: Outcome) -> None:
        if outcome.state == "done":
            self._note("run_ended", run, f"{_shown(run)} went well")
        else:
            self._note("run_failed", run, f"{_shown(run)} {outcome.state}: {outcome.reason}", outcome.tail)

    def _note(self, kind: str, run: ClusterRun, text: str, output: str | None = None) -> None:
        """A job of each second is noted now and then, with the count."""
        self._runtime.note_of_peer(
            run.subject, kind, text, subject=run.subject, key=run.key, attempt=run.attempt, output=output
        )


def _shown(run: ClusterRun) -> str:
    kind, _, name = run.subject.partition(":")
    again = f", attempt {run.attempt}" if run.attempt > 1 else ""
    return f"{kind} {name}, run {run.key}{again},"
