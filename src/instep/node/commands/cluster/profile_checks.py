"""Rows of ``check`` about sync profiles: at the home that carries runs out, at initiators, at the other home."""

from __future__ import annotations

from collections.abc import AsyncIterator

from instep.api.changes import sync as api
from instep.errors import InstepError
from instep.model.counts import counted
from instep.model.ids import FilesetName, LineId, NodeName
from instep.model.sync import ProfileNews
from instep.node.commands.cluster.carrier import ask_carrier
from instep.node.commands.context import CommandContext
from instep.node.config.sync import SyncSettings
from instep.node.profiles.known_profiles import known_profiles
from instep.node.syncing.profile_check import ProfileCheck, ProfileRow
from instep.node.syncing.profile_view import ProfileView

ASK_S = 10.0
COMPARED = ("left", "right", "direction", "initiators", "kinds", "gates")


class ProfileChecks:
    """The conditions of each profile in which this node takes part."""

    def __init__(self, context: CommandContext) -> None:
        self._context, self._node = context, context.node
        self._me = context.node.runtime.name

    async def rows(self) -> AsyncIterator[ProfileRow]:
        runtime = self._node.runtime
        for profile in runtime.settings.sync.values():
            rows = self._carried_out(profile) if profile.carrier == self._me else self._started(profile)
            async for row in rows:
                yield row
        for fileset in runtime.settings.filesets:
            for news in known_profiles(runtime.store, fileset):
                if news.name not in runtime.settings.sync:
                    for row in self._other_home(fileset, news):
                        yield row

    async def _carried_out(self, profile: SyncSettings) -> AsyncIterator[ProfileRow]:
        runs = self._context.sync
        looks = await runs.looks(profile)
        check = ProfileCheck(profile, looks, self._node.runtime.facts.key)
        for row in check.of_looks():
            yield row
        if all(look.error is None for look in looks.values()):
            near, far = runs.homes_of(profile)
            with runs.busy():
                rows = await check.of_homes(near, far, runs.former_bases(profile, near, far))
            for row in rows:
                yield row
        away = [name for name in sorted(profile.may_start) if name != self._me and not self._is_up(name)]
        said = (
            f"{', '.join(away)} not connected"
            if away
            else f"{counted(len(profile.may_start), 'node')} connected"
        )
        hint = f"on {away[0]}: instep start; instep check" if away else None
        yield self._row(
            "initiators of", profile.name, not away, said, hint, NodeName(away[0]) if away else self._me
        )

    async def _started(self, profile: SyncSettings) -> AsyncIterator[ProfileRow]:
        """An initiator that does not carry the runs out: it is answered, and has the profile as it is there."""
        name, carrier = profile.name, profile.carrier
        try:
            shown = await ask_carrier(self._node, name, carrier, api.SyncShowCommand(name), ASK_S)
        except InstepError as error:
            yield self._row("home of", name, False, error.reason, error.hint, carrier)
            return
        yield self._row("home of", name, True, f"{carrier} answers", None, carrier)
        own = ProfileView(profile, None, None).document({}, None, None)
        others = [key for key in COMPARED if getattr(own, key) != getattr(shown, key)]
        said = f"not as on {carrier}: {', '.join(others)}" if others else f"as on {carrier}"
        hint = f"compare [sync.{name}] of instep.toml on both nodes: instep sync show {name} --json"
        yield self._row("settings of", name, not others, said, hint, carrier)

    def _other_home(self, fileset: FilesetName, news: ProfileNews) -> list[ProfileRow]:
        """The home of the side that does not carry the runs out."""
        name, carrier = news.name, news.carrier
        hint = f"on {carrier}: instep check"
        said = "is connected" if self._is_up(carrier) else "is not connected"
        found = [self._row("home of", name, self._is_up(carrier), f"{carrier} {said}", hint, carrier)]
        service = self._node.services.get(fileset)
        if service is None or service.home is None:
            return found
        line = LineId(fileset, service.line.origin)
        try:
            self._node.peers.access.require_home(carrier, service, line)
            found.append(self._row("changes of", name, True, f"{carrier} may bring them", None, carrier))
        except InstepError as error:
            found.append(self._row("changes of", name, False, error.reason, error.hint, self._me))
        if any(kind.is_locked for kind in news.kinds):
            edits = sum(edit.profile == name for edit in service.home.locked_edits())
            said = f"{counted(edits, 'path')} changed where the kind is locked" if edits else "no edits"
            hint = f"see them: instep sync show {name}; the next run puts back what is locked"
            found.append(
                self._row(f"locked kinds of {fileset}@{self._me} in", name, not edits, said, hint, self._me)
            )
        return found

    def _is_up(self, name: NodeName) -> bool:
        peers = self._node.peers
        uplink = peers.uplinks.get(name)
        return name in peers.sessions or (uplink is not None and uplink.is_up)

    def _row(
        self, what: str, name: str, is_ok: bool, theirs: str, hint: str | None, node: NodeName
    ) -> ProfileRow:
        return ProfileRow(f"{what} sync {name}", is_ok, self._me, theirs, hint, node)
