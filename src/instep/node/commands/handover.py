"""``handover``: the writer gives its line to a partner that is in step, and loses nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from instep.core import publish_vocabulary as p
from instep.errors import ContentionError, RefusedError, UnavailableError
from instep.model.generation import UNSIGNED, EpochBody, SignedEpoch
from instep.model.ids import HeadRef, NodeName, node_name
from instep.model.standing import Standing
from instep.node.commands.lines import error_of, writer_of
from instep.node.commands.parameters import service_of
from instep.node.control import Command, Params, Speaker
from instep.node.signers import verdict_on
from instep.node.snapshot import reports_of
from instep.node.writer import WriterService

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]

HANDOVER_S = 300.0
POLL_S = 1.0


def commands(daemon: Daemon) -> Mapping[str, Command]:
    return {"handover": Handover(daemon).handover}


class Handover:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def handover(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        target = node_name(str(params["node"]))
        service = service_of(self._daemon, params)
        if service.fileset.writer == target:
            return self._told(service.fileset.name, target, None, is_changed=False)
        writer = writer_of(self._daemon, params)
        deadline = asyncio.get_running_loop().time() + float(params.get("timeout_s") or HANDOVER_S)
        current = writer.facts.epochs.current
        if current is not None and current.writer != self._daemon.runtime.name:
            if current.writer != target:
                raise RefusedError(
                    f"{current.writer} writes epoch {current.epoch} of {writer.line} already, not {target}",
                    hint=f"instep status {writer.fileset.name}",
                    code="not_the_writer",
                    writer=current.writer,
                    asked=target,
                )
            return await self._finish(writer, target, deadline, speaker)
        self._check(writer, target)
        if params.get("dry_run"):
            return {
                **self._told(writer.fileset.name, target, writer.head, is_changed=True),
                "dry_run": True,
            }
        reason = f"handing over to {target}"
        if writer.facts.is_paused and writer.facts.paused_reason != reason:
            raise RefusedError(
                f"publishing is paused here: {writer.facts.paused_reason or 'no reason given'}",
                hint=f"instep resume {writer.fileset.name}",
                code="paused",
            )
        if not writer.facts.is_paused:
            await self._publish(writer, deadline)
            await self._in_step(writer, target, deadline, speaker)
            await self._publish(writer, deadline)
            writer.driver.post(p.Paused(reason, None))
        try:
            await self._until(lambda: writer.facts.is_paused, deadline, "publishing did not stop")
            await self._in_step(writer, target, deadline, speaker)
            await self._sign(writer, target, deadline)
        finally:
            writer.driver.post(p.Resumed())
        return await self._finish(writer, target, deadline, speaker)

    def _check(self, service: WriterService, target: NodeName) -> None:
        """``RefusedError`` or ``UnavailableError`` while the target could not go on with the line."""
        name, peers = service.fileset.name, self._daemon.peers
        session = peers.sessions.get(target)
        why = peers.access.why_not(target, service)
        if why is not None:
            raise RefusedError(
                f"{target} may not have {name}: {why}",
                hint=f"instep partner set {target} --replicate --data",
                code="link_denies",
                partner=target,
            )
        if session is None:
            raise UnavailableError(f"{target} is not connected", code="not_connected", node=target)
        if service.line not in session.accepted:
            raise RefusedError(
                f"{target} does not follow {name}",
                hint=f"on {target}: instep fileset accept {name} PATH",
                code="not_accepted",
                node=target,
            )
        report = reports_of(self._daemon.runtime.store, service.line).get(target)
        if report is not None and report.standing.standing is Standing.OBSERVING:
            raise RefusedError(f"{target} only observes {name}", code="observing", node=target)

    async def _publish(self, service: WriterService, deadline: float) -> None:
        """Publish what is unpublished, also where publishing is manual."""
        left = max(1.0, deadline - asyncio.get_running_loop().time())
        try:
            outcome = await service.ask(lambda number: p.PublishAsked(number), left)
        except TimeoutError as error:
            raise ContentionError("publishing what is here did not end in time", code="timed_out") from error
        if isinstance(outcome, p.NotPublished):
            raise error_of(outcome.trouble)

    async def _in_step(
        self, service: WriterService, target: NodeName, deadline: float, speaker: Speaker
    ) -> None:
        await speaker.progress(f"waiting for {target}", 0, None, "nodes")

        def is_there() -> bool:
            report = reports_of(self._daemon.runtime.store, service.line).get(target)
            head = service.facts.head
            return (
                report is not None
                and head is not None
                and report.live is not None
                and report.live.id == head.id
                and report.standing.standing is Standing.IN_STEP
            )

        await self._until(is_there, deadline, f"{target} is not in step with {service.fileset.name}")

    async def _sign(self, service: WriterService, target: NodeName, deadline: float) -> None:
        """Make the record, and let the machine accept and save it; only then it is told."""
        runtime, line, head = self._daemon.runtime, service.line, service.facts.head
        session = self._daemon.peers.sessions.get(target)
        assert head is not None
        if session is None:
            raise UnavailableError(f"{target} is not connected", code="not_connected", node=target)
        for known in runtime.store.epochs(line):
            service.driver.post(
                p.EpochSeen(runtime.name, known, verdict_on(runtime, known.signature, known.id))
            )
        body = EpochBody(
            1, line.fileset, line.origin, service.facts.epoch + 1, target, session.hello.sign_key, head.id
        )
        raw = body.encoded()
        signed = SignedEpoch(raw, runtime.pki.sign(SignedEpoch(raw, UNSIGNED).id))
        verdict = verdict_on(runtime, signed.signature, signed.id)
        service.driver.post(p.EpochSeen(runtime.name, signed, verdict))

        def is_saved() -> bool:
            current = service.facts.epochs.current
            return current is not None and current.id == signed.id

        await self._until(is_saved, deadline, f"the record of epoch {body.epoch} was not accepted here")
        message = service.head_message(None, with_bundle=False)
        assert message is not None
        await self._daemon.peers.announce(message)

    async def _finish(
        self, service: WriterService, target: NodeName, deadline: float, speaker: Speaker
    ) -> Mapping[str, Any]:
        """Wait until this node follows and the target offers the line as its writer."""
        line, peers = service.line, self._daemon.peers
        await speaker.progress(f"waiting for {target} to take over", 0, None, "nodes")

        def is_taken() -> bool:
            uplink = peers.uplinks.get(target)
            offer = uplink.offers.get(line) if uplink is not None else None
            running = self._daemon.services.get(line.fileset)
            return (
                offer is not None
                and offer.writer == target
                and running is not None
                and running.fileset.writer == target
            )

        await self._until(
            is_taken, deadline, f"{target} is the writer by a signed record, but did not say so here yet"
        )
        return self._told(service.fileset.name, target, service.head, is_changed=True)

    async def _until(self, holds: Callable[[], bool], deadline: float, what: str) -> None:
        loop = asyncio.get_running_loop()
        while True:
            changed = self._daemon.runtime.changed
            if holds():
                return
            left = deadline - loop.time()
            if left <= 0:
                raise ContentionError(what, hint="run the same command again: it goes on", code="timed_out")
            try:
                async with asyncio.timeout(min(left, POLL_S)):
                    await changed.wait()
            except TimeoutError:
                continue

    def _told(self, name: str, target: NodeName, head: HeadRef | None, *, is_changed: bool) -> dict[str, Any]:
        return {
            "fileset": name,
            "writer": str(target),
            "changed": is_changed,
            "generation": head.as_json() if head is not None else None,
        }
