"""Filesets from the daemon's side: offers, comparing before an accept, accepting."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path

from msgspec import UNSET
from msgspec.structs import replace

from instep.api import filesets as api
from instep.errors import UnavailableError, UsageError
from instep.model.definition import Definition, Preserve, decode_definition
from instep.model.ids import FilesetName, HeadRef, LineId, NodeName, fileset_name
from instep.model.standing import Standing
from instep.net.messages import messages as m
from instep.net.service import HEADS, PAGES
from instep.node.commands.adopting import taken_again
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.followed_roots import (
    is_empty_root,
    is_marked_for,
    refusal_of,
    require_same,
    shared_by,
    stands,
    with_numbers,
)
from instep.node.commands.patience import change_within
from instep.node.commands.targets import refuse_many_homes, service_of
from instep.node.commands.writer_changes.stepping_back import step_back, was_replaced
from instep.node.config.editing import edits
from instep.node.facts.daemon_rights import may_give_away
from instep.node.facts.owners import of_followed
from instep.node.following.page_fetch import Fetcher
from instep.node.lines.line_service import LineService
from instep.node.peers.dialled_link import DialledLink
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.signers import verdict_on
from instep.node.trees.exchanging import refuse_exchange
from instep.node.trees.fidelity_check import check_fidelity, read_without
from instep.node.trees.fileset_tree import definition_of
from instep.node.trees.placing import check_new_root, listed_by_others, take_root
from instep.node.trees.tree_comparison import Numbers, TreeComparison
from instep.tree.objects.fidelity import Allow, Local
from instep.tree.objects.owners import BY_NAME
from instep.tree.root.marker import NO_NODE, check_marker, read_marker
from instep.tree.root.place import Place

_OFFER_WAIT_S, _HEARD_S = 5.0, 3.0
"""A home that does not answer in this time is not waited for: the fileset is accepted all the same."""
SAMPLE_MAX = 100


class Filesets(CommandHandlers):
    async def reload_config(
        self, asked: api.ReloadConfigCommand, speaker: Speaker
    ) -> api.ReloadConfigDocument:
        before = self._node.runtime.settings.fingerprint
        await self._node.trust_changed()  # ``join`` on a node that runs brings new certificates
        self._node.reload()
        await self._context.listeners.follow()
        after = self._node.runtime.settings.fingerprint
        at = self._node.server.at
        return api.ReloadConfigDocument(
            before != after,
            after,
            tuple(self._context.listeners.troubles.values()),
            UNSET if at is None else str(at),
        )

    async def offers(self, asked: api.FilesetOffersCommand, speaker: Speaker) -> api.OffersDocument:
        return api.OffersDocument(self._offers())

    def _offers(self) -> tuple[api.OfferRowDocument, ...]:
        followed = self._node.runtime.settings.filesets
        return tuple(
            api.OfferRowDocument(
                line.fileset, offer.writer, uplink.name, offer.mode, offer.fileset_class, offer.entries,
                offer.size_bytes, line.fileset in followed,
            )
            for uplink in self._node.peers.uplinks.values()
            for line, offer in uplink.offers.items()
        )  # fmt: skip

    async def list(self, asked: api.FilesetListCommand, speaker: Speaker) -> api.FilesetsDocument:
        shown = tuple(_shown(service) for service in self._node.services.values())
        offers = tuple(offer for offer in self._offers() if not offer.accepted)
        return api.FilesetsDocument(filesets=shown, offers=offers)

    async def show(self, asked: api.FilesetShowCommand, speaker: Speaker) -> api.FilesetDocument:
        return _shown(service_of(self._node, asked.fileset or asked.name))

    async def _offer(self, name: FilesetName, home: NodeName | None) -> tuple[DialledLink, m.Offer]:
        """The offer that is meant: waits a while for links that are coming up."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + _OFFER_WAIT_S
        while True:
            changed = self._node.runtime.changed
            found = [
                (uplink, offer)
                for uplink in self._node.peers.uplinks.values()
                for line, offer in uplink.offers.items()
                if line.fileset == name and (home is None or offer.writer == home or line.origin == home)
            ]
            refuse_many_homes(name, (offer.mode for _, offer in found))
            writers = {offer.writer for _, offer in found}
            if len(writers) > 1:
                raise UsageError(
                    f"{name} is offered by {', '.join(sorted(writers))}",
                    hint=f"instep fileset accept {name} PATH --from {min(writers)}",
                    code="which_writer",
                    writers=sorted(writers),
                )
            if found:
                return found[0]
            if loop.time() > deadline:
                raise self._not_offered(name)
            await change_within(changed, max(0.01, deadline - loop.time()))

    def _not_offered(self, name: FilesetName) -> UnavailableError:
        peers = self._node.peers
        offered = sorted({line.fileset for uplink in peers.uplinks.values() for line in uplink.offers})
        down = [
            f"{uplink.name}: {uplink.error.reason}"
            for uplink in peers.uplinks.values()
            if uplink.error is not None
        ]
        me = self._node.runtime.name
        return UnavailableError(
            f"no node offers {name} to {me}; offered are: {', '.join(offered) or 'none'}"
            + (f" ({'; '.join(down)})" if down else ""),
            hint=f"on its writer: instep fileset add {name} PATH, and: instep partner set {me} --replicate --data",
            code="not_offered",
            offered=offered,
        )

    async def _compared(
        self, asked: api.Comparing
    ) -> tuple[DialledLink, m.Offer, HeadRef | None, Numbers, bool]:
        """Fetch the offered manifest and compare the directory with it, without writing to either."""
        runtime = self._node.runtime
        name, path = fileset_name(asked.name), Path(asked.path)
        home = NodeName(asked.home) if asked.home else None
        check_new_root(runtime, name, path)
        uplink, offer = await self._offer(name, home)
        is_taken = asked.shared and path.exists() and is_marked_for(path, name, NO_NODE)
        is_empty = is_taken or not path.exists() or is_empty_root(path)
        line = offer.line
        reply = await uplink.client.call(
            HEADS, m.HeadsRequest((m.KnownLine(line, None),), with_bundles=False)
        )
        head: HeadRef | None = None
        definition = decode_definition(offer.definition)
        for message in reply.heads:
            signed = message.generation
            verdict = verdict_on(runtime, signed.signature, signed.id)
            if message.line != line or not verdict.is_valid or verdict.signer != offer.writer:
                continue
            head = signed.ref()
            runtime.store.add_generation(signed)
            if message.definition:
                sent = decode_definition(message.definition)
                runtime.store.put_blob(sent.digest, message.definition)
            definition = definition_of(runtime.store, head) or definition
        without = read_without(asked.without)
        if asked.mode != "observe":
            check_fidelity(name, path, definition, without)
            if asked.switch == "exchange":
                refuse_exchange(name, path, definition, asked.carry)
        numbers = Numbers()
        if head is not None and not is_empty:
            await Fetcher(runtime).pages(line, head, None, partial(uplink.client.call, PAGES))
            numbers = await self._node.services_thread(self._compare, path, name, definition, without, head)
        return uplink, offer, head, numbers, is_empty

    def _compare(
        self,
        path: Path,
        name: FilesetName,
        definition: Definition,
        without: frozenset[Preserve],
        head: HeadRef,
    ) -> Numbers:
        runtime = self._node.runtime
        allow = frozenset(Allow(each) for each in runtime.settings.allow_preserve)
        local = Local(frozenset(definition.preserve), allow, without, is_secret=definition.is_secret)
        place = Place(path, path / ".instep", name)
        inspection = TreeComparison(runtime.store, place, name, definition, local, None, keep_rows=False)
        return inspection.numbers(inspection.everything(head.root, wall_ms(), deep=True))

    async def check(self, asked: api.FilesetCheckCommand, speaker: Speaker) -> api.AcceptedDocument:
        runtime, name, path = self._node.runtime, fileset_name(asked.name), Path(asked.path)
        running = runtime.settings.filesets.get(name)
        if running is not None:
            require_same(running, asked)
        _, offer, head, numbers, is_empty = await self._compared(asked)
        if asked.mode != "observe" and path.exists() and read_marker(path) is not None:
            check_marker(path, name, NO_NODE if asked.shared else runtime.name)
        refusal = refusal_of(runtime.name, name, path, offer, head, numbers, is_empty)
        why, steps = stands(self._node.services[name]) if running is not None else ("", ())
        if running is None and refusal is not None and asked.mode is None:
            why, steps = refusal.reason, (refusal.hint or "",)
        document = api.AcceptedDocument(
            why=why or UNSET,
            next=steps or UNSET,
            fileset=asked.name,
            path=asked.path,
            writer=offer.writer,
            empty=is_empty,
            identical=numbers.total == 0 and not is_empty,
        )
        return with_numbers(document, numbers, head)

    async def accept(self, asked: api.FilesetAcceptCommand, speaker: Speaker) -> api.AcceptedDocument:
        runtime = self._node.runtime
        name, path = fileset_name(asked.name), Path(asked.path)
        mode = asked.mode or ("observe" if asked.observe else None)
        written = self._node.services.get(name)
        if written is not None and written.is_written_here and was_replaced(written):
            return step_back(self._node, written, path, asked.home, mode)
        given: dict[str, object] = {
            "drift": asked.drift,
            "switch": asked.switch,
            "carry": list(asked.carry) or None,
            "without": list(asked.without) or None,
            "observe": True if mode == "observe" else None,
            "shared": asked.shared or None,
        }
        shared = await shared_by(self._context.cluster, runtime.settings, asked)
        running = runtime.settings.filesets.get(name)
        if running is not None:
            require_same(running, asked)
            writer = running.writer
            is_lost = False
            if running.observe and mode in ("replace", "seed"):
                given["observe"] = False
                take_root(runtime, name, path)
            elif not running.observe:
                is_lost = await taken_again(self._node, self._node.services[name], mode)
            changed = await self._follow(asked, name, writer, given) or is_lost
            document = api.AcceptedDocument(fileset=name, path=str(path), writer=writer, changed=changed)
            if not changed:
                why, steps = stands(self._node.services[name])
                document = replace(document, why=why, next=steps)
            return document
        _, offer, head, numbers, is_empty = await self._compared(asked)
        refusal = refusal_of(runtime.name, name, path, offer, head, numbers, is_empty)
        if mode is None and refusal is not None:
            raise refusal
        definition = decode_definition(offer.definition)
        if mode != "observe":
            take_root(runtime, name, path, make=True, cluster=shared, is_secret=definition.is_secret)
        if may_give_away() and "owners" not in asked.settings:
            given["owners"] = [BY_NAME]
        if offer.line.origin != offer.writer:
            given["origin"] = str(offer.line.origin)
        await self._follow(asked, name, offer.writer, given, offer.line)
        document = api.AcceptedDocument(fileset=name, path=str(path), writer=offer.writer, changed=True)
        settings = runtime.settings
        trouble = of_followed(settings.filesets[name], definition.preserve, settings.allow_preserve)
        listed = listed_by_others(path) if definition.is_secret else None
        if warnings := tuple(str(each) for each in (trouble, listed) if each is not None):
            document = replace(document, warnings=warnings)
        return document if is_empty else with_numbers(document, numbers, head)

    async def _follow(
        self,
        asked: api.FilesetAcceptCommand,
        name: FilesetName,
        writer: NodeName,
        given: Mapping[str, object],
        line: LineId | None = None,
    ) -> bool:
        """Write it into the file and take that; ``line`` where it is new. Returns once the home took in how the fileset
        is followed here, so that a wait there waits for this node, or did not answer in time."""
        node, path, ready = self._node, str(Path(asked.path)), _ready(asked.settings)
        chosen = {key: value for key, value in given.items() if value is not None}
        if not edits.accept_fileset(node.directory, name, path, writer, chosen, ready=ready):
            return False
        node.reload()
        if line is not None:
            node.runtime.note("accepted", f"{name} of {writer} is followed in {path}", line)
        if (uplink := node.peers.uplinks.get(writer)) is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_HEARD_S):
                    observed = bool(chosen.get("observe"))
                    while not observed and node.services[name].standing.standing is Standing.OBSERVING:
                        await node.runtime.changed.wait()
            await uplink.is_heard(_HEARD_S)
        return True


def _shown(service: LineService) -> api.FilesetDocument:
    definition = service.known_definition() or Definition()
    return api.FilesetDocument(
        name=service.fileset.name,
        path=str(service.fileset.path),
        writer=service.fileset.writer,
        is_written_here=service.is_written_here,
        mode=definition.mode.value,
        fileset_class=definition.fileset_class.value,
        ignore=tuple(definition.ignore),
        include=tuple(definition.include),
        preserve=tuple(each.value for each in definition.preserve),
        standing=service.standing.standing.value,
    )


def _ready(found: Mapping[str, object]) -> Mapping[str, object]:
    """A recipe's settings, filled in by the command line of this node's own operator."""
    if {"path", "writer", "origin"} & found.keys():
        raise UsageError("settings is not a table of a fileset's keys", code="bad_flags")
    return found
