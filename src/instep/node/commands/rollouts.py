"""Rollouts on the writer: shown, paused, resumed, aborted, confirmed, begun anew; and reloads without a generation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from instep.core import rollout_vocabulary as r
from instep.core.rollout_nodes import has_reloaded
from instep.core.vocabulary import HookKind, RunHook
from instep.errors import RefusedError, UnavailableError
from instep.model.ids import HeadRef, NodeName
from instep.node.commands.outcomes import error_of, writer_of
from instep.node.control import Command, Params, Speaker
from instep.node.hooks import run_hook
from instep.node.rollout import view_of_report
from instep.node.rollout_view import rollouts_document
from instep.node.snapshot import reports_of
from instep.node.writer import WriterService

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]

ASK_S = 30.0
RELOAD_S = 300.0
WATCH_S = 1.0


def commands(daemon: Daemon) -> Mapping[str, Command]:
    rollouts = Rollouts(daemon)
    return {
        "rollout_show": rollouts.show,
        "rollout_pause": rollouts.pause,
        "rollout_resume": rollouts.resume,
        "rollout_abort": rollouts.abort,
        "rollout_confirm": rollouts.confirm,
        "rollout_retry": rollouts.retry,
        "reload": rollouts.reload,
    }


class Rollouts:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    # Show ---------------------------------------------------------------------------------------------------

    async def show(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """The present rollout and the past ones; with ``watch`` an item for every change until the daemon stops."""
        service = writer_of(self._daemon, params)
        last: Mapping[str, Any] | None = None
        while params.get("watch") and not self._daemon.stopping.is_set():
            changed = self._daemon.runtime.changed
            document = self._document(service)
            if document != last:
                await speaker.item(document)
                last = document
            try:
                async with asyncio.timeout(WATCH_S):
                    await changed.wait()
            except TimeoutError:
                continue
        return self._document(service)

    def _document(self, service: WriterService) -> dict[str, Any]:
        rollout = service.rollout
        return rollouts_document(self._daemon.runtime.store, service.line, rollout.facts, rollout.view)

    # Ask ----------------------------------------------------------------------------------------------------

    async def pause(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        return await self._ask(params, r.PauseAsked)

    async def resume(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        return await self._ask(params, r.ResumeAsked)

    async def abort(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        puts_back = not params.get("keep")
        facts = writer_of(self._daemon, params).rollout.facts
        is_done = facts.failed_code == "aborted" or facts.state is r.RolloutState.ABORTED
        return await self._ask(params, lambda number: r.AbortAsked(number, puts_back), is_done=is_done)

    async def confirm(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        facts = writer_of(self._daemon, params).rollout.facts
        return await self._ask(params, r.ConfirmAsked, is_done=facts.is_confirmed)

    async def retry(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """Begin the ended rollout of the head anew; partners forget what they refused."""
        service = writer_of(self._daemon, params)
        self._daemon.peers.nudge(service.line, "retry")
        return await self._ask(params, r.RetryAsked)

    async def _ask(
        self, params: Params, make: Callable[[int], r.Ask], *, is_done: bool = False
    ) -> Mapping[str, Any]:
        """``is_done`` when the same was asked before: then nothing is left to change."""
        service = writer_of(self._daemon, params)
        before = service.rollout.facts
        if not is_done:
            trouble = await service.rollout.ask(make, ASK_S)
            if trouble is not None:
                raise error_of(trouble)
        after = service.rollout.facts
        return {
            "fileset": service.fileset.name,
            "changed": after.serial != before.serial,
            "generation": after.target.as_json() if after.target is not None else None,
            "state": after.state.value,
            "paused": after.is_paused,
        }

    # Reload -------------------------------------------------------------------------------------------------

    async def reload(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """The reload hooks of the writer, then of its direct partners: at once, or ``rolling`` one batch at a time."""
        service = writer_of(self._daemon, params)
        head = service.head
        if head is None:
            raise RefusedError(
                f"{service.fileset.name} has no generation yet", hint=f"instep publish {service.fileset.name}",
                code="no_generation",
            )  # fmt: skip
        limit = float(params.get("timeout_s") or RELOAD_S)
        deadline = asyncio.get_running_loop().time() + limit
        effect = RunHook(0, HookKind.RELOAD, head, head)
        trouble = await run_hook(self._daemon.runtime, service.fileset, effect, ())
        if trouble is None:
            rolling = bool(params.get("rolling"))
            trouble = await service.rollout.ask(lambda number: r.ReloadAsked(number, rolling), ASK_S)
        if trouble is not None:
            raise error_of(trouble)
        serial = service.rollout.facts.reload_serial
        while True:
            changed = self._daemon.runtime.changed
            result = self._reloaded(service, head, serial)
            left = deadline - asyncio.get_running_loop().time()
            if not result["waiting_for"] or result["failed"] or left <= 0:
                return result
            done, total = len(result["reloaded"]), len(result["reloaded"]) + len(result["waiting_for"])
            await speaker.progress(f"reloading {service.fileset.name}", done, total, "nodes")
            if service.rollout.facts.reload_serial != serial:
                raise UnavailableError(
                    f"a newer generation or reload of {service.fileset.name} came first",
                    hint=f"instep rollout show {service.fileset.name}", code="superseded",
                )  # fmt: skip
            try:
                async with asyncio.timeout(min(left, WATCH_S)):
                    await changed.wait()
            except TimeoutError:
                continue

    def _reloaded(self, service: WriterService, head: HeadRef, serial: int) -> dict[str, Any]:
        daemon = self._daemon
        reports = reports_of(daemon.runtime.store, service.line)
        reloaded: list[str] = [daemon.runtime.name]
        waiting: list[dict[str, Any]] = []
        failed: list[dict[str, Any]] = []
        absent: list[NodeName] = []
        for name in daemon.peers.followers(service.line):
            report = reports.get(name)
            if name not in daemon.peers.sessions or report is None:
                absent.append(name)
            elif report.live != head:
                continue  # it serves another generation, or none: what it takes next is reloaded with it
            elif has_reloaded(view_of_report(report), serial):
                reloaded.append(name)
            elif report.order_serial >= serial and report.standing.code in ("reload_failed", "probe_failed"):
                failed.append({"node": name, "code": report.standing.code, "reason": report.standing.reason})
            else:
                waiting.append({"node": name, "standing": report.standing.standing.value})
        return {
            "fileset": service.fileset.name,
            "generation": head.as_json(),
            "reloaded": reloaded,
            "waiting_for": waiting,
            "failed": failed,
            "absent": list(absent),
        }
