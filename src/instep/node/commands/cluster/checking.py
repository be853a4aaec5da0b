"""The preflight behind ``instep check``: the conditions for work, each with both values and what to do."""

from __future__ import annotations

import asyncio
import os
import shutil

from msgspec import UNSET, UnsetType

from instep.api.verifying import CheckRowDocument
from instep.core.follow.gates import CLOCK
from instep.core.retention import FREE_MIN_SHARE
from instep.core.vocabulary import Trouble, trouble_of
from instep.errors import InstepError
from instep.model.counts import counted, sized
from instep.model.ids import NodeName
from instep.net.messages import messages as m
from instep.net.service import HEADS
from instep.node.cluster.address_file import cluster_address
from instep.node.commands.cluster.copy_checks import copies_rows
from instep.node.commands.cluster.profile_checks import ProfileChecks
from instep.node.commands.context import CommandContext
from instep.node.commands.control import Speaker
from instep.node.commands.targets import accepted_by, facts_now, owner_trouble
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.daemon_rights import RightsRow, hardlinks_row, need_of, rights_of_process, rights_row
from instep.node.facts.mounts import mount_at, row_of
from instep.node.facts.owners import foreign_in, of_written
from instep.node.facts.work_tree import git_words
from instep.node.lines.gating import GateLook, compare_facts, gates_of, known_gates, look_at_gates
from instep.node.lines.line_service import LineService
from instep.node.peers.dialled_link import DialledLink
from instep.node.peers.link_cures import cures_of
from instep.node.peers.network.dates import date_rows
from instep.node.runtime.driver import wall_ms
from instep.node.trees.exchanging import EXCHANGE_HINT, obstacles
from instep.node.trees.root_watch import look_at_all
from instep.node.trees.scanning.held_view import check_words
from instep.node.upkeep.after_reboot import Host, after_reboot
from instep.node.upkeep.installed_files import restart_command
from instep.node.upkeep.own_files import kept_states, own_files
from instep.store.database import ROOM_NEEDED_BYTES
from instep.tree.root.place import Place
from instep.tree.root.resolving import resolved
from instep.tree.root.writable import require_writable_folder

SKEW_MAX_MS = 300_000
CALL_S = 10.0
FACTS_S = 20.0


class Preflight:
    """One look at everything that this node can see: its configuration, keys, links, roots, disks and clocks. Each
    condition is a row, and the caller sees its name when it was looked at."""

    def __init__(self, context: CommandContext, speaker: Speaker) -> None:
        self.rows: list[CheckRowDocument] = []
        self._context, self._node, self._speaker = context, context.node, speaker
        self._me = context.node.runtime.name

    async def _row(
        self,
        name: str,
        ok: bool,
        ours: object = None,
        theirs: object = None,
        hint: str | None = None,
        *,
        node: str | None = None,
        note: str | UnsetType = UNSET,
    ) -> None:
        hint = None if ok else hint
        self.rows.append(CheckRowDocument(name, ok, node or self._me, ours, theirs, hint, note))
        await self._speaker.progress(name, len(self.rows), None, "checks", None)

    async def run(self, max_behind_ms: int | None) -> None:
        node, problem = self._node, self._node.config_problem
        said, hint = problem.reason if problem else "current", "mend instep.toml, then: instep config reload"
        await self._row("configuration", problem is None, said, hint=hint)
        for name, said, hint in await asyncio.to_thread(own_files, node.directory, node.pki, wall_ms()):
            await self._row(name, False, said, hint=hint)
        await self._row("keys", True, "private, current, of this node")
        await self._process()
        await self._state()
        await self._database()
        roots = [service.fileset.path for service in node.services.values()]
        pki = resolved(node.directory.pki)
        below = [str(root) for root in roots if pki.is_relative_to(resolved(root))]
        await self._row(
            "keys outside served paths", not below, below or "yes", hint="move the node directory"
        )
        for uplink in node.peers.uplinks.values():
            await self._link(uplink)
        for name in node.runtime.settings.partners:
            if name not in node.peers.uplinks:
                said = (
                    "it dials this node" if (is_up := name in node.peers.sessions) else "it has not connected"
                )
                hint = f"on {name}: instep start; instep check"
                await self._row(f"partner {name}", is_up, said, hint=hint, node=name)
        await look_at_all(service.root for service in node.services.values())
        for service in node.services.values():
            if service.root.trouble is None:
                await self._fileset(service)
            else:
                await self._unseen(service.fileset, service.root.trouble)
            copies = await self._context.copies.look(service)
            for counted_row in copies_rows(service.fileset.name, copies):
                await self._row(*counted_row)
            for dated in date_rows(node.peers.freshness, service, max_behind_ms):
                await self._row(*dated)
        for what, row in (await asyncio.to_thread(self._rights)).items():
            await self._row(what, row.is_ok, row.ours, row.theirs, row.hint)
        async for found in ProfileChecks(self._context).rows():
            await self._row(found.name, found.is_ok, found.ours, found.theirs, found.hint, node=found.node)
        for file in self._context.balancers.files():
            why_not = await self._context.balancers.why_not(file)
            names = ", ".join(section.name for section in file.sections)
            said = why_not or f"{file.path} would be accepted"
            hint = "see what [balancers] and the nodes say: instep balancer render KIND --check"
            await self._row(f"balancer {names}", why_not is None, said, hint=hint)

    # The node -----------------------------------------------------------------------------------------------

    async def _database(self) -> None:
        """Whether the cluster's database can be used now, where one is set or needed."""
        cluster, runtime = self._context.cluster, self._node.runtime
        if runtime.settings.cluster_file is None and not cluster.state.shown:
            return
        try:  # the file is looked at each time: another user may read it since the connection was made
            await asyncio.to_thread(cluster_address, runtime.settings, runtime.directory)
            async with cluster.transaction() as (_, era):
                said = f"{cluster.state.shown}, era {era.era}"
            await self._row("cluster database", True, said)
        except InstepError as error:
            await self._row("cluster database", False, error.reason, hint=error.hint)

    async def _process(self) -> None:
        """Whether the daemon is that of its files, and what starts it again."""
        trouble = await asyncio.to_thread(self._context.installed.trouble)
        said = trouble or "those that it runs"
        await self._row("files of the daemon", trouble is None, said, hint=restart_command())
        found = after_reboot(self._node.directory, Host(), os.environ, os.getpid())
        note = found.words if found.hint is not None else UNSET
        await self._row("after a reboot", not found.is_surprise, found.words, hint=found.hint, note=note)

    def _rights(self) -> dict[str, RightsRow]:
        uid, allowed = os.geteuid(), self._node.runtime.settings.allow_preserve
        needs = []
        for service in self._seen():
            is_followed = not service.is_written_here and not service.fileset.observe
            definition = service.known_definition()
            keeps = definition.preserve if definition is not None else ()
            needs.append(need_of(service.fileset, uid, is_followed=is_followed, keeps=keeps, allowed=allowed))
        return {
            "rights of the daemon": rights_row(uid, rights_of_process(), needs),
            "links to files of others": hardlinks_row(uid, needs),
        }

    def _seen(self) -> list[LineService]:
        """Those whose root answers: another may hang for ever."""
        return [service for service in self._node.services.values() if service.root.trouble is None]

    async def _state(self) -> None:
        """Whether this node can go on writing down what it does; and the rest of a state that was damaged and
        rebuilt, until an operator has removed it."""
        database, trouble = self._node.directory.database, self._node.runtime.deferred.trouble
        directory = database.parent
        free = shutil.disk_usage(directory).free
        await self._row(
            "room for the state",
            trouble is None and free >= ROOM_NEEDED_BYTES,
            trouble.reason if trouble is not None else f"{sized(free)} are free in {directory}",
            f"at least {sized(ROOM_NEEDED_BYTES)}",
            f"free space on the file system of {directory}; it goes on by itself",
        )
        words = kept_states(database)
        if words is not None:
            await self._row("state", True, words, note=words)

    async def _link(self, uplink: DialledLink) -> None:
        name, error = uplink.name, uplink.error if not uplink.is_up else None
        what = f"link to {name}"
        if error is not None:
            where = str(error.facts.get("node", name))
            hint = "; or: ".join(cures_of(error, self._me, name)) or f"on {name}: instep status"
            await self._row(what, False, self._me, error.reason, hint, node=where)
            return
        before = wall_ms()
        try:
            reply = await uplink.client.call(HEADS, m.HeadsRequest(()), total_s=CALL_S)
        except InstepError as failed:
            await self._row(what, False, self._me, failed.reason, failed.hint, node=name)
            return
        said = f"answers in {wall_ms() - before} ms, {counted(len(reply.heads), 'line')}"
        await self._row(what, True, self._me, said, node=name)
        skew_ms = uplink.clock.skew_ms
        if skew_ms is not None:
            ok, skew = abs(skew_ms) <= SKEW_MAX_MS, f"{skew_ms / 1000:+.1f} s"
            hint = "run an NTP client on both nodes"
            await self._row(f"clock of {name}", ok, "this node's clock", skew, hint, node=name)

    # Filesets -----------------------------------------------------------------------------------------------

    async def _fileset(self, service: LineService) -> None:
        fileset, name = service.fileset, service.fileset.name
        if fileset.observe:
            await self._observed(service)
            return
        try:
            place = await service.worker.run(service.tree.place)
            await service.worker.run(require_writable_folder, place.control)
        except InstepError as error:
            await self._unseen(fileset, trouble_of(error))
            return
        except OSError as error:
            await self._row(f"root of {name}", False, str(fileset.path), str(error))
            return
        await self._row(f"root of {name}", True, str(place.root), "marked as this fileset's")
        can_write = os.access(place.control, os.W_OK) and (
            service.is_written_here or os.access(place.root, os.W_OK)
        )
        user, hint = f"user {os.geteuid()}", "let the user that runs instep read, write and delete there"
        await self._row(f"permissions in {name}", can_write, user, str(place.root), hint)
        if place.is_control_inside:
            what = "below the root: keep whatever serves the root from serving .instep"
            await self._row(f"control folder of {name}", True, str(place.control), what)
        if service.is_written_here:
            await self._paths(service)
        for row in await service.worker.run(service.own_rows, place):
            await self._row(*row)
        for record in self._context.housekeeping.mending.rows(name):
            await self._row(record.name, record.is_ok, record.ours, record.theirs, record.hint)
        usage = await asyncio.to_thread(shutil.disk_usage, place.control)
        share = usage.free / usage.total if usage.total else 1.0
        await self._row(
            f"free space for {name}",
            share >= FREE_MIN_SHARE,
            f"{sized(usage.free)} free ({share:.0%})",
            f"at least {FREE_MIN_SHARE:.0%}",
            f"free space, or shorten the archive: instep archive prune {name} --dry-run",
        )
        gates = fileset.definition.gates if fileset.definition is not None else ()
        for partner, session in accepted_by(self._node, service).items():
            path = session.accepted[service.line]
            ok = path == str(fileset.path) or "path" not in gates
            hint = f"on {partner}: instep fileset remove {name}, then accept it in {fileset.path}"
            await self._row(f"path of {name} on {partner}", ok, str(fileset.path), path, hint, node=partner)
        await self._owners(service)
        over = self._context.housekeeping.over_share.get(name)
        await self._row(f"archive of {name}", over is None, over or "within max_share")
        await self._mount(service)
        await self._watch(service)
        if service.is_written_here:
            await self._partner_gates(service)
        else:
            await self._followed(service, place)

    async def _unseen(self, fileset: FilesetSettings, trouble: Trouble) -> None:
        """The root cannot be used, so that nothing else is looked at."""
        facts = dict(trouble.facts)
        if trouble.code == "mount_missing":
            ours, expected = facts["ours"], facts["expected"]
            await self._row(f"mount of {fileset.name}", False, ours, expected, trouble.hint)
        else:
            await self._row(f"root of {fileset.name}", False, str(fileset.path), trouble.reason, trouble.hint)

    async def _observed(self, service: LineService) -> None:
        """A tree that is only observed: nothing of ours is in it, and nothing is written."""
        fileset, root = service.fileset, service.fileset.path
        can_read = await asyncio.to_thread(os.access, root, os.R_OK | os.X_OK)
        user, hint = f"user {os.geteuid()}", f"let the user that runs instep read {root}"
        said = f"{root}, only observed" if root.is_dir() else f"{root} is not there"
        await self._row(f"root of {fileset.name}", can_read, user, said, hint)
        if can_read:
            await self._mount(service)
            await self._watch(service)
        await self._gates(service)
        await self._source(service)

    async def _mount(self, service: LineService) -> None:
        fileset = service.fileset
        ours, theirs, note = row_of(mount_at(fileset.path), fileset.path, is_observed=fileset.observe)
        await self._row(f"mount of {fileset.name}", True, ours, theirs, note=note or UNSET)

    async def _watch(self, service: LineService) -> None:
        """Whether the watch sees all changes. On a file system of other machines it never does, and nothing can be
        done: that is shown, but it is no failure."""
        name, watch = f"watch of {service.fileset.name}", service.tree.watch
        if watch is None or watch.problem is None:
            await self._row(name, True, "sees all changes" if watch is not None else "not begun")
            return
        found, is_ok = watch.problem, watch.problem.code == "remote_file_system"
        await self._row(name, is_ok, found.reason, "changes are found by full scans", found.hint)

    async def _paths(self, service: LineService) -> None:
        """Whether all paths of a tree that is written here can be carried, as the newest scan found them."""
        name, (ok, words) = service.fileset.name, check_words(*service.not_carried)
        note = words if service.not_carried[1].total else UNSET
        await self._row(f"paths of {name}", ok, words, hint=f"instep status {name}", note=note)

    async def _owners(self, service: LineService) -> None:
        """Whether files get the owners that they should have. At the writer this is a note and no failure: the users of
        the partners' daemons are not known here."""
        name = f"owners of {service.fileset.name}"
        if service.is_written_here:
            foreign = await asyncio.to_thread(foreign_in, service.fileset.path, os.geteuid())
            said = of_written(service.fileset, foreign)
            words = said.words if said is not None else "carried, or the daemon's own"
            await self._row(name, True, words, note=UNSET if said is None else str(said))
            git = await asyncio.to_thread(git_words, service.fileset)
            if git is not None:
                await self._row(f"git in {service.fileset.name}", True, git.partition(";")[0], note=git)
            return
        trouble = owner_trouble(self._node.runtime.settings, service)
        words, hint = trouble or ("as they should be", None)
        await self._row(name, trouble is None, words, hint=hint)

    async def _partner_gates(self, service: LineService) -> None:
        """Each gate of a line written here against every connected partner that accepted it."""
        runtime, name = self._node.runtime, service.fileset.name
        gates, unknown = known_gates(service.known_definition())
        for text in unknown:
            hint = f"instep fileset set {name} gates=FACT,..."
            await self._row(f"gates of {name}", False, text, None, hint)
        sessions = accepted_by(self._node, service)
        if not gates or not sessions:
            return
        ours = dict(await self._node.peers.facts_of_line(service, runtime.facts.key))
        asked = [facts_now(session, service, FACTS_S) for session in sessions.values()]
        for partner, answer in zip(sessions, await asyncio.gather(*asked), strict=True):
            if isinstance(answer, InstepError):
                what = f"gates of {name} on {partner}"
                await self._row(what, False, "its facts", answer.reason, answer.hint, node=partner)
                continue
            reply, now = answer
            theirs = dict(reply.facts) | {CLOCK: str(reply.time_ms)}
            for look in compare_facts(gates, theirs, ours | {CLOCK: str(now)}, partner, runtime.name):
                await self._gate(f"{name} on {partner}", look, look.theirs, look.ours, partner)

    async def _gate(
        self, where: str, look: GateLook, ours: str | None, theirs: str | None, node: NodeName
    ) -> None:
        ok = look.code is None
        await self._row(f"gate {look.gate} of {where}", ok, ours, theirs, look.reason, node=node)

    # Followers ----------------------------------------------------------------------------------------------

    async def _followed(self, service: LineService, place: Place) -> None:
        """Gates, room, sources, and whether the root can be exchanged where that was chosen."""
        fileset = service.fileset
        if fileset.switch == "exchange":
            name = f"exchange of {fileset.name}"
            found = await service.worker.run(obstacles, place, service.known_definition(), fileset.carry)
            for obstacle in found:
                await self._row(name, False, obstacle.needed, obstacle.found, EXCHANGE_HINT)
            if not found:
                await self._row(name, True, "nothing stands against it")
        await self._gates(service)
        await self._room(service)
        await self._source(service)

    async def _source(self, service: LineService) -> None:
        fileset, writer = service.fileset, service.writer
        sources = ", ".join(service.sources) or "no node that sends it is connected"
        hint = f"on {writer}: instep partner list; instep fileset list"
        name = f"source of {fileset.name}"
        await self._row(name, bool(service.sources), f"follows {writer}", sources, hint, node=writer)

    async def _gates(self, service: LineService) -> None:
        """Each gate of a followed line, now, whether or not a generation waits."""
        fileset, definition = service.fileset, service.known_definition()
        if definition is None or not definition.gates:
            return
        try:
            gates = gates_of(definition)
            client = service.source(service.writer).client
            looks = await look_at_gates(self._node.runtime, fileset, service.line, gates, client)
        except InstepError as error:
            what = f"gates of {fileset.name}"
            await self._row(what, False, self._me, error.reason, error.hint, node=service.writer)
            return
        for look in looks:
            await self._gate(fileset.name, look, look.ours, look.theirs, service.writer)

    async def _room(self, service: LineService) -> None:
        """Room for a generation that waits to be staged, once its pages are here."""
        head, room = service.facts.head, await service.worker.run(service.room_needed)
        if head is None or room is None:
            return
        await self._row(
            f"space for generation {head.number} of {service.fileset.name}",
            room.is_enough,
            f"{sized(room.free_bytes)} free",
            f"needs {sized(room.need_bytes)}, and {sized(room.spare_bytes)} stay free",
            f"free space: instep archive prune {service.fileset.name} --dry-run; it goes on by itself",
        )
