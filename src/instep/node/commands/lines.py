"""Publishing, waiting, rolling back, pausing: the acts of an operator on a line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial

from msgspec import UNSET
from msgspec.structs import replace

from instep.api import lines as api
from instep.api.parts import WaitingDocument, generation
from instep.core.publish import vocabulary as p
from instep.core.rollout import vocabulary as r
from instep.errors import RefusedError
from instep.model.ids import FilesetName, HeadRef, NodeName, node_name
from instep.model.standing import Standing
from instep.net.messages import messages as m
from instep.net.task_group import TaskGroup
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import author_as, outcome_document, raise_for, writer_of
from instep.node.commands.patience import change_within, deadline_in
from instep.node.commands.targets import (
    accepted_by,
    current_reports,
    direct_followers,
    generation_of,
    running_service_of,
    session_of,
)
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import moment
from instep.node.peers.network.dates import too_old
from instep.node.runtime.driver import wall_ms
from instep.node.trees.scanning.held_view import held_documents

WAIT_S = 60.0
LOOK_S = 10.0
"""So long partners get to offer what was changed there, before the wait for their reports begins."""
GOING_BACK = r.RolloutState.PUTTING_BACK.value
GOING_BACK_S = 10.0
"""``wait`` for a generation that failed ends when all nodes are back, at the latest after this time."""
PUBLISH_S = 3_600.0


class Lines(CommandHandlers):
    async def publish(self, asked: api.PublishCommand, speaker: Speaker) -> api.OutcomeDocument:
        service = writer_of(self._node, asked.fileset)
        held = tuple(path.rstrip(b"/") for path in asked.held_b64) if asked.accept_held else None
        ask = partial(
            p.PublishAsked,
            author=author_as(asked.author),
            message=asked.message,
            accept_deletions=asked.accept_deletions,
            is_dry_run=asked.dry_run,
            is_over=asked.over,
            accept_held=held,
            is_whole=True,
        )
        result = outcome_document(service, await service.ask(ask, PUBLISH_S))
        if asked.wait and not asked.dry_run:
            waiting = api.WaitCommand(service.fileset.name, flush=False, timeout_s=asked.timeout_s)
            result = replace(result, wait=await self.wait(waiting, speaker))
        return result

    async def wait(self, asked: api.WaitCommand, speaker: Speaker) -> api.WaitDocument:
        """Publish all changes of before the call, then wait until the nodes that were asked for are in step."""
        service = running_service_of(self._node, asked.fileset)
        limit = asked.timeout_s or WAIT_S
        now, deadline = asyncio.get_running_loop().time, deadline_in(limit)
        if asked.flush and service.is_written_here:
            await self._look_for_edits(service, min(limit / 2, LOOK_S))
        if asked.flush or not service.is_written_here:
            raise_for(await service.catch_up(limit))
        target = service.head if service.is_written_here else None
        if asked.generation is not None:
            target = generation_of(service, asked.generation)
        settled = deadline
        while True:
            changed = self._node.runtime.changed
            behind = service.not_in_step(target, self._wanted(service, asked))
            waiting = (*behind, *too_old(self._node.peers.freshness, service, asked.max_behind_ms))
            if not waiting:
                return self._waited(service, target, True, ())
            failed = service.why_never(target, {NodeName(each.node) for each in behind}) if behind else None
            settled = now() + GOING_BACK_S if failed is None else settled
            if failed is not None and (failed.state != GOING_BACK or now() >= settled):
                return replace(self._waited(service, target, False, waiting), failed=failed)
            await self._show(service, waiting, speaker)
            if now() >= deadline:
                return self._waited(service, target, False, waiting)
            await change_within(changed, deadline - now())

    async def _look_for_edits(self, service: LineService, within_s: float) -> None:
        """Have the partners whose changes are taken here offer what was changed there before the call. One that does
        not answer is waited for by its reports."""
        accepted = accepted_by(self._node, service)
        offering = [accepted[name] for name in service.fileset.changes_from(accepted) if name in accepted]
        async with TaskGroup() as group:
            for session in offering:
                group.create_task(session.look(service.line, within_s))

    async def _show(self, service: LineService, waiting: Sequence[WaitingDocument], speaker: Speaker) -> None:
        """Report the progress of the nodes that are waited for: the slowest one, by bytes."""
        names = ", ".join(each.node for each in waiting[:5])
        told = service.progress_of({NodeName(each.node) for each in waiting})
        moving = [(done, total) for done, total in told if total]
        if moving:
            done, total = min(moving, key=lambda each: each[0] / each[1])
            await speaker.progress(f"first bytes to last on {names}", done, total, "bytes")
        else:
            await speaker.progress(f"waiting for {names}", 0, None, "nodes")

    def _wanted(self, service: LineService, asked: api.WaitCommand) -> set[NodeName]:
        """The nodes to wait for: the named, or every direct partner that accepted; with ``fleet`` nodes behind hubs."""
        if asked.nodes:
            return {node_name(name) for name in asked.nodes}
        wanted, reports = set(direct_followers(self._node, service)), current_reports(self._node, service)
        if asked.fleet:
            wanted |= {name for name, report in reports.items() if report.via}
        observing = (
            name for name, report in reports.items() if report.standing.standing is Standing.OBSERVING
        )
        return wanted.difference(observing)

    def _waited(
        self,
        service: LineService,
        target: HeadRef | None,
        reached: bool,
        waiting: tuple[WaitingDocument, ...],
    ) -> api.WaitDocument:
        result = api.WaitDocument(service.fileset.name, reached, generation(target or service.head), waiting)
        if not service.is_written_here:
            return result
        held, _ = service.not_carried
        return replace(result, held=held_documents(service.fileset, held), held_total=held.total)

    async def retry(self, asked: api.RetryCommand, speaker: Speaker) -> api.RetryDocument:
        if asked.node is not None and asked.node != self._node.runtime.name:
            return await self._retry_on(node_name(asked.node), asked.fileset)
        names = [asked.fileset] if asked.fileset else list(self._node.services)
        services = [running_service_of(self._node, name) for name in names]
        active = [service for service in services if not service.facts.is_paused]
        if services and not active:
            raise _paused(services[0].fileset.name, services[0].facts.paused_reason)
        has_trouble = [service for service in active if service.standing.standing not in _FINE]
        for service in active:
            self._node.runtime.try_state()
            await service.driver.hurry()
            await service.retry()
        why = "" if has_trouble else "nothing failed here; the tree is looked at once more"
        if len(active) < len(services):
            skipped = ", ".join(service.fileset.name for service in services if service not in active)
            why = f"{why}; paused: {skipped}".removeprefix("; ")
        return api.RetryDocument(
            fileset=", ".join(service.fileset.name for service in active),
            changed=bool(has_trouble),
            why=why or UNSET,
        )

    async def _retry_on(self, node: NodeName, fileset: str | None) -> api.RetryDocument:
        """Ask a partner to retry, and begin its rollout anew where that failed."""
        service = running_service_of(self._node, fileset)
        name = service.fileset.name
        session = session_of(self._node, node, f"on {node}: instep retry {name}")
        report = current_reports(self._node, service).get(node)
        if service.line not in session.accepted:
            raise RefusedError(
                f"{node} does not follow {name} from here",
                hint=f"on {node}: instep fileset accept {name} PATH"
                if not service.fileset.is_of_many_homes
                else f"on {node}: instep fileset add {name} PATH --mode replicate",
                code="not_accepted",
                node=node,
            )
        if report is not None and report.standing.standing is Standing.PAUSED:
            raise _paused(name, report.standing.reason or "", node)
        session.tell(m.Nudge(service.line, "retry"))
        await service.begin_rollout_anew()
        is_fine = report is not None and report.standing.standing in _FINE
        why = f"nothing failed on {node}; its tree is looked at once more" if is_fine else UNSET
        return api.RetryDocument(fileset=name, node=node, changed=not is_fine, why=why)

    async def pause(self, asked: api.PauseCommand, speaker: Speaker) -> api.PauseDocument:
        service = running_service_of(self._node, asked.fileset)
        until = wall_ms() + int(asked.for_s * 1000) if asked.for_s else None
        reason = asked.reason or ""
        before = (service.facts.is_paused, service.facts.paused_until_wall_ms, service.facts.paused_reason)
        self._node.runtime.try_state()
        service.pause(reason, until)
        await service.driver.settled()
        is_other = before != (True, until, reason)
        return api.PauseDocument(service.fileset.name, is_other, moment(until), reason or None)

    async def resume(self, asked: api.ResumeCommand, speaker: Speaker) -> api.ResumeDocument:
        service = running_service_of(self._node, asked.fileset)
        was_paused = service.facts.is_paused
        self._node.runtime.try_state()
        service.resume()
        await service.driver.settled()
        return api.ResumeDocument(service.fileset.name, was_paused)


_FINE = (Standing.IN_STEP, Standing.OBSERVING)


def _paused(name: FilesetName, reason: str, node: NodeName | None = None) -> RefusedError:
    """Nothing is retried during a pause."""
    resume = f"instep resume {name}"
    return RefusedError(
        f"{name} is paused {f'on {node}' if node else 'here'}" + (f" ({reason})" if reason else ""),
        hint=f"on {node}: {resume}" if node else resume,
        code="paused",
        fileset=name,
    )
