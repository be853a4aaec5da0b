"""``handover``: the writer gives its line to a partner that is in step, and loses nothing.

Everything that is written here is published and taken over by the partner before the record is signed, in a moment when
nothing is written if there is one; later writes are drift of a follower, which goes to the archive and is named by
path. A handover that is killed leaves one writer: the record is durable here before any node hears of it, and the same
command goes on where it was.
"""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from instep.api import succession as api
from instep.api.parts import generation
from instep.core.publish import vocabulary as p
from instep.core.vocabulary import error_of
from instep.errors import ContentionError, InstepError, RefusedError
from instep.model.counts import counted, which
from instep.model.generation import EpochBody
from instep.model.ids import HeadRef, NodeName, node_name
from instep.model.standing import Standing
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import writer_of
from instep.node.commands.patience import AGAIN, deadline_in, left, until
from instep.node.commands.targets import direct_followers, require_one_writer, running_service_of, session_of
from instep.node.commands.writer_changes.signing import signed_epoch, until_saved
from instep.node.following.follower import DRIFT_EVENTS
from instep.node.lines.line_service import LineService
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.signers import verdict_on
from instep.node.writing.writer import WriterService
from instep.tree.root.failpoints import failpoint, register

HANDOVER_S = 300.0
ASK_S = 20.0
QUIET_TRIES = 5
"""So often a moment is looked for in which nothing is written; the last try signs without one."""
LATE_MAX = 100
"""So many late paths are named."""
PAUSED = register("handover.paused")
SIGNED = register("handover.signed")


class Handover(CommandHandlers):
    async def handover(self, asked: api.HandoverCommand, speaker: Speaker) -> api.HandoverDocument:
        target = node_name(asked.node)
        service = running_service_of(self._node, asked.fileset)
        require_one_writer(service)
        deadline = deadline_in(asked.timeout_s or HANDOVER_S)
        me = self._node.runtime.name
        if service.fileset.writer == target:
            if target != me and not asked.dry_run:  # a handover that was interrupted is finished
                await self._taken(service, target, deadline, speaker)
            return _document(service, target, service.head, is_changed=False)
        writer = writer_of(self._node, asked.fileset)
        current = writer.facts.epochs.current
        if current is not None and current.writer != me:
            if current.writer != target:
                raise RefusedError(
                    f"{current.writer} writes epoch {current.epoch} of {writer.line} already, not {target}",
                    hint=f"instep status {writer.fileset.name}",
                    code="not_the_writer",
                    writer=current.writer,
                    asked=target,
                )
            return await self._finish(writer, target, deadline, speaker, wall_ms(), [])
        partners = self._check(writer, target)
        await self._ask(writer, target, partners)
        if asked.dry_run:
            document = _document(writer, target, writer.head, is_changed=True)
            return replace(document, dry_run=True, partners=partners)
        began_ms, late = await self._give(writer, target, deadline, speaker)
        return await self._finish(writer, target, deadline, speaker, began_ms, late)

    # Checks -------------------------------------------------------------------------------------------------

    def _check(self, service: WriterService, target: NodeName) -> tuple[NodeName, ...]:
        """The partners that the target would serve; ``RefusedError`` or ``UnavailableError`` while it could not."""
        name, peers = service.fileset.name, self._node.peers
        why = peers.access.why_not(target, service)
        if why is not None:
            raise RefusedError(
                f"{target} may not have {name}: {why}",
                hint=f"instep partner set {target} --replicate --data",
                code="link_denies",
                partner=target,
            )
        if service.line not in session_of(self._node, target).accepted:
            raise RefusedError(
                f"{target} does not follow {name}",
                hint=f"on {target}: instep fileset accept {name} PATH",
                code="not_accepted",
                node=target,
            )
        reports = service.reports()
        report = reports.get(target)
        if report is not None and report.standing.standing is Standing.OBSERVING:
            raise RefusedError(f"{target} only observes {name}", code="observing", node=target)
        if report is not None and report.standing.standing is Standing.PAUSED:
            raise RefusedError(
                f"{name} is paused on {target}"
                + (f" ({report.standing.reason})" if report.standing.reason else ""),
                hint=f"on {target}: instep resume {name}",
                code="paused",
                node=target,
            )
        return tuple(who for who in direct_followers(self._node, service) if who != target)

    async def _ask(self, service: WriterService, target: NodeName, partners: tuple[NodeName, ...]) -> None:
        """The target says what it lacks to go on with the line for all its partners, this node too."""
        me, name = self._node.runtime.name, service.fileset.name
        session = session_of(self._node, target, AGAIN)
        found = await session.could_take_over(service.line, (me, *partners), ASK_S)
        if not found:
            return
        hints = list(dict.fromkeys(each.hint for each in found))
        raise RefusedError(
            f"{target} could not go on with {name}: {'; '.join(each.reason for each in found)}",
            hint="; ".join(hints),
            code="not_ready",
            node=target,
            partners=sorted({each.about for each in found if each.about}),
            hints=hints,
        )

    # Giving -------------------------------------------------------------------------------------------------

    async def _give(
        self, service: WriterService, target: NodeName, deadline: float, speaker: Speaker
    ) -> tuple[int, list[str]]:
        """Publish until nothing is left, and sign in a moment when nothing is written; where there is none, what was
        written since the last publish is named. The wall clock of the signature, and those paths."""
        reason, facts = f"handing over to {target}", service.facts
        if facts.is_paused and facts.paused_reason != reason:
            raise RefusedError(
                f"publishing is paused here: {facts.paused_reason or 'no reason given'}",
                hint=f"instep resume {service.fileset.name}",
                code="paused",
            )
        for left_tries in reversed(range(QUIET_TRIES)):
            if service.facts.is_paused:
                service.resume()
                await until(
                    self._node, lambda: not service.facts.is_paused, deadline, "publishing did not go on"
                )
            await self._publish(service, deadline)
            service.pause(reason, wall_ms() + int(left(deadline) * 1000))
            try:
                await until(
                    self._node,
                    lambda: service.facts.is_paused and service.machine.phase is None,
                    deadline,
                    "publishing did not stop",
                )
                failpoint(PAUSED)
                await self._in_step(service, target, deadline, speaker)
                late = await service.worker.run(service.changes_now, LATE_MAX)
                if not late or not left_tries:
                    began_ms = wall_ms()
                    await self._sign(service, target, deadline)
                    return began_ms, [change.path for change in late]
            finally:
                service.resume()
        raise AssertionError("the last try signs or raises")

    async def _publish(self, service: WriterService, deadline: float) -> None:
        """Publish what is unpublished, also where publishing is manual."""
        try:
            outcome = await service.ask(lambda number: p.PublishAsked(number, is_whole=True), left(deadline))
        except TimeoutError as error:
            raise ContentionError(
                "publishing the changes here did not end in time", code="timed_out"
            ) from error
        if isinstance(outcome, p.NotPublished):
            raise error_of(outcome.trouble)

    def _is_there(self, service: WriterService, target: NodeName) -> bool:
        report = service.reports().get(target)
        head = service.facts.head
        return (
            report is not None
            and head is not None
            and report.live is not None
            and report.live.id == head.id
            and report.standing.standing is Standing.IN_STEP
        )

    async def _in_step(
        self, service: WriterService, target: NodeName, deadline: float, speaker: Speaker
    ) -> None:
        await speaker.progress(f"waiting for {target}", 0, None, "nodes")
        await until(
            self._node,
            lambda: self._is_there(service, target),
            deadline,
            lambda: f"{target} is not in step with {service.fileset.name}{self._why(service, target)}",
        )

    def _why(self, service: WriterService, target: NodeName) -> str:
        """How the target stands, and what helps there."""
        report = service.reports().get(target)
        if report is None:
            return ""
        now = report.standing
        steps = f"; on {target}: {'; '.join(now.next_steps)}" if now.next_steps else ""
        return (
            f": it is {now.standing.value.replace('_', ' ')}"
            + (f", {now.reason}" if now.reason else "")
            + steps
        )

    async def _sign(self, service: WriterService, target: NodeName, deadline: float) -> None:
        """Make the record, and let the machine accept and save it; only then it is sent."""
        runtime, line, head = self._node.runtime, service.line, service.facts.head
        sign_key = session_of(self._node, target, AGAIN).hello.sign_key
        assert head is not None
        service.epochs_seen(runtime.name, runtime.store.epochs(line))
        body = EpochBody(1, line.fileset, line.origin, service.facts.epoch + 1, target, sign_key, head.id)
        signed = signed_epoch(body, runtime.pki.sign)
        verdict = verdict_on(runtime, signed.signature, signed.id)
        service.driver.post(p.EpochSeen(runtime.name, signed, verdict))
        await until_saved(self._node, service, signed, deadline)
        failpoint(SIGNED)

    # Finishing ----------------------------------------------------------------------------------------------

    async def _finish(
        self,
        service: WriterService,
        target: NodeName,
        deadline: float,
        speaker: Speaker,
        began_ms: int,
        late: list[str],
    ) -> api.HandoverDocument:
        head = service.facts.head
        await self._taken(service, target, deadline, speaker)
        named = dict.fromkeys([*late, *await self._late(service, began_ms)])
        if named:
            were = which(len(named), "was", "were")
            text = (
                f"{counted(len(named), 'path')} {were} written here while or after {target} became the writer"
            )
            self._node.runtime.note("late_edits", text, service.line, paths=list(named)[:LATE_MAX])
        document = _document(service, target, head, is_changed=True)
        return replace(document, late=tuple(named)[:LATE_MAX])

    async def _taken(self, service: LineService, target: NodeName, deadline: float, speaker: Speaker) -> None:
        """Wait until this node follows and the target offers the line as its writer."""
        line, peers = service.line, self._node.peers
        await speaker.progress(f"waiting for {target} to take over", 0, None, "nodes")

        def is_taken() -> bool:
            uplink = peers.uplinks.get(target)
            offer = uplink.offers.get(line) if uplink is not None else None
            running = self._node.services.get(line.fileset)
            return (
                offer is not None
                and offer.writer == target
                and running is not None
                and running.fileset.writer == target
            )

        await until(
            self._node,
            is_taken,
            deadline,
            f"{target} is the writer by a signed record, but did not say so here yet; no other node publishes",
        )

    async def _late(self, service: WriterService, began_ms: int) -> list[str]:
        """Paths that changed here after the line was given away: named, and kept in the archive."""
        found: dict[str, None] = {}
        running = self._node.services.get(service.line.fileset)
        if running is not None and not running.is_written_here:
            try:
                for change in await running.worker.run(running.changes_now, LATE_MAX):
                    found[change.path] = None
            except InstepError as error:  # the tree is being looked at: the events name them later
                self._node.runtime.note("late_unknown", error.reason, service.line)
        for event in self._node.runtime.store.events(began_ms):
            if event.kind in DRIFT_EVENTS and event.line == service.line:
                paths = event.facts.get("paths")
                if isinstance(paths, Sequence):
                    found.update(dict.fromkeys(map(str, paths)))
        return list(found)[:LATE_MAX]


def _document(
    service: LineService, target: NodeName, head: HeadRef | None, *, is_changed: bool
) -> api.HandoverDocument:
    return api.HandoverDocument(service.fileset.name, target, is_changed, generation(head))
