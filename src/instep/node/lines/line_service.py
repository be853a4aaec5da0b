"""A line on this node, written or followed here: its tree, its machine, and what connections and commands ask of it.

What differs between the two roles is a method here that ``WriterService`` or ``FollowService`` fills in, so that no
caller asks which of the two it has.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Collection, Coroutine, Mapping, Sequence
from typing import Any, ClassVar

from instep.api.looking import ChangeDocument, LineDocument
from instep.api.parts import FailureDocument, WaitingDocument
from instep.core import vocabulary as c
from instep.core.follow.machine import FollowMachine
from instep.core.guards.held import NOTHING_HELD, HeldPaths
from instep.core.keep.machine import KeepMachine
from instep.core.publish.machine import PublishMachine
from instep.errors import InstepError, UnavailableError
from instep.model.definition import Definition
from instep.model.generation import SignedEpoch
from instep.model.ids import Digest, HeadRef, NodeName
from instep.model.rollout import Order
from instep.net.messages import messages as m
from instep.node.config.filesets import FilesetSettings
from instep.node.lines.epoch_records import records_of, unknown
from instep.node.lines.golden_answers import Golden
from instep.node.lines.line_locks import LineLocks
from instep.node.lines.line_net import Lender, LineNet, Source
from instep.node.lines.saved_facts import LineFacts, note_change, save_facts
from instep.node.lines.self_test import try_node
from instep.node.lines.signed_again import signed_again
from instep.node.lines.snapshot import reports_of
from instep.node.runtime.driver import call_at_wall_ms, run_all
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on
from instep.node.trees.keeping.lending import Lending
from instep.node.trees.keeping.shelf import Shelf
from instep.node.trees.space import Room
from instep.node.trees.tree_comparison import Numbers
from instep.tree.archive.history import History
from instep.tree.root.place import Place


class LineService(LineLocks):
    """One line of this node. ``facts`` are those that were saved last."""

    is_written_here: ClassVar[bool]
    facts: LineFacts
    machine: FollowMachine | KeepMachine | PublishMachine
    lending: Lending
    """Every content of the fileset on this node, for the line's writer."""

    def __init__(self, runtime: Runtime, fileset: FilesetSettings, net: LineNet) -> None:
        super().__init__(runtime, fileset, net)
        self.worker = self.tree.worker
        self.golden = Golden(runtime, fileset)
        self.sources: dict[NodeName, Source] = {}
        """The links over which this node gets the line; none where it is written."""
        self.bundle: tuple[HeadRef, m.Bundle] | None = None
        """New pages and small contents of the newest head that travel along with it."""

    @abstractmethod
    async def run(self) -> None:
        """Own the line until cancelled."""

    @abstractmethod
    def reconfigure(self, fileset: FilesetSettings) -> None:
        """New settings for the same fileset; the root and the line stay."""

    async def _run(self, begun: Coroutine[Any, Any, None], *works: Coroutine[Any, Any, None]) -> None:
        """Run the machine and ``works`` once the watch has ``begun``; a root that hangs is reported before that."""

        async def then() -> None:
            await begun
            await run_all(self.driver.run(), *works)

        call_at_wall_ms(self.facts.paused_until_wall_ms, self._end_pause)  # a pause from before a restart
        try:
            await run_all(self.root.run(), then())
        finally:
            for work in (begun, *works):
                work.close()  # The line can end before they have begun.

    async def _end(self) -> None:
        """End what both roles run, when ``run`` ends. A call in the worker may take its time: wait beside the loop."""
        if self.tree.watch is not None:
            self.tree.watch.close()
        await self.failures.close()
        await asyncio.to_thread(self.worker.close)

    @property
    def has_room(self) -> bool:
        """Whether a peer's message can be taken in."""
        return all(driver.has_room for driver in self.drivers)

    async def room(self) -> None:
        """Return once a peer's message can be taken in; the messages to this line wait for this."""
        for driver in self.drivers:
            await driver.room()

    @property
    def writer(self) -> NodeName:
        return self.fileset.writer

    @property
    @abstractmethod
    def head(self) -> HeadRef | None:
        """The newest head that partners may know."""

    @property
    def held_head(self) -> HeadRef | None:
        """The newest generation that this node holds and could go on from as the writer."""
        return self.live

    @property
    def at_rest(self) -> HeadRef | None:
        """The generation that the tree holds in full and at rest; None while it is being changed."""
        return self.live

    @property
    def not_carried(self) -> tuple[HeldPaths, HeldPaths]:
        """Paths that a writer's newest scan could not carry, and paths of kinds that are never carried."""
        return NOTHING_HELD, NOTHING_HELD

    @property
    def history(self) -> History | None:
        """The contents of older generations that a writer keeps; None where the line is followed."""
        return None

    @property
    def is_whole(self) -> bool:
        """Whether the tree holds one generation, and all of it."""
        return True

    @property
    def senders(self) -> tuple[NodeName, ...]:
        """The nodes from which the line comes here, connected or not."""
        return ()

    @abstractmethod
    def known_definition(self) -> Definition | None:
        """The definition of the newest head, None while none is known."""

    @abstractmethod
    def in_use(self) -> tuple[HeadRef, ...]:
        """Generations that this node needs, however old they are."""

    def keeps_stage(self) -> bool:
        """Whether a stage lies beside the tree whose pages nothing else names. In the worker thread."""
        return False

    def line_at(self, path: bytes) -> tuple[LineService, bytes]:
        """The line that has a path of the tree, and the path as that line has it: this one, unless others lie beside
        it."""
        return self, path

    @property
    def beside(self) -> tuple[LineService, ...]:
        """The lines of other homes in the same fileset."""
        return ()

    @property
    def open_collisions(self) -> int | None:
        """How many collisions no person has reviewed here; None for a fileset of one home."""
        return None

    @property
    def is_at_work(self) -> bool:
        """Whether a machine has pages that nothing names yet."""
        return self.machine.phase is not None

    def page_roots(self) -> list[Digest]:
        """Manifests that are needed here and that no generation names."""
        return []

    def room_needed(self) -> Room | None:
        """The room that a generation which waits to be staged needs; None where none waits, or its size is not known
        yet. In the worker thread."""
        return None

    def source(self, name: NodeName) -> Source:
        """The link to a sender, or ``UnavailableError``."""
        link = self.sources.get(name)
        if link is None:
            raise UnavailableError(f"{name} is not connected", code="not_connected", node=name)
        return link

    async def root_now(self) -> Digest | None:
        """The root of the tree as it is here."""
        return self.live.root if self.live is not None else None

    def reports(self) -> dict[NodeName, m.Report]:
        return reports_of(self.runtime.store, self.line)

    def own_rows(self, place: Place) -> tuple[tuple[str, bool, str, str], ...]:
        """Rows of ``check`` that only this role has: name, whether it is well, ours, theirs. In the worker thread."""
        return ()

    def lenders(self) -> tuple[Lender, ...]:
        """Connected partners that can be asked for contents of this line over their streams."""
        return ()

    # Acts and looks of an operator ------------------------------------------------------------------------------

    def pause(self, reason: str, until_wall_ms: int | None = None) -> None:
        """Publish or apply nothing until ``resume``, or until the wall clock shows ``until_wall_ms``."""
        self.driver.post(c.Paused(reason, until_wall_ms))
        call_at_wall_ms(until_wall_ms, self._end_pause)

    def resume(self) -> None:
        """End a pause; nothing happens where there is none."""
        self.driver.post(c.Resumed())

    def _end_pause(self, until_ms: int) -> None:
        """The wall clock shows the end of a pause; a pause that was set since then has its own end."""
        if self.facts.is_paused and self.facts.paused_until_wall_ms == until_ms:
            self.resume()

    @abstractmethod
    async def retry(self) -> None:
        """An operator wants now what waits for its next try."""

    async def begin_rollout_anew(self) -> None:
        """Begin a failed rollout of this line again; nothing where none failed here."""

    @abstractmethod
    async def catch_up(self, limit_s: float) -> c.Trouble | None:
        """Before a command waits: publish all changes of before the call, or ask the senders for their heads. Why
        nothing was published, where that is so."""

    @abstractmethod
    def not_in_step(self, target: HeadRef | None, nodes: Collection[NodeName]) -> tuple[WaitingDocument, ...]:
        """Those of ``nodes`` that are not in step with the target yet, or this node where it follows."""

    @abstractmethod
    def why_never(self, target: HeadRef | None, nodes: Collection[NodeName]) -> FailureDocument | None:
        """Why to wait longer for these nodes is in vain; None while the target may still come."""

    @abstractmethod
    def progress_of(self, nodes: Collection[NodeName]) -> list[tuple[int, int]]:
        """Bytes that came and bytes in all, of these nodes or of this one where it follows."""

    def own_poll_ms(self, source: NodeName) -> int | None:
        """How often this source is asked, where ``instep.toml`` has an interval for it."""
        row = self.runtime.settings.partners.get(source)
        return row.poll_ms if row is not None else None

    def changes_now(self, limit: int) -> tuple[ChangeDocument, ...]:
        """What ``diff`` without generations shows: the tree against the generation that it should hold."""
        return self.tree.changes_now(self.live, limit)

    def held_fields(self) -> dict[str, Any]:
        """What ``diff`` adds: paths that a writer's scans could not carry."""
        return {}

    def explained(self, path: bytes | None) -> Mapping[str, Any]:
        """What ``explain`` adds about one path."""
        return {}

    def status_of(self, line: LineDocument) -> LineDocument:
        """The row of ``status`` with what only this role knows."""
        return line

    async def test(self) -> tuple[m.TestRow, ...]:
        """Run this node's own probes and golden requests now."""
        return await try_node(self.golden, self.live)

    async def verify(self, *, is_deep: bool) -> m.VerifyReply:
        """Compare the tree with the live generation, and report what it really holds."""
        live = self.live
        if live is None:
            return m.VerifyReply(0, self.line, None, b"", 0)
        numbers = await self._verified(live, is_deep)
        return m.VerifyReply(
            number=0,
            line=self.line,
            live=live,
            attested_root=live.root if numbers.total == 0 else b"",
            differing=numbers.total,
            differs=tuple(m.VerifyDifference(path, why) for path, why in numbers.sample[: m.DIFFERENCES_MAX]),
        )

    @abstractmethod
    async def _verified(self, live: HeadRef, is_deep: bool) -> Numbers:
        """Look at the whole tree; differences are handed to the machine as well."""

    # Questions and messages of connections ----------------------------------------------------------------------

    def offers_to(self, partner: NodeName) -> bool:
        return True

    def passes_changes_of(self, partner: NodeName) -> bool:
        """Whether this node, as a hub, passes changes of the partner on to the line's home."""
        return partner in self.fileset.offers_from

    @abstractmethod
    def shelf(self) -> Shelf:
        """What partners may have of the line, for one request."""

    @abstractmethod
    def report_message(self) -> m.Report:
        """The standing here, as senders get it."""

    def head_message(self, to: NodeName | None, *, with_bundle: bool) -> m.Head | None:
        """The head to send to ``to``: to the line's own writer the newest accepted head, to others the one that they
        can have here."""
        head = self._head_for(to)
        signed = self.runtime.store.generation(head.id) if head is not None else None
        if head is None or signed is None:
            return None
        has_bundle = with_bundle and self.bundle is not None and self.bundle[0].id == head.id
        return m.Head(
            line=self.line,
            generation=signed_again(self.runtime, signed),
            epochs=records_of(self.runtime, self.line, self.facts.epochs),
            definition=self.runtime.store.get_blob(signed.body().definition) or b"",
            bundle=self.bundle[1] if has_bundle and self.bundle is not None else None,
            writer=self.writer,
        )

    @abstractmethod
    def _head_for(self, to: NodeName | None) -> HeadRef | None: ...

    def with_beside(self, message: m.Head, known: HeadRef | None) -> m.Head:
        """A head for a partner that reported ``known``; its writer adds what the head does not descend from."""
        return message

    @abstractmethod
    def head_seen(self, source: NodeName, head: m.Head) -> None:
        """A peer sent a head of this line."""

    def epochs_seen(self, source: NodeName, records: Sequence[SignedEpoch]) -> None:
        """A peer sent epoch records of this line."""
        for epoch in unknown(records, self.facts.epochs):
            self.driver.post(c.EpochSeen(source, epoch, verdict_on(self.runtime, epoch.signature, epoch.id)))

    def partner_told(self, source: NodeName) -> None:
        """A partner reported everything that it holds of this line. Only a writer waits for this."""

    @abstractmethod
    def partner_lost(self, who: NodeName) -> None:
        """A partner's stream ended."""

    def partners_changed(self) -> None:
        """The partners that follow this line here may have changed. Nodes behind a follower report anew."""

    @abstractmethod
    def reported(self, report: m.Report) -> None:
        """A partner, or a hub for it, reported the line's standing there."""

    def source_up(self, source: NodeName, link: Source, head: HeadRef | None) -> None:
        """A sender of the line is connected and holds ``head``. A writer has none, here and below."""

    def source_down(self, source: NodeName, error: InstepError | None) -> None:
        """The link to a sender ended."""

    def order_given(self, source: NodeName, order: Order) -> None:
        """A sender ordered this node what to do with a head; refused by name unless ``source`` may order here."""

    def lock_ended(self, source: NodeName, news: m.LockNotice) -> None:
        """The home says that a lock of a person here ended. A home holds no locks elsewhere."""

    def asked_to(self, what: str) -> None:
        """An operator's nudge from the sender: ``retry`` or ``resend``."""

    def _keep(self, effect: c.KeepGeneration | c.KeepEpoch | c.Refuse | c.Note | c.SetTimer) -> None:
        """Perform an effect that is the same in both roles."""
        runtime = self.runtime
        match effect:
            case c.KeepGeneration(signed):
                runtime.store.add_generation(signed, durable=False)  # the facts that name it are saved next
            case c.KeepEpoch(signed):
                runtime.store.add_epoch(signed)
            case c.Refuse(source, trouble):
                text = f"refused what {source} sent: {trouble.reason}"
                runtime.note_of_peer(source, "refused", text, self.line, code=trouble.code, node=source)
            case c.Note(what, text, facts):
                plain = {k: x.decode("utf-8", "replace") if isinstance(x, bytes) else x for k, x in facts}
                runtime.note(what, text, self.line, **plain)
            case c.SetTimer(name, at_ms):
                self.driver.set_timer(name, at_ms)

    def _save_facts(
        self, facts: LineFacts, live: HeadRef | None, *, is_live_new: bool, durable: bool = True
    ) -> None:
        """Save the facts with everything that goes along with them, in one transaction."""
        store, before = self.runtime.store, self.facts
        with store.transaction(durable=durable):
            save_facts(store, self.line, facts, durable=durable)
            note_change(store, self.line, self.fileset.writer, before, facts)
            if facts.head is not None:
                store.set_head(self.line, facts.head)
            if is_live_new:
                store.set_live(self.line, live)
        self.facts = facts
        if facts.epochs != before.epochs:
            self._net.epochs_changed(self.line)
