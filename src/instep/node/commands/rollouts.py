"""Rollouts on the writer: shown, paused, resumed, aborted, confirmed, begun anew; and reloads without a generation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import UNSET

from instep.api import rollouts as api
from instep.api.parts import FailureDocument, WaitingDocument, generation
from instep.core.rollout import vocabulary as r
from instep.core.rollout.book import GOING
from instep.core.rollout.nodes import has_reloaded
from instep.core.vocabulary import HookKind, RunHook
from instep.errors import RefusedError, UnavailableError
from instep.model.ids import HeadRef
from instep.net.messages.partner_reports import view_of_report
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import author, raise_for, writer_of
from instep.node.commands.patience import change_within, deadline_in, watched
from instep.node.lines.hook_calls import run_hook
from instep.node.lines.snapshot import reports_of
from instep.node.writing.rollout_view import rollouts_document
from instep.node.writing.writer import WriterService

ASK_S = 30.0
RELOAD_S = 300.0


class Rollouts(CommandHandlers):
    async def show(self, asked: api.RolloutShowCommand, speaker: Speaker) -> api.RolloutsDocument:
        """The present rollout and the past ones; with ``watch`` an item for every change until the daemon stops."""
        service, store = writer_of(self._node, asked.fileset), self._node.runtime.store

        def document() -> api.RolloutsDocument:
            return rollouts_document(store, service.line, service.rollout.facts, service.rollout.view)

        return await watched(self._node, document, speaker, is_watched=asked.watch)

    async def pause(self, asked: api.RolloutPauseCommand, speaker: Speaker) -> api.RolloutStateDocument:
        return await self._ask(asked.fileset, r.PauseAsked)

    async def resume(self, asked: api.RolloutResumeCommand, speaker: Speaker) -> api.RolloutStateDocument:
        return await self._ask(asked.fileset, r.ResumeAsked)

    async def abort(self, asked: api.RolloutAbortCommand, speaker: Speaker) -> api.RolloutStateDocument:
        service = writer_of(self._node, asked.fileset)
        facts = service.rollout.facts
        is_done = facts.failed_code == "aborted" or facts.state is r.RolloutState.ABORTED
        if asked.dry_run:
            view = service.rollout.view
            switched = (
                node.node for node in (view.nodes if view is not None else ()) if node.state == "switched"
            )
            is_going = not is_done and facts.state in (*GOING, r.RolloutState.CONFIRMING)
            return api.RolloutStateDocument(
                fileset=service.fileset.name,
                changed=is_going,
                generation=generation(facts.target),
                state=facts.state.value,
                paused=facts.is_paused,
                dry_run=True,
                going_back=tuple(switched) if is_going and not asked.keep else (),
            )
        return await self._ask(
            asked.fileset, lambda number: r.AbortAsked(number, not asked.keep), is_done=is_done
        )

    async def confirm(self, asked: api.RolloutConfirmCommand, speaker: Speaker) -> api.RolloutStateDocument:
        facts = writer_of(self._node, asked.fileset).rollout.facts
        return await self._ask(asked.fileset, r.ConfirmAsked, is_done=facts.is_confirmed)

    async def approve(self, asked: api.RolloutApproveCommand, speaker: Speaker) -> api.RolloutStateDocument:
        """By the person who gave the command."""
        facts, person, seen = writer_of(self._node, asked.fileset).rollout.facts, author(), asked.generation
        is_seen = seen is None or (facts.target is not None and facts.target.number == seen)
        is_done = is_seen and bool(facts.approved_by) and facts.state in (*GOING, r.RolloutState.CONFIRMING)
        return await self._ask(
            asked.fileset, lambda number: r.ApproveAsked(number, person, seen), is_done=is_done
        )

    async def retry(self, asked: api.RolloutRetryCommand, speaker: Speaker) -> api.RolloutStateDocument:
        """Begin the ended rollout of the head anew; partners drop their refusals."""
        self._node.peers.nudge(writer_of(self._node, asked.fileset).line, "retry")
        return await self._ask(asked.fileset, r.BeginAnewAsked)

    async def _ask(
        self, fileset: str | None, make: Callable[[int], r.Ask], *, is_done: bool = False
    ) -> api.RolloutStateDocument:
        """``is_done`` when the same was asked before: then nothing is left to change."""
        service = writer_of(self._node, fileset)
        before = service.rollout.facts
        if not is_done:
            self._node.runtime.try_state()
            raise_for(await service.rollout.ask(make, ASK_S))
        after, view = service.rollout.facts, service.rollout.view
        return api.RolloutStateDocument(
            fileset=service.fileset.name,
            changed=(after.serial, after.approvals) != (before.serial, before.approvals),
            generation=generation(after.target),
            state=after.state.value,
            paused=after.is_paused,
            reason=view.reason if view is not None and after.is_to_approve and after.approvals else UNSET,
        )

    async def reload(self, asked: api.ReloadCommand, speaker: Speaker) -> api.ReloadDocument:
        """The reload hooks of the writer, then of its direct partners: at once, or ``rolling`` one batch at a time."""
        service = writer_of(self._node, asked.fileset)
        head = service.head
        if head is None:
            raise RefusedError(
                f"{service.fileset.name} has no generation yet", hint=f"instep publish {service.fileset.name}",
                code="no_generation",
            )  # fmt: skip
        deadline = deadline_in(asked.timeout_s or RELOAD_S)
        effect = RunHook(0, HookKind.RELOAD, head, head)
        self._node.runtime.try_state()
        raise_for(await run_hook(service.tree, effect, ()))
        raise_for(await service.rollout.ask(lambda number: r.ReloadAsked(number, asked.rolling), ASK_S))
        serial = service.rollout.facts.reload_serial
        while True:
            changed = self._node.runtime.changed
            result = self._reloaded(service, head, serial)
            left = deadline - asyncio.get_running_loop().time()
            if not result.waiting_for or result.failed or left <= 0:
                return result
            done, total = len(result.reloaded), len(result.reloaded) + len(result.waiting_for)
            await speaker.progress(f"reloading {service.fileset.name}", done, total, "nodes")
            if service.rollout.facts.reload_serial != serial:
                raise UnavailableError(
                    f"a newer generation or reload of {service.fileset.name} came first",
                    hint=f"instep rollout show {service.fileset.name}", code="superseded",
                )  # fmt: skip
            await change_within(changed, left)

    def _reloaded(self, service: WriterService, head: HeadRef, serial: int) -> api.ReloadDocument:
        node = self._node
        reports = reports_of(node.runtime.store, service.line)
        reloaded: list[str] = [node.runtime.name]
        waiting: list[WaitingDocument] = []
        failed: list[FailureDocument] = []
        absent: list[str] = []
        for name in node.peers.followers(service.line):
            report = reports.get(name)
            if name not in node.peers.sessions or report is None:
                absent.append(name)
            elif report.live != head:
                continue  # it serves another generation, or none: its next switch reloads anyway
            elif has_reloaded(view_of_report(report), serial):
                reloaded.append(name)
            elif report.order_serial >= serial and report.standing.code in ("reload_failed", "probe_failed"):
                failed.append(FailureDocument(name, report.standing.code, report.standing.reason))
            else:
                waiting.append(WaitingDocument(name, report.standing.standing.value))
        return api.ReloadDocument(
            fileset=service.fileset.name,
            generation=generation(head),
            reloaded=tuple(reloaded),
            waiting_for=tuple(waiting),
            failed=tuple(failed),
            absent=tuple(absent),
            without_hook=UNSET if service.fileset.hooks.reload else True,
        )
