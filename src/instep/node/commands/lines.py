"""Publishing, waiting, rolling back, pausing: what an operator does to a line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.core import follow_vocabulary as f
from instep.core import publish_vocabulary as p
from instep.core import rollout_vocabulary as r
from instep.errors import UnavailableError
from instep.model.ids import HeadRef, NodeName, node_name
from instep.model.standing import Standing
from instep.net import messages as m
from instep.node.commands.outcomes import author, error_of, held_document, outcome_document, writer_of
from instep.node.commands.parameters import generation_of, held_paths_of, running_service_of
from instep.node.control import Command, Params, Speaker
from instep.node.driver import wall_ms
from instep.node.follower import FollowService
from instep.node.rollout_view import FAILED, why_never
from instep.node.snapshot import moment, reports_of
from instep.node.writer import WriterService

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]

RETRY_S = 30.0
GOING_BACK = r.RolloutState.PUTTING_BACK.value
GOING_BACK_S = 10.0
"""Whoever waits for a generation that failed is told so when all are back, at the latest after this time."""
PUBLISH_S = 3_600.0
POLL_S = 1.0


def commands(daemon: Daemon) -> Mapping[str, Command]:
    lines = Lines(daemon)
    return {
        "publish": lines.publish,
        "wait": lines.wait,
        "retry": lines.retry,
        "pause": lines.pause,
        "resume": lines.resume,
    }


class Lines:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def publish(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = writer_of(self._daemon, params)
        is_dry = bool(params.get("dry_run"))

        def ask(number: int) -> p.PublishEvent:
            return p.PublishAsked(
                number,
                author=str(params.get("author") or author()),
                message=str(params.get("message") or ""),
                accept_deletions=bool(params.get("accept_deletions")),
                is_dry_run=is_dry,
                is_over=bool(params.get("over")),
                accept_held=held_paths_of(params),
            )

        outcome = await service.ask(ask, PUBLISH_S)
        result = outcome_document(service, outcome)
        if params.get("wait") and not is_dry:
            waiting = {
                "fileset": service.fileset.name,
                "timeout_s": params.get("timeout_s") or 60.0,
                "flush": False,
            }
            result = {**result, "wait": await self.wait(waiting, speaker)}
        return result

    # Wait ---------------------------------------------------------------------------------------------------

    async def wait(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """Publish what was written before the call, then wait until everybody asked for is in step with it."""
        service = running_service_of(self._daemon, params)
        limit = float(params.get("timeout_s") or 60.0)
        deadline = asyncio.get_running_loop().time() + limit
        if isinstance(service, WriterService):
            if params.get("flush", True):
                await self._flush(service, limit)
            target = self._target(service, params)
        else:
            target = await self._followed_target(service, params, limit)
        settled = deadline
        while True:
            changed = self._daemon.runtime.changed
            waiting = self._waiting_for(service, target, params)
            if not waiting:
                return self._waited(service, target, True, [])
            failed = self._failed(service, target, waiting)
            now = asyncio.get_running_loop().time()
            settled = now + GOING_BACK_S if failed is None else settled
            if failed is not None and (failed["state"] != GOING_BACK or now >= settled):
                return {**self._waited(service, target, False, waiting), "failed": failed}
            await self._show(service, waiting, speaker)
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return self._waited(service, target, False, waiting)
            try:
                async with asyncio.timeout(min(left, POLL_S)):
                    await changed.wait()
            except TimeoutError:
                continue

    def _failed(
        self, service: WriterService | FollowService, target: HeadRef | None, waiting: list[str]
    ) -> dict[str, Any] | None:
        """Why to wait longer is in vain: a rollout that failed, a node that refused the generation."""
        if isinstance(service, FollowService):
            goal, standing = target or service.facts.head, service.standing
            if goal is None or service.facts.refused != goal:
                return None
            name = self._daemon.runtime.name
            return {"node": name, "code": standing.code, "reason": standing.reason, "state": None}
        if target is None:
            return None
        reports = reports_of(self._daemon.runtime.store, service.line)
        names = [NodeName(word.split(" ")[0]) for word in waiting]
        return why_never(service.rollout.facts, target, {n: reports[n] for n in names if n in reports})

    async def _show(
        self, service: WriterService | FollowService, waiting: list[str], speaker: Speaker
    ) -> None:
        """How far those are that are waited for: the slowest of them, by bytes."""
        names = ", ".join(word.split(" ")[0] for word in waiting[:5])
        if isinstance(service, FollowService):
            told = [service.applying.progress]
        else:
            reports = reports_of(self._daemon.runtime.store, service.line)
            found = (reports.get(NodeName(word.split(" ")[0])) for word in waiting)
            told = [(r.done_bytes, r.total_bytes) for r in found if r is not None]
        moving = [(done, total) for done, total in told if total]
        if moving:
            done, total = min(moving, key=lambda each: each[0] / each[1])
            await speaker.progress(f"first bytes to last on {names}", done, total, "bytes")
        else:
            await speaker.progress(f"waiting for {names}", 0, None, "nodes")

    async def _flush(self, service: WriterService, limit: float) -> None:
        try:
            outcome = await service.ask(lambda number: p.PublishAsked(number, is_flush=True), limit)
        except TimeoutError:
            return  # the wait below tells what it still waits for
        if isinstance(outcome, p.NotPublished):
            raise error_of(outcome.trouble)

    def _target(self, service: WriterService, params: Params) -> HeadRef | None:
        number = params.get("generation")
        if number is None:
            return service.head
        return generation_of(self._daemon.runtime.store, service, int(number))

    async def _followed_target(self, service: FollowService, params: Params, limit: float) -> HeadRef | None:
        """On a partner: the home's newest head, asked now."""
        for uplink in list(service.sources.values()):
            request = m.HeadsRequest((m.KnownLine(service.line, service.facts.head),))
            try:
                reply = await uplink.client.heads(request, total_s=limit)
            except UnavailableError:
                continue
            for head in reply.heads:
                service.head_seen(uplink.name, head)
        number = params.get("generation")
        service.driver.post(f.PollAsked())
        await asyncio.sleep(0)
        return None if number is None else generation_of(self._daemon.runtime.store, service, int(number))

    def _waiting_for(
        self, service: WriterService | FollowService, target: HeadRef | None, params: Params
    ) -> list[str]:
        """Nodes that are not in step with the target yet, each with its standing."""
        if isinstance(service, FollowService):
            goal = target or service.facts.head
            live = service.facts.live
            is_there = goal is not None and live is not None and live.position >= goal.position
            return (
                []
                if is_there and service.standing.standing is Standing.IN_STEP
                else [f"{self._daemon.runtime.name} ({service.standing.standing.value})"]
            )
        if target is None:
            return [f"{self._daemon.runtime.name} (nothing published yet)"]
        reports = reports_of(self._daemon.runtime.store, service.line)
        wanted = self._wanted(service, params, reports)
        waiting: list[str] = []
        for name in sorted(wanted):
            report = reports.get(name)
            if report is None:
                waiting.append(f"{name} (unknown)")
            elif (
                report.live is None
                or report.live.position < target.position
                or (report.live.id == target.id and report.standing.standing is not Standing.IN_STEP)
            ):
                waiting.append(f"{name} ({report.standing.standing.value})")
        return waiting

    def _wanted(
        self, service: WriterService, params: Params, reports: Mapping[NodeName, m.Report]
    ) -> set[NodeName]:
        """Whom to wait for: the named, or every direct partner that accepted; with ``fleet`` those behind hubs."""
        if params.get("nodes"):
            return {node_name(str(name)) for name in params["nodes"]}
        wanted: set[NodeName] = set()
        for name, report in reports.items():
            if report.via and not params.get("fleet"):
                continue
            if not report.via and self._daemon.peers.access.why_not(name, service) is not None:
                continue
            if report.standing.standing is Standing.OBSERVING:
                continue
            wanted.add(name)
        for name, session in self._daemon.peers.sessions.items():
            if service.line in session.accepted and self._daemon.peers.access.why_not(name, service) is None:
                said = reports.get(name)
                if said is None or said.standing.standing is not Standing.OBSERVING:
                    wanted.add(name)
        return wanted

    def _waited(
        self,
        service: WriterService | FollowService,
        target: HeadRef | None,
        reached: bool,
        waiting: list[str],
    ) -> dict[str, Any]:
        goal = target or (service.facts.head if isinstance(service, FollowService) else service.head)
        return {
            "fileset": service.fileset.name,
            "reached": reached,
            "generation": goal.as_json() if goal is not None else None,
            "waiting_for": [
                {"node": word.split(" ")[0], "standing": word.partition("(")[2].rstrip(")")}
                for word in waiting
            ],
            **(
                held_document(service, service.machine.facts.held)
                if isinstance(service, WriterService)
                else {}
            ),
        }

    # Retry, pause, resume -------------------------------------------------------------------------------------

    async def retry(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        node = params.get("node")
        if node is not None and node != self._daemon.runtime.name:
            service = running_service_of(self._daemon, params)
            session = self._daemon.peers.sessions.get(node_name(str(node)))
            if session is None:
                raise UnavailableError(
                    f"{node} is not connected",
                    hint=f"on {node}: instep retry",
                    code="not_connected",
                    node=node,
                )
            session.tell(m.Nudge(service.line, "retry"))
            if isinstance(service, WriterService) and service.rollout.facts.state in FAILED:
                await service.rollout.ask(r.RetryAsked, RETRY_S)
            return {"fileset": service.fileset.name, "node": node, "changed": True}
        names = [params["fileset"]] if params.get("fileset") else list(self._daemon.services)
        for name in names:
            service = running_service_of(self._daemon, {"fileset": name})
            self._daemon.runtime.try_state()
            await service.driver.hurry()
            if isinstance(service, FollowService):
                service.asked_to("retry")
            else:
                service.driver.post(p.RetryAsked())
                if service.rollout.facts.state in FAILED:  # begun anew, for everybody
                    self._daemon.peers.nudge(service.line, "retry")
                    await service.rollout.ask(r.RetryAsked, RETRY_S)
        return {"fileset": ", ".join(names), "changed": bool(names)}

    async def pause(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = running_service_of(self._daemon, params)
        until = wall_ms() + int(float(params["for_s"]) * 1000) if params.get("for_s") else None
        reason = str(params.get("reason") or "")
        if isinstance(service, FollowService):
            service.driver.post(f.Paused(reason, until))
        else:
            service.driver.post(p.Paused(reason, until))
        self._daemon.arm_resume(service, until)
        return {
            "fileset": service.fileset.name,
            "changed": True,
            "until": moment(until),
            "reason": reason or None,
        }

    async def resume(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        service = running_service_of(self._daemon, params)
        service.driver.post(f.Resumed() if isinstance(service, FollowService) else p.Resumed())  # type: ignore[arg-type]
        return {"fileset": service.fileset.name, "changed": True}
