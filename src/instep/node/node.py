"""One node while it runs: its identity, trust, members, peers, and the lines that it writes or follows."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from instep.core.vocabulary import trouble_of
from instep.errors import ConfigError, DamagedError, InstepError
from instep.model.counts import counted, which
from instep.model.definition import Mode
from instep.model.ids import FilesetName, LineId, NodeName
from instep.net.client import PeerClient
from instep.net.connections.listener import Refusal
from instep.net.connections.tls import TlsContexts
from instep.net.messages.messages import Offer
from instep.net.server import PeerServer
from instep.net.trust.pki import Pki
from instep.node.config.filesets import FilesetSettings
from instep.node.config.keys import keys_of
from instep.node.config.loading import load
from instep.node.config.settings import Settings
from instep.node.config.table_reader import problem
from instep.node.directory import NodeDirectory
from instep.node.following.follower import FollowService
from instep.node.following.shared_follower import SharedFollowService
from instep.node.following.shared_root import SharedRootPort
from instep.node.lines.golden_answers import forget_golden
from instep.node.lines.line_service import LineService
from instep.node.peers.membership import Membership
from instep.node.peers.network.partner_rows import dialled_as, own_rows
from instep.node.peers.peer_context import Dial
from instep.node.peers.peers import Peers
from instep.node.peers.renewal import Renewal, ShownWatch
from instep.node.replica.own_line import OwnLine
from instep.node.runtime.background import AGAIN_S, passing_trouble
from instep.node.runtime.config_file import ConfigFile
from instep.node.runtime.draining import changes_key, rollout_key
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import stuck_standing
from instep.node.runtime.state import is_lost, lost
from instep.node.trees.owner_rules import forget_owners
from instep.node.trees.placing import forget_marker
from instep.node.writing.writer import WriterService
from instep.store.port import NodeStore

__all__ = ["Node"]

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")


class Node:
    """The shared state of a node's services and commands. The daemon owns it, and runs its tasks."""

    def __init__(
        self,
        directory: NodeDirectory,
        settings: Settings,
        state_note: str | None = None,
        *,
        open_store: Callable[[Path], NodeStore] | None = None,
        dial: Dial | None = None,
    ) -> None:
        """``open_store`` and ``dial`` open the state and call a partner; SQLite and TLS by default."""
        self.directory = directory
        self.pki = Pki(directory.pki)
        self.runtime = Runtime(directory, settings, self.pki, secrets.token_bytes(16), state_note, open_store)
        self.tls = TlsContexts(self.pki, wall_ms)
        self.membership = Membership(self.runtime, self.tls, self.reload)
        self.peers = Peers(self.runtime, self.tls, self.membership, dial or partial(PeerClient, self.tls))
        self.peers.on_revoked = self.follow_trust
        self.peers.on_offer = self._offered
        self.renewal = Renewal(self.peers)
        self.shown = ShownWatch(self.runtime, self.tls)
        self.services: dict[FilesetName, LineService] = {}
        self.config_problem: ConfigError | None = None
        self.config_file = ConfigFile(directory.config)
        self.started_ms = wall_ms()
        self.stopping = asyncio.Event()
        self.server = PeerServer(
            self.peers,
            self.tls,
            self.membership.allow_list,
            rate_bytes_s=lambda: self.runtime.settings.rate_limit,
            on_refused=self._refused,
        )
        self.state_lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Fails with ``StateLost`` when a line finds that the database has gone."""
        self.tasks: dict[FilesetName, asyncio.Task[None]] = {}
        self.open_shared_root: Callable[[LineId], SharedRootPort] | None = None

    # Settings -----------------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Read ``instep.toml`` again. A bad file changes nothing: the old one goes on and status says so."""
        self.config_file.note()
        try:
            settings = load(self.directory.path)
            self._check_reloadable(settings)
            self._check_writers(settings)
        except ConfigError as error:
            self.config_problem = error
            problems: Any = error.facts.get("problems", ())
            self.runtime.refused_config = counted(len(problems) or 1, "problem")
            self.peers.report_all()
            self.runtime.note("config_refused", error.reason, problems=error.facts.get("problems"))
            self.runtime.tell()
            raise
        if self.config_problem is not None:
            self.runtime.note("config_taken", "instep.toml is in use again")
        self.config_problem = None
        self.runtime.refused_config = ""
        old = self.runtime.settings
        self.runtime.settings = settings
        self.follow_settings()
        for name in old.partners:
            if name not in settings.partners:
                self.peers.cut(name)
                self.membership.unlink(name)
                self.server.drop(name)
        self.server.drop_disallowed()
        self.peers.offers_changed()
        changed = {name for name, *_ in dialled_as(old) ^ dialled_as(settings)}
        self.peers.dial_anew(changed & set(old.partners))  # all is said again on a new link
        if own_rows(old) != own_rows(settings):
            self.peers.tell_self()
        self.peers.report_all()
        self.runtime.tell()

    def reload_edited(self) -> None:
        """Take a file that a person or program changed; that it was refused is in the events and in ``status``."""
        with contextlib.suppress(ConfigError):
            self.reload()

    def _check_reloadable(self, settings: Settings) -> None:
        fixed = [key for key in keys_of(Settings) if key.needs_restart]
        values = [
            (key, getattr(self.runtime.settings, key.field), getattr(settings, key.field)) for key in fixed
        ]
        problems = [
            problem(None, key.name, str(new), f"is {old} while the daemon runs; restart it")
            for key, old, new in values
            if old != new
        ]
        if problems:
            raise ConfigError(
                f"{counted(len(problems), 'setting')} {which(len(problems), 'needs', 'need')} a restart",
                hint="instep stop, then: instep start",
                code="needs_restart",
                problems=problems,
            )

    def other_writers(self, fileset: FilesetSettings) -> set[NodeName]:
        """The nodes that partners name as writers of another line of this name, which can have no other."""
        others = (
            offer
            for offer in self.peers.offers_of(fileset.name)
            if offer.line != fileset.line
            and not (fileset.is_of_many_homes and offer.mode == Mode.REPLICATE.value)
        )
        return {offer.writer for offer in others}

    def _check_writers(self, settings: Settings) -> None:
        """A name has one writer: no file makes this node the writer of a second line of it, beside the line that it
        follows or that a partner offers. A change of writer keeps the line."""
        problems = []
        for name, fileset in settings.filesets.items():
            running = self.services.get(name)
            if not fileset.is_written_here or (running is not None and running.line == fileset.line):
                continue
            writers = self.other_writers(fileset)
            if running is not None and not running.is_written_here:
                writers.add(running.fileset.writer)
            if writers:
                why = f"names this node, and {name} is written on {', '.join(sorted(writers))}"
                problems.append(problem(None, f"filesets.{name}.writer", str(fileset.writer), why))
        if problems:
            raise ConfigError(
                f"{counted(len(problems), 'fileset')} would have two writers",
                hint="on the present writer: instep handover FILESET NODE; when it is dead, here: "
                "instep promote FILESET --home-is-dead; to follow it: instep fileset accept NAME PATH",
                code="two_writers",
                problems=problems,
            )

    def follow_settings(self) -> None:
        """Level: start, stop and reconfigure services until they are what the settings say."""
        wanted = self.runtime.settings.filesets
        for name in list(self.services):
            fileset = wanted.get(name)
            service = self.services[name]
            if fileset is None or _is_other(service.fileset, fileset):
                self._end(name)
        for name, fileset in wanted.items():
            running = self.services.get(name)
            if running is None:
                self._begin(fileset)
            else:
                running.reconfigure(fileset)

    def _begin(self, fileset: FilesetSettings) -> None:
        service = self._service(fileset)
        self.services[fileset.name] = service
        self.peers.lines[service.line] = service
        before = self.tasks.get(fileset.name)
        self.tasks[fileset.name] = asyncio.get_running_loop().create_task(self._supervise(service, before))
        for uplink in self.peers.uplinks.values():
            uplink.take_up(service.line)

    def _service(self, fileset: FilesetSettings) -> LineService:
        if fileset.is_of_many_homes:
            return OwnLine(self.runtime, fileset, self.peers)
        if fileset.is_written_here:
            return WriterService(self.runtime, fileset, self.peers)
        if fileset.shared:
            assert self.open_shared_root is not None, "the daemon gives a node its part in shared roots"
            return SharedFollowService(self.runtime, fileset, self.peers, self.open_shared_root(fileset.line))
        return FollowService(self.runtime, fileset, self.peers)

    def _offered(self, offer: Offer) -> None:
        """A partner offers a line: in a fileset of many homes here it is kept."""
        service = self.services.get(offer.line.fileset)
        if isinstance(service, OwnLine):
            service.replica.offered(offer)

    def _end(self, name: FilesetName) -> None:
        service = self.services.pop(name)
        self.peers.lines.pop(service.line, None)
        for uplink in self.peers.uplinks.values():
            uplink.let_go(service.line)
        self.tasks[name].cancel()
        if name not in self.runtime.settings.filesets:
            forget_marker(self.runtime.store, name)
            forget_owners(self.runtime.store, name)
            forget_golden(self.runtime.store, name)
            self.runtime.draining.end(rollout_key(name))
            self.runtime.draining.end(changes_key(name))

    def begin_again(self, name: FilesetName) -> None:
        """End a line's service and begin it anew, as at the start of the daemon."""
        fileset = self.services[name].fileset
        self._end(name)
        self._begin(fileset)
        self.runtime.tell()

    async def _supervise(self, service: LineService, before: asyncio.Task[None] | None) -> None:
        """Run a line's service. A broken invariant stops this line only, loudly; the others go on."""
        if before is not None:
            await asyncio.gather(before, return_exceptions=True)
        try:
            await service.run()
        except asyncio.CancelledError:
            raise
        except Exception as error:  # the supervisor: named in status and log, never swallowed
            trouble = passing_trouble(error) if isinstance(error, InstepError | OSError) else None
            if trouble is not None:
                await self._begin_anew(service, trouble)
                return
            if isinstance(error, DamagedError) and is_lost(error):
                if not self.state_lost.done():
                    self.state_lost.set_exception(lost(error))
                return
            log.exception("%s broke", service.line)
            service.broke(error)
            await self.peers.report(service.line)

    async def _begin_anew(self, service: LineService, trouble: InstepError) -> None:
        """This machine could not carry the line on, as when the state's disk is full: it says so, and begins again."""
        while True:
            log.error("%s begins anew in %g s: %s", service.line, AGAIN_S, trouble.reason)
            service.take_standing(stuck_standing(trouble_of(trouble)))
            await self.peers.report(service.line)
            await asyncio.sleep(AGAIN_S)
            for uplink in self.peers.uplinks.values():
                uplink.let_go(service.line)
            try:
                self._begin(service.fileset)
                return
            except (InstepError, OSError) as error:
                found = passing_trouble(error)
                if found is None:
                    raise
                trouble = found

    async def services_thread(self, call: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        """Work on a tree that no service owns yet."""
        return await asyncio.to_thread(call, *args, **kwargs)

    # Trust --------------------------------------------------------------------------------------------------

    async def trust_changed(self) -> None:
        """Certificates or revocations changed: new handshakes see it at once, open connections are checked."""
        self.follow_trust()

    def follow_trust(self) -> None:
        """Of the connections that are open both directions are looked at."""
        self.tls.reload()
        self.shown.look()
        self.server.drop_untrusted()
        self.peers.dial_anew(self.tls.lost_trust())

    async def renew(self, *, by_hand: bool = False) -> None:
        """Renew this node's certificates when that is due, or because an operator asks for it."""
        if by_hand:
            await self.renewal.by_hand()
        elif not await self.renewal.when_due():
            if self.tls.is_stale:
                await self.trust_changed()
            self.shown.look()
            return
        await self.trust_changed()
        self.peers.tell_heads_again()

    def _refused(self, refusal: Refusal) -> None:
        """A peer was cut before it could ask anything."""
        why = f"{refusal.why} ({refusal.detail})" if refusal.detail else refusal.why
        text = f"{refusal.address} was refused: {why}"
        self.runtime.note_of_peer(
            refusal.address, "peer_refused", text, address=refusal.address, code=refusal.why
        )


def _is_other(running: FilesetSettings, wanted: FilesetSettings) -> bool:
    """Whether the change is too deep for a running service: another tree, writer or kind of lines."""
    one, other = (
        (each.path, each.writer, each.line, each.stage, each.is_of_many_homes, each.shared)
        for each in (running, wanted)
    )
    return one != other
