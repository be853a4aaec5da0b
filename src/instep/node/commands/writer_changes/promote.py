"""``promote``: this node goes on as the writer of a line whose home is dead, with the signature of the cluster's CA.
First it names the generations that may be lost: every generation above the served one that any connected node has
heard of. The record builds on the generation that is served here, and the new writer publishes at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from msgspec.structs import asdict, replace

from instep.api import succession as api
from instep.api.parts import generation
from instep.core.follow import vocabulary as f
from instep.core.writer_change import LostGenerations, base_of, lost_generations, next_epoch
from instep.errors import ContentionError, RefusedError
from instep.model.generation import EpochBody
from instep.model.ids import HeadRef, NodeName
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.patience import AGAIN, deadline_in, until
from instep.node.commands.targets import is_connected, require_one_writer, running_service_of
from instep.node.commands.writer_changes.claimants import Heard, hear_claimants
from instep.node.commands.writer_changes.signing import signed_epoch, until_saved
from instep.node.config.editing.writer_edit import check_change
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import generation_document, reports_of
from instep.node.peers.takeover_check import why_unserved
from instep.tree.root.failpoints import failpoint, register

PROMOTE_S = 120.0
SETTLE_S = 5.0
"""So long what is on its way here may still arrive, so that it need not be lost."""
REASON = "being promoted"
RECORDED_MAX = 10_000
MOVING = ("switch", "reload", "probe", "record", "put_back", "revert", "drain", "return")
SIGNED = register("promote.signed")


class Promote(CommandHandlers):
    async def promote(self, asked: api.PromoteCommand, speaker: Speaker) -> api.PromoteDocument:
        service = running_service_of(self._node, asked.fileset)
        require_one_writer(service)
        deadline = deadline_in(asked.timeout_s or PROMOTE_S)
        book, me = service.facts.epochs, self._node.runtime.name
        is_mine = book.current is not None and book.current.writer == me and book.disputed is None
        if is_mine or (book.current is None and service.is_written_here):
            changed = not asked.dry_run and await self._finish(service, deadline, speaker)
            return self._told(service, (), None, Heard(), is_changed=changed)
        self._check(service)
        if asked.dry_run:
            heard = await hear_claimants(self._node, service, deadline, speaker)
            lost, held = self._lost(service, heard), service.held_head
            return replace(self._told(service, lost, held, heard, is_changed=True), dry_run=True)
        if not self._node.pki.is_ca:
            raise RefusedError(
                f"the cluster's CA key is not on {me}, and only it can make another node the writer",
                hint=f"instep promote {service.fileset.name} --home-is-dead --pki-backup FILE",
                code="no_ca_key",
                node=me,
            )
        heard = await hear_claimants(self._node, service, deadline, speaker)
        if not service.is_written_here:
            await self._settle(service, deadline, speaker)
        try:
            lost, held = self._lost(service, heard), service.held_head
            await self._sign(service, held, deadline)
        finally:
            service.resume()
        failpoint(SIGNED)
        await self._finish(service, deadline, speaker)
        return self._told(self._running(service), lost, held, heard, is_changed=True)

    # Before -------------------------------------------------------------------------------------------------

    def _check(self, service: LineService) -> None:
        """``RefusedError`` where nothing could go on here, or the home is not dead."""
        node, me = self._node, self._node.runtime.name
        name, book = service.fileset.name, service.facts.epochs
        homes = {claim.writer for claim in book.rivals} or {
            book.current.writer if book.current else service.writer
        }
        for home in sorted(homes - {me}):
            if book.disputed is None and is_connected(node, home):
                raise RefusedError(
                    f"{home} is not dead: it is connected now",
                    hint=f"on {home}: instep handover {name} {me}",
                    code="home_lives",
                    home=home,
                )
        if service.fileset.observe:
            raise RefusedError(
                f"{me} only observes {name} and holds nothing of it",
                hint="promote a node that holds it",
                code="observing",
                node=me,
            )
        definition = service.known_definition()
        if definition is None or service.live is None:
            raise RefusedError(
                f"{me} serves no generation of {name}, so there is nothing to go on from",
                hint="promote a node that serves one: instep status, on each",
                code="nothing_held",
                node=me,
            )
        check_change(node.directory, service.line, me, definition)

    async def _settle(self, service: LineService, deadline: float, speaker: Speaker) -> None:
        """Let what is staged go live, for it would be lost otherwise; then hold still."""
        await speaker.progress("finishing what is on its way here", 0, None, "nodes")
        if service.facts.is_paused:
            service.resume()
        service.driver.post(f.PollAsked())
        loop = asyncio.get_running_loop()

        def is_newest() -> bool:
            facts, held = service.facts, service.at_rest
            return held is not None and held == facts.head and not facts.is_paused

        try:
            await until(self._node, is_newest, min(deadline, loop.time() + SETTLE_S), "")
        except ContentionError:
            pass  # a generation that did not arrive is named as lost
        service.pause(REASON)
        await until(
            self._node,
            lambda: (
                service.facts.is_paused
                and service.at_rest is not None
                and service.machine.phase not in MOVING
            ),
            deadline,
            lambda: (
                f"the tree here does not come to rest: {service.standing.reason or service.machine.phase}"
            ),
        )

    def _lost(self, service: LineService, heard: Heard) -> tuple[LostGenerations, ...]:
        store, line = self._node.runtime.store, service.line
        recorded = [signed.ref() for signed in store.generations(line, RECORDED_MAX)]
        told = [*self._heard(service), *heard.heads]
        return lost_generations(service.held_head, told, recorded, service.facts.epochs.disputed)

    def _heard(self, service: LineService) -> Iterator[tuple[NodeName, HeadRef]]:
        """Every head of the line that a node reported, by report, greeting or offer."""
        line, peers = service.line, self._node.peers
        told: list[tuple[NodeName, HeadRef | None]] = [(service.writer, service.facts.head)]
        for node, report in reports_of(self._node.runtime.store, line).items():
            told += [(node, report.head), (node, report.live)]
        for node, session in peers.sessions.items():
            told.append((node, session.known.get(line)))
            told += [
                (node, ref)
                for known in session.hello.lines
                if known.line == line
                for ref in (known.head, known.live)
            ]
        for node, uplink in peers.uplinks.items():
            offer = uplink.offers.get(line)
            told.append((node, offer.head if offer is not None else None))
        return ((node, ref) for node, ref in told if ref is not None)

    # The record ---------------------------------------------------------------------------------------------

    async def _sign(self, service: LineService, held: HeadRef | None, deadline: float) -> None:
        runtime, line = self._node.runtime, service.line
        seen = [ref for _, ref in self._heard(service)]
        epoch = next_epoch(service.facts.epochs, seen, self._node.peers.highest_heard.get(line, 0))
        key = runtime.pki.sign_key
        body = EpochBody(1, line.fileset, line.origin, epoch, runtime.name, key, base_of(held))
        signed = signed_epoch(body, runtime.pki.sign_as_ca)
        service.epochs_seen(runtime.name, (signed,))
        await until_saved(self._node, service, signed, deadline)

    def _running(self, service: LineService) -> LineService:
        return self._node.services.get(service.line.fileset, service)

    async def _finish(self, service: LineService, deadline: float, speaker: Speaker) -> bool:
        """Wait until this node has published in its epoch; whether there was anything to wait for."""
        current = service.facts.epochs.current
        epoch = current.epoch if current is not None else 1
        is_promoted = current is not None and current.is_promoted

        def has_published() -> bool:
            running = self._running(service)
            head = running.head
            return running.is_written_here and (not is_promoted or (head is not None and head.epoch >= epoch))

        if has_published():
            return False
        await speaker.progress("publishing in the new epoch", 0, None, "nodes")
        await until(
            self._node,
            has_published,
            deadline,
            lambda: (
                f"{self._node.runtime.name} is the writer by a record of the CA, but has not published yet: "
                f"{self._running(service).standing.reason or AGAIN}"
            ),
        )
        return True

    # After --------------------------------------------------------------------------------------------------

    def _told(
        self,
        service: LineService,
        lost: tuple[LostGenerations, ...],
        held: HeadRef | None,
        heard: Heard,
        *,
        is_changed: bool,
    ) -> api.PromoteDocument:
        node, me = self._node, self._node.runtime.name
        current = service.facts.epochs.current
        if lost and is_changed and service.is_written_here:
            numbers = ", ".join(str(one.number) for one in lost)
            node.runtime.note(
                "promoted",
                f"{me} writes on from generation {held.number if held else 0}; left behind: {numbers}",
                service.line,
            )
        return api.PromoteDocument(
            fileset=service.fileset.name,
            writer=me,
            changed=is_changed,
            epoch=current.epoch if current is not None else 1,
            generation=generation(service.head),
            base=generation(held),
            lost=tuple(self._lost_document(one) for one in lost),
            has_ca_key=node.pki.is_ca,
            next=tuple(self._next_steps(service)),
            unheard=heard.unheard,
        )

    def _lost_document(self, one: LostGenerations) -> api.LostDocument:
        signed = self._node.runtime.store.generation(one.id) if one.id is not None else None
        if signed is not None:
            return api.LostDocument(**asdict(generation_document(signed)), known_by=one.known_by)
        known = one.id.hex() if one.id is not None else None
        return api.LostDocument(one.epoch, one.number, known, known_by=one.known_by)

    def _next_steps(self, service: LineService) -> list[str]:
        """The steps that only an operator can do, on which node: partners dial, so each has to know the address."""
        node, runtime, name = self._node, self._node.runtime, service.fileset.name
        me, definition = runtime.name, service.known_definition()
        steps: list[str] = []
        for member in sorted(node.membership.members):
            if member == me or definition is None:
                continue
            found = why_unserved(node.peers, service, definition.fileset_class, member)
            steps += [f"for {member}, if it follows {name}: {each.hint}" for each in found]
            if member not in node.peers.sessions:
                steps.append(
                    f"for {member}, if it follows {name}: on {member}: instep node set-address {me} "
                    f"{node.membership.outward_address}"
                )
        return steps
