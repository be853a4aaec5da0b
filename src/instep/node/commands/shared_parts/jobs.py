"""Jobs, requests and maintenance: shown, run now, put up, begun and ended."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Sequence

import msgspec

from instep.api.shared_parts import jobs as api
from instep.core.cluster.schedule import Schedule, schedule_of
from instep.errors import RefusedError, UnavailableError, UsageError
from instep.model.ids import shared_name
from instep.node.cluster.maintenance import cluster_maintenance
from instep.node.cluster.shared_work import JOB, REQUEST, JobRules, job_subject, request_subject
from instep.node.commands.context import CommandContext, CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.patience import deadline_in
from instep.node.config.shared_parts.jobs import JobSettings, zone_of
from instep.node.lines.snapshot import moment
from instep.node.runtime.driver import wall_ms
from instep.store.cluster import agreements, runs
from instep.store.cluster.port import Transaction
from instep.store.cluster.runs import ClusterRun

WAIT_S = 60.0
MISSED_MAX = 1_000
_ENDED = ("done", "failed", "timed_out", "stopped", "lost")


class Jobs(CommandHandlers):
    def __init__(self, context: CommandContext) -> None:
        super().__init__(context)
        self._service, self._work = context.cluster, context.shared_work
        self._runtime = context.node.runtime

    # Looking --------------------------------------------------------------------------------------------------------

    async def show_all(self, asked: api.JobListCommand, speaker: Speaker) -> api.JobsDocument:
        async with self._service.transaction() as (transaction, _):
            nodes = await self._nodes(transaction)
            found = [await self._job(transaction, name, nodes[name]) for name in sorted(nodes)]
        return api.JobsDocument(tuple(found), self._resting())

    async def show(self, asked: api.JobShowCommand, speaker: Speaker) -> api.JobRunsDocument:
        async with self._service.transaction() as (transaction, _):
            nodes = await self._nodes(transaction)
            self._require(asked.name, nodes)
            job = await self._job(transaction, asked.name, nodes[asked.name])
            found = await runs.newest_runs(transaction, job_subject(asked.name), asked.last)
        documents = tuple(_run_document(run) for run in found)
        return api.JobRunsDocument(job, documents, _missed(schedule_of(job.cron, zone_of(job.zone)), found))

    async def _nodes(self, transaction: Transaction) -> dict[str, list[str]]:
        """The nodes that have each job, by its name; this node's own also before it could declare them."""
        found: dict[str, list[str]] = {name: [] for name in self._runtime.settings.jobs}
        for subject, node, _ in await agreements.declared(transaction, JOB):
            found.setdefault(subject.removeprefix(JOB), []).append(node)
        return found

    async def _job(self, transaction: Transaction, name: str, nodes: Sequence[str]) -> api.JobDocument:
        own = self._runtime.settings.jobs.get(name)
        agreed = await agreements.agreed(transaction, job_subject(name))
        if agreed is not None:
            rules = msgspec.json.decode(agreed.value, type=JobRules)
        else:
            assert own is not None, "a job without a declaration is one of this node's settings"
            rules = JobRules.of(own)
        newest = await runs.newest_runs(transaction, job_subject(name), 1)
        following = schedule_of(rules.cron, zone_of(rules.zone)).next_after(wall_ms() // 1000)
        differs = own is not None and rules != JobRules.of(own)
        return api.JobDocument(
            name=name,
            cron=rules.cron,
            zone=rules.zone,
            run=() if own is None else own.run,
            timeout_ms=rules.timeout_ms,
            on_lost=rules.on_lost,
            catch_up=rules.catch_up,
            nodes=tuple(nodes),
            differs_from=agreed.node if differs and agreed is not None else None,
            next=None if following is None else moment(following * 1000),
            last=_run_document(newest[0]) if newest else None,
        )

    def _resting(self) -> str | None:
        if not self._work.maintenance.is_on:
            return None
        return "this node is in maintenance: it starts nothing"

    def _require(self, name: str, nodes: dict[str, list[str]]) -> None:
        if name not in nodes:
            raise UsageError(
                f"no node of the cluster has a job {name}",
                code="no_such_job",
                hint="see the jobs: instep job list",
                job=name,
                known=sorted(nodes),
            )

    # Running --------------------------------------------------------------------------------------------------------

    async def run(self, asked: api.JobRunCommand, speaker: Speaker) -> api.JobRunDocument:
        """Put up a run beside the ticks, which one of the job's nodes takes."""
        self._require_work()
        job: JobSettings | None = self._runtime.settings.jobs.get(asked.name)
        key, subject = f"hand-{secrets.token_hex(6)}", job_subject(asked.name)
        async with self._service.transaction() as (transaction, _):
            self._require(asked.name, await self._nodes(transaction))
            on_lost = "leave" if job is None else job.on_lost
            await runs.add_waiting(transaction, subject, key, "", asked.by, on_lost)
        self._work.look()
        run = await self._followed(subject, key, asked.timeout_s, is_waited=asked.wait)
        return api.JobRunDocument(asked.name, _run_document(run))

    async def add(self, asked: api.RequestAddCommand, speaker: Speaker) -> api.RequestDocument:
        """Put up a request."""
        self._require_work()
        if "\0" in asked.payload:
            raise UsageError("the payload contains NUL", code="bad_payload", hint="give text without it")
        key, subject = shared_name(asked.id or secrets.token_hex(8)), request_subject(asked.kind)
        async with self._service.transaction() as (transaction, _):
            agreed = await agreements.agreed(transaction, subject)
            if agreed is None and asked.kind not in self._runtime.settings.requests:
                raise UsageError(
                    f"no node of the cluster takes requests of kind {asked.kind}",
                    code="no_such_request",
                    hint=f"add a table [requests.{asked.kind}] with its run to instep.toml, then: instep config check",
                    kind=asked.kind,
                )
            on_lost = "leave" if agreed is None else agreed.value
            await runs.add_waiting(transaction, subject, key, asked.payload, asked.by, on_lost)
        self._work.look()
        run = await self._followed(subject, key, asked.timeout_s, is_waited=asked.wait)
        return _request_document(run)

    async def requests(self, asked: api.RequestListCommand, speaker: Speaker) -> api.RequestsDocument:
        async with self._service.transaction() as (transaction, _):
            if asked.kind is None:
                found = await runs.newest_of_all(transaction, REQUEST, asked.last)
            else:
                found = await runs.newest_runs(transaction, request_subject(asked.kind), asked.last)
        return api.RequestsDocument(
            tuple(map(_request_document, found)), tuple(sorted(self._runtime.settings.requests))
        )

    def _require_work(self) -> None:
        if self._work.maintenance.is_on:
            raise RefusedError(
                "this node is in maintenance, and nothing starts",
                code="maintenance",
                hint=f"end it: {self._work.maintenance.ending}",
            )

    async def _followed(
        self, subject: str, key: str, timeout_s: float | None, *, is_waited: bool
    ) -> ClusterRun:
        """The run as it is now, or as it ended."""
        deadline = deadline_in(WAIT_S if timeout_s is None else timeout_s)
        with self._changes() as changed:
            while True:
                changed.clear()
                run = await self._last_attempt(subject, key)
                if not is_waited or run.state in _ENDED:
                    return run
                if asyncio.get_running_loop().time() >= deadline:
                    where = f" on {run.node}" if run.node else ", and no node has taken it"
                    raise UnavailableError(
                        f"{subject.replace(':', ' ')}, run {key}, is {run.state}{where}",
                        code="timeout",
                        hint=f"instep {'job list' if subject.startswith(JOB) else 'request list'}",
                    )
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await changed.wait()

    async def _last_attempt(self, subject: str, key: str) -> ClusterRun:
        async with self._service.transaction() as (transaction, _):
            run = await runs.last_attempt(transaction, subject, key)
        if run is None:
            raise UnavailableError(
                f"the run {key} of {subject} is not in the database any more", code="run_gone"
            )
        return run

    @contextlib.contextmanager
    def _changes(self) -> Iterator[asyncio.Event]:
        changed = asyncio.Event()

        def heard(_: str) -> None:
            changed.set()

        self._service.on_change(heard)
        try:
            yield changed
        finally:
            self._service.forget(heard)

    # Maintenance ----------------------------------------------------------------------------------------------------

    async def maintain(self, asked: api.MaintenanceCommand, speaker: Speaker) -> api.MaintenanceDocument:
        """Begin or end it, and with ``wait`` return once nothing of before runs here."""
        maintenance = self._work.maintenance
        if asked.cluster:
            async with self._service.transaction() as (transaction, _):
                changed = await maintenance.set_cluster(
                    transaction, self._runtime.name, is_on=asked.on, reason=asked.reason
                )
                wanted = await cluster_maintenance(transaction)
            self._work.follow_maintenance(wanted)
        else:
            changed = maintenance.begin(asked.reason) if asked.on else maintenance.end()
            if changed:
                text = f"maintenance of {self._runtime.name} {'begins' if asked.on else 'ends'}"
                text += f": {asked.reason}" if asked.reason else ""
                self._runtime.note("maintenance", text)
        self._work.look()
        await self._quiet(asked)
        in_flight = tuple(_shown(run) for run in self._work.running)
        return api.MaintenanceDocument(
            self._runtime.name, changed, maintenance.is_on, maintenance.is_cluster_on, in_flight
        )

    async def _quiet(self, asked: api.MaintenanceCommand) -> None:
        deadline = deadline_in(WAIT_S if asked.timeout_s is None else asked.timeout_s)
        with self._changes() as changed:
            while asked.on and asked.wait and self._work.running:
                if asyncio.get_running_loop().time() >= deadline:
                    return
                changed.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.5):
                        await changed.wait()


def _shown(run: ClusterRun) -> str:
    return f"{run.subject.replace(':', ' ')}, run {run.key}"


def _run_document(run: ClusterRun) -> api.RunDocument:
    return api.RunDocument(
        key=run.key,
        attempt=run.attempt,
        state=run.state,
        node=run.node or None,
        due_at=moment(run.due_at_ms) or "",
        started_at=moment(run.started_at_ms or None),
        ended_at=moment(run.ended_at_ms or None),
        exit_code=run.exit_code,
        reason=run.reason or None,
        output=run.tail,
        asked_by=run.asked_by or None,
    )


def _request_document(run: ClusterRun) -> api.RequestDocument:
    return api.RequestDocument(run.subject.removeprefix(REQUEST), run.payload, _run_document(run))


def _missed(schedule: Schedule, found: Sequence[ClusterRun]) -> tuple[str, ...]:
    """Ticks between the oldest and the newest of these runs that have none."""
    ticks = sorted(run.due_at_ms // 1000 for run in found if not run.key.startswith("hand-"))
    missed: list[str] = []
    if ticks:
        have, at = set(ticks), schedule.next_after(ticks[0])
        while at is not None and at < ticks[-1] and len(missed) < MISSED_MAX:
            if at not in have:
                missed.append(runs.tick_key(at))
            at = schedule.next_after(at)
    return tuple(missed)
