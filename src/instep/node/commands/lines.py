"""Publishing, waiting, rolling back, pausing: the acts of an operator on a line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from instep.api import lines as api
from instep.api.parts import FailureDocument, WaitingDocument, generation
from instep.core.follow import vocabulary as f
from instep.core.publish import vocabulary as p
from instep.core.rollout import vocabulary as r
from instep.errors import UnavailableError
from instep.model.ids import HeadRef, NodeName, node_name
from instep.model.standing import Standing
from instep.net.messages import messages as m
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import author, error_of, outcome_document, writer_of
from instep.node.commands.patience import change_within
from instep.node.commands.targets import accepted_by, generation_of, running_service_of, session_of
from instep.node.following.follower import FollowService
from instep.node.lines.snapshot import moment, reports_of
from instep.node.node import Service
from instep.node.runtime.driver import wall_ms
from instep.node.trees.scanning.held_view import held_documents
from instep.node.writing.rollout_view import why_never
from instep.node.writing.writer import WriterService

WAIT_S = 60.0
GOING_BACK = r.RolloutState.PUTTING_BACK.value
GOING_BACK_S = 10.0
"""``wait`` for a generation that failed ends when all nodes are back, at the latest after this time."""
PUBLISH_S = 3_600.0


class Lines(CommandHandlers):
    async def publish(self, asked: api.PublishCommand, speaker: Speaker) -> api.OutcomeDocument:
        service = writer_of(self._node, asked.fileset)
        held = tuple(path.rstrip(b"/") for path in asked.held_b64) if asked.accept_held else None

        def ask(number: int) -> p.PublishEvent:
            return p.PublishAsked(
                number,
                author=asked.author or author(),
                message=asked.message,
                accept_deletions=asked.accept_deletions,
                is_dry_run=asked.dry_run,
                is_over=asked.over,
                accept_held=held,
            )

        result = outcome_document(service, await service.ask(ask, PUBLISH_S))
        if asked.wait and not asked.dry_run:
            waiting = api.WaitCommand(service.fileset.name, flush=False, timeout_s=asked.timeout_s)
            result = replace(result, wait=await self.wait(waiting, speaker))
        return result

    # Wait ---------------------------------------------------------------------------------------------------

    async def wait(self, asked: api.WaitCommand, speaker: Speaker) -> api.WaitDocument:
        """Publish all changes of before the call, then wait until the nodes that were asked for are in step."""
        service = running_service_of(self._node, asked.fileset)
        limit = asked.timeout_s or WAIT_S
        deadline = asyncio.get_running_loop().time() + limit
        if isinstance(service, WriterService):
            if asked.flush:
                await self._flush(service, limit)
            target = self._target(service, asked.generation)
        else:
            target = await self._followed_target(service, asked.generation, limit)
        settled = deadline
        while True:
            changed = self._node.runtime.changed
            waiting = self._waiting_for(service, target, asked)
            if not waiting:
                return self._waited(service, target, True, ())
            failed = self._failed(service, target, waiting)
            now = asyncio.get_running_loop().time()
            settled = now + GOING_BACK_S if failed is None else settled
            if failed is not None and (failed.state != GOING_BACK or now >= settled):
                return replace(self._waited(service, target, False, waiting), failed=failed)
            await self._show(service, waiting, speaker)
            left = deadline - asyncio.get_running_loop().time()
            if left <= 0:
                return self._waited(service, target, False, waiting)
            await change_within(changed, left)

    def _failed(
        self,
        service: Service,
        target: HeadRef | None,
        waiting: Sequence[WaitingDocument],
    ) -> FailureDocument | None:
        """Why to wait longer is in vain: a rollout that failed, a node that refused the generation."""
        if isinstance(service, FollowService):
            goal, standing = target or service.facts.head, service.standing
            if goal is None or service.facts.refused != goal:
                return None
            return FailureDocument(self._node.runtime.name, standing.code, standing.reason, None)
        if target is None:
            return None
        reports = reports_of(self._node.runtime.store, service.line)
        names = {NodeName(each.node) for each in waiting}
        return why_never(service.rollout.facts, target, {n: reports[n] for n in names & reports.keys()})

    async def _show(
        self,
        service: Service,
        waiting: Sequence[WaitingDocument],
        speaker: Speaker,
    ) -> None:
        """How far those are that are waited for: the slowest of them, by bytes."""
        names = ", ".join(each.node for each in waiting[:5])
        if isinstance(service, FollowService):
            told = [service.applying.progress]
        else:
            reports = reports_of(self._node.runtime.store, service.line)
            found = (reports.get(NodeName(each.node)) for each in waiting)
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
            return  # the wait below names the nodes that it still waits for
        if isinstance(outcome, p.NotPublished):
            raise error_of(outcome.trouble)

    def _target(self, service: WriterService, number: int | None) -> HeadRef | None:
        if number is None:
            return service.head
        return generation_of(self._node.runtime.store, service, number)

    async def _followed_target(
        self, service: FollowService, number: int | None, limit: float
    ) -> HeadRef | None:
        """On a partner: the home's newest head, asked now."""
        for uplink in list(service.sources.values()):
            request = m.HeadsRequest((m.KnownLine(service.line, service.facts.head),))
            try:
                reply = await uplink.client.heads(request, total_s=limit)
            except UnavailableError:
                continue
            for head in reply.heads:
                service.head_seen(uplink.name, head)
        service.driver.post(f.PollAsked())
        await asyncio.sleep(0)
        return None if number is None else generation_of(self._node.runtime.store, service, number)

    def _waiting_for(
        self, service: Service, target: HeadRef | None, asked: api.WaitCommand
    ) -> tuple[WaitingDocument, ...]:
        """Nodes that are not in step with the target yet, each with its standing."""
        me = self._node.runtime.name
        if isinstance(service, FollowService):
            goal, live, standing = target or service.facts.head, service.facts.live, service.standing.standing
            is_there = goal is not None and live is not None and live.position >= goal.position
            if is_there and standing is Standing.IN_STEP:
                return ()
            return (WaitingDocument(me, standing.value),)
        if target is None:
            return (WaitingDocument(me, "nothing published yet"),)
        reports = reports_of(self._node.runtime.store, service.line)
        waiting: list[WaitingDocument] = []
        for name in sorted(self._wanted(service, asked, reports)):
            report = reports.get(name)
            if report is None:
                waiting.append(WaitingDocument(name, "unknown"))
            elif (
                report.live is None
                or report.live.position < target.position
                or (report.live.id == target.id and report.standing.standing is not Standing.IN_STEP)
            ):
                waiting.append(WaitingDocument(name, report.standing.standing.value))
        return tuple(waiting)

    def _wanted(
        self, service: WriterService, asked: api.WaitCommand, reports: Mapping[NodeName, m.Report]
    ) -> set[NodeName]:
        """The nodes to wait for: the named, or every direct partner that accepted; with ``fleet`` nodes behind hubs."""
        if asked.nodes:
            return {node_name(name) for name in asked.nodes}
        wanted: set[NodeName] = set()
        for name, report in reports.items():
            if report.via and not asked.fleet:
                continue
            if not report.via and self._node.peers.access.why_not(name, service) is not None:
                continue
            if report.standing.standing is Standing.OBSERVING:
                continue
            wanted.add(name)
        for name in accepted_by(self._node, service):
            said = reports.get(name)
            if said is None or said.standing.standing is not Standing.OBSERVING:
                wanted.add(name)
        return wanted

    def _waited(
        self,
        service: Service,
        target: HeadRef | None,
        reached: bool,
        waiting: tuple[WaitingDocument, ...],
    ) -> api.WaitDocument:
        goal = target or (service.facts.head if isinstance(service, FollowService) else service.head)
        result = api.WaitDocument(service.fileset.name, reached, generation(goal), waiting)
        if isinstance(service, FollowService):
            return result
        held = service.machine.facts.held
        return replace(result, held=held_documents(service.fileset, held), held_total=held.total)

    # Retry, pause, resume -------------------------------------------------------------------------------------

    async def retry(self, asked: api.RetryCommand, speaker: Speaker) -> api.RetryDocument:
        if asked.node is not None and asked.node != self._node.runtime.name:
            return await self._retry_on(node_name(asked.node), asked.fileset)
        names = [asked.fileset] if asked.fileset else list(self._node.services)
        for name in names:
            service = running_service_of(self._node, name)
            self._node.runtime.try_state()
            await service.driver.hurry()
            await service.retry()
        return api.RetryDocument(fileset=", ".join(names), changed=bool(names))

    async def _retry_on(self, node: NodeName, fileset: str | None) -> api.RetryDocument:
        """Ask a partner to retry, and begin its rollout anew where that failed."""
        service = running_service_of(self._node, fileset)
        session_of(self._node, node, f"on {node}: instep retry").tell(m.Nudge(service.line, "retry"))
        if isinstance(service, WriterService):
            await service.rollout.begin_anew()
        return api.RetryDocument(fileset=service.fileset.name, node=node, changed=True)

    async def pause(self, asked: api.PauseCommand, speaker: Speaker) -> api.PauseDocument:
        service = running_service_of(self._node, asked.fileset)
        until = wall_ms() + int(asked.for_s * 1000) if asked.for_s else None
        reason = asked.reason or ""
        service.pausing.pause(reason, until)
        return api.PauseDocument(service.fileset.name, True, moment(until), reason or None)

    async def resume(self, asked: api.ResumeCommand, speaker: Speaker) -> api.ResumeDocument:
        service = running_service_of(self._node, asked.fileset)
        service.pausing.resume()
        return api.ResumeDocument(service.fileset.name, True)
