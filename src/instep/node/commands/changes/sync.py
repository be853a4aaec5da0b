"""Sync runs: started here or passed on to the home that carries them out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from instep.api.changes import sync as api
from instep.api.command import Command, Document
from instep.api.steps import with_steps
from instep.core.sync.table import Side
from instep.core.sync.work import SyncWork
from instep.errors import InstepError, NotAllowedError, RefusedError
from instep.model.change import author_from
from instep.model.ids import FilesetName, NodeName
from instep.model.standing import typed_at
from instep.model.sync import ProfileNews
from instep.net.messages import messages as m
from instep.node.commands.cluster.carrier import LOOK_ELSEWHERE_S, ask_carrier
from instep.node.commands.context import CommandContext, CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import author_as
from instep.node.config.sync import SyncSettings
from instep.node.profiles.known_profiles import known_profile, known_profiles
from instep.node.runtime.driver import wall_ms
from instep.node.syncing.peer_commands import asked_of, behind, fitting, page_of
from instep.node.syncing.profile_view import ProfileView

D = TypeVar("D", bound=Document)
RUN_S = 3_600.0
LISTED_MAX = 200_000
"""Listed paths that are fetched from another node."""
LOOK_S = 1.0
LIST_S = 5.0
"""How long a list waits for each home that carries runs out."""


class SyncCommands(CommandHandlers):
    async def sync_run(self, asked: api.SyncRunCommand, speaker: Speaker) -> api.SyncRunDocument:
        profile = self._profile(asked.profile)
        me = self._node.runtime.name
        if me not in profile.may_start:
            raise _no_initiator(me, profile.name, profile.may_start)
        named = msgspec.structs.replace(asked, author=author_as(asked.author))
        if profile.carrier != me:
            return await self._passed_on(profile.name, profile.carrier, named)
        return await self._started(named, me, speaker)

    async def _started(
        self, asked: api.SyncRunCommand, initiator: NodeName, speaker: Speaker | None
    ) -> api.SyncRunDocument:
        """Start the run and wait for its end; it goes on where the caller leaves."""
        message = asked.message or f"sync {asked.profile}"
        work = SyncWork(
            asked.author,
            message,
            wall_ms(),
            is_dry_run=asked.dry_run,
            initial=Side(asked.initial) if asked.initial is not None else None,
            accepts_rollback=asked.accept_rollback,
            accepts_deletions=asked.accept_deletions,
            retries_refused=asked.retry_refused,
        )
        task = self._context.sync.begin(asked.profile, work, initiator)
        while not task.done():
            await asyncio.wait([task], timeout=LOOK_S)
            if speaker is not None:
                await speaker.progress(work.phase.value, work.done, work.total or None, "paths")
        if task.cancelled():
            raise RefusedError(
                f"the run of {asked.profile} was cancelled",
                hint=f"it goes on from where it was: instep sync run {asked.profile}",
                code="sync_cancelled",
            )
        if work.error is not None:
            raise work.error
        return task.result()

    async def sync_list(self, asked: api.SyncListCommand, speaker: Speaker) -> api.SyncProfilesDocument:
        runtime = self._node.runtime
        own = runtime.settings.sync
        named = [
            each
            for fileset in runtime.settings.filesets
            for each in known_profiles(runtime.store, fileset)
            if each.name not in own
        ]
        found = await asyncio.gather(*map(self._listed, own.values()), *map(self._listed_elsewhere, named))
        return api.SyncProfilesDocument(tuple(found))

    async def _listed(self, profile: SyncSettings) -> api.SyncProfileDocument:
        """As the home that carries the runs out shows it, or, where that cannot be asked, as this node knows it."""
        if profile.carrier == self._node.runtime.name:
            return await self._shown(profile)
        try:
            return await self._passed_on(
                profile.name, profile.carrier, api.SyncShowCommand(profile.name), LIST_S
            )
        except InstepError as error:
            why = f"{profile.carrier} carries it out and cannot be asked: {error.reason}"
            return replace(await self._shown(profile), why_not=why)

    async def _listed_elsewhere(self, news: ProfileNews) -> api.SyncProfileDocument:
        """The same of a profile that is not in this node's settings."""
        try:
            return await self._passed_on(news.name, news.carrier, api.SyncShowCommand(news.name), LIST_S)
        except InstepError as error:
            return api.SyncProfileDocument(
                name=news.name,
                left=news.left,
                right=news.right,
                direction=news.direction,
                initiators=news.initiators,
                carried_out_by=news.carrier,
                kinds=(),
                in_sync=False,
                why_not=f"{news.carrier} carries it out and cannot be asked: {error.reason}",
                last=None,
            )

    async def sync_show(self, asked: api.SyncShowCommand, speaker: Speaker) -> api.SyncProfileDocument:
        carrier = self._carrier(asked.profile)
        if carrier != self._node.runtime.name:
            return await self._passed_on(asked.profile, carrier, asked)
        return await self._shown(self._profile(asked.profile))

    async def sync_cancel(self, asked: api.SyncCancelCommand, speaker: Speaker) -> api.SyncCancelDocument:
        profile = self._profile(asked.profile)
        if profile.carrier != self._node.runtime.name:
            return await self._passed_on(profile.name, profile.carrier, asked)
        return api.SyncCancelDocument(profile.name, self._context.sync.cancel(profile.name))

    async def sync_collisions(
        self, asked: api.SyncCollisionsCommand, speaker: Speaker
    ) -> api.SyncCollisionsDocument:
        carrier = self._carrier(asked.profile)
        if carrier != self._node.runtime.name:
            return await self._all_pages(carrier, asked)
        profile = self._profile(asked.profile)
        if asked.reviewed is not None:
            self._context.sync.review(profile.name, asked.reviewed)
        listed = self._context.sync.listed(profile.name)
        shown = tuple(each for each in listed if asked.all or not each.reviewed)
        return api.SyncCollisionsDocument(profile.name, behind(shown, asked.after))

    async def _all_pages(
        self, carrier: NodeName, asked: api.SyncCollisionsCommand
    ) -> api.SyncCollisionsDocument:
        """The listing of another node, which comes in pages."""
        page = await self._passed_on(asked.profile, carrier, asked)
        listed = list(page.listed)
        while not page.is_last and page.listed and len(listed) < LISTED_MAX:
            rest = msgspec.structs.replace(asked, reviewed=None, after=page.listed[-1].id)
            page = await self._passed_on(asked.profile, carrier, rest)
            listed += page.listed
        return api.SyncCollisionsDocument(asked.profile, tuple(listed), page.is_last)

    # --- for other nodes ------------------------------------------------------------------------------------------

    def _carrier(self, name: str) -> NodeName:
        """The home that carries the runs of a profile out: by this node's settings, by what that home said, or else
        another home of a line that is followed here, which may know."""
        runtime = self._node.runtime
        own, known = runtime.settings.sync.get(name), known_profile(runtime.store, runtime.settings, name)
        if own is not None:
            return own.carrier
        if known is not None:
            return known.carrier
        followed = [each.writer for each in self._node.services.values() if not each.is_written_here]
        homes = sorted({home for home in followed if home in self._node.peers.uplinks})
        return homes[0] if homes else self._context.sync.profile(name).carrier

    async def _passed_on(self, name: str, carrier: NodeName, asked: Command[D], within_s: float = RUN_S) -> D:
        """Have the home that carries the runs out answer, with its steps as they are typed there."""
        found = await ask_carrier(self._node, name, carrier, asked, within_s)
        shown: D = with_steps(found, lambda step: typed_at(step, carrier, is_writer=False))
        return shown

    async def _answer(self, who: NodeName, request: m.SyncRequest) -> m.SyncReply:
        """Another node asks: an initiator, or to look and review any server of a side."""
        carrier = self._carrier(request.profile)
        is_look = request.wanted in ("sync_show", "sync_collisions")
        if is_look and carrier != self._node.runtime.name and self._may_look(who, request.profile):
            return await self._asked_on(who, carrier, request)
        profile = self._context.sync.profile(request.profile)
        if who not in profile.may_start and not (is_look and self._may_look(who, profile.name)):
            raise _no_initiator(who, profile.name, profile.may_start)
        document: Document
        match request.wanted:
            case "sync_run":
                asked = asked_of(who, request, api.SyncRunCommand)
                named = msgspec.structs.replace(asked, author=author_from(who, asked.author))
                document = fitting(await self._started(named, who, None))
            case "sync_show":
                shown = await self._shown(profile)
                last = fitting(shown.last) if shown.last is not None else None
                document = msgspec.structs.replace(shown, last=last)
            case "sync_cancel":
                document = api.SyncCancelDocument(profile.name, self._context.sync.cancel(profile.name))
            case "sync_collisions":
                document = self._page(asked_of(who, request, api.SyncCollisionsCommand))
        return m.SyncReply(msgspec.json.encode(document))

    async def _asked_on(self, who: NodeName, carrier: NodeName, request: m.SyncRequest) -> m.SyncReply:
        """A server of this side asks about a profile whose runs the other home carries out."""
        if request.wanted == "sync_show":
            look = asked_of(who, request, api.SyncShowCommand)
            shown = await self._passed_on(request.profile, carrier, look, LOOK_ELSEWHERE_S)
            return m.SyncReply(msgspec.json.encode(shown))
        page = asked_of(who, request, api.SyncCollisionsCommand)
        listed = await self._passed_on(request.profile, carrier, page, LOOK_ELSEWHERE_S)
        return m.SyncReply(msgspec.json.encode(listed))

    def _may_look(self, who: NodeName, name: str) -> bool:
        """Whether a node is the other home of a profile, or may have this home's side of it."""
        runtime, peers = self._node.runtime, self._node.peers
        own, known = runtime.settings.sync.get(name), known_profile(runtime.store, runtime.settings, name)
        if own is not None:
            homes, sides = {own.left.home, own.right.home}, (str(own.left), str(own.right))
        elif known is not None:
            homes, sides = {known.carrier}, (known.left, known.right)
        else:
            return False
        here = (side.partition("@")[0] for side in sides if side.partition("@")[2] == runtime.name)
        services = (self._node.services.get(FilesetName(fileset)) for fileset in here)
        return who in homes or any(
            service is not None and peers.access.why_not(who, service) is None for service in services
        )

    def _page(self, asked: api.SyncCollisionsCommand) -> api.SyncCollisionsDocument:
        if asked.reviewed is not None:
            self._context.sync.review(asked.profile, asked.reviewed)
        listed = self._context.sync.listed(asked.profile)
        page, is_last = page_of(tuple(each for each in listed if asked.all or not each.reviewed), asked.after)
        return api.SyncCollisionsDocument(asked.profile, page, is_last)

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _profile(self, name: str) -> SyncSettings:
        try:
            return self._context.sync.profile(name)
        except InstepError:
            runtime = self._node.runtime
            known = known_profile(runtime.store, runtime.settings, name)
            if known is None and self._knows_any():
                raise
            if known is None:
                raise NotAllowedError(
                    f"{runtime.name} may not start runs of {name}: it has no sync profile",
                    hint=f"on a server that has the profile: instep sync run {name}",
                    code="no_initiator",
                    node=runtime.name,
                ) from None
            partners = {known.carrier, *runtime.settings.partners}
            may_start = frozenset(partners & {*known.initiators}) or frozenset((known.carrier,))
            raise _no_initiator(runtime.name, name, may_start) from None

    def _knows_any(self) -> bool:
        """Whether this node has a profile, or another home named it one: else it is no server that starts runs."""
        runtime = self._node.runtime
        named = (known_profiles(runtime.store, fileset) for fileset in runtime.settings.filesets)
        return bool(runtime.settings.sync) or any(named)

    async def _shown(self, profile: SyncSettings) -> api.SyncProfileDocument:
        """As this node knows it, and, where it carries the runs out, as both homes are now."""
        runs, schedule = self._context.sync, self._context.sync_schedule
        is_here = profile.carrier == self._node.runtime.name
        view = ProfileView(profile, runs.base_of(profile.name), runs.run_of(profile.name))
        looks = await runs.looks(profile) if is_here else {}
        return view.document(looks, schedule.dealt(profile), schedule.next_s(profile))


def sync_port(context: CommandContext) -> Callable[[NodeName, m.SyncRequest], Awaitable[m.SyncReply]]:
    """What answers the sync commands of other nodes."""
    return SyncCommands(context)._answer


def _no_initiator(node: NodeName, profile: str, allowed: frozenset[NodeName]) -> NotAllowedError:
    names = ", ".join(sorted(allowed))
    return NotAllowedError(
        f"{node} may not start runs of {profile}; allowed: {names}",
        hint=f"on {min(allowed)}: instep sync run {profile}",
        code="no_initiator",
        node=node,
    )
