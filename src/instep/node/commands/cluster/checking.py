"""The preflight behind ``instep check``: the conditions for work, each with both values and what to do."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterator
from shlex import quote

from msgspec.structs import replace

from instep.api.verifying import CheckRowDocument
from instep.core.follow.gates import CLOCK
from instep.errors import InstepError
from instep.model.counts import counted
from instep.net.messages import messages as m
from instep.node.commands.context import CommandContext
from instep.node.facts.daemon_rights import hardlinks_row, need_of, rights_of_process, rights_row
from instep.node.facts.mounts import mount_at, why_shared
from instep.node.following.follower import FollowService
from instep.node.lines.gating import compare_facts, gates_of, known_gates, look_at_gates
from instep.node.node import Node
from instep.node.peers.accepted_link import AcceptedLink
from instep.node.peers.dialled_link import DialledLink
from instep.node.runtime.driver import wall_ms
from instep.node.trees.exchanging import EXCHANGE_HINT, obstacles
from instep.node.trees.scanning.held_view import check_words
from instep.node.trees.space import room_for
from instep.node.writing.writer import WriterService
from instep.store.database import ROOM_NEEDED_BYTES
from instep.tree.root.place import Place
from instep.tree.root.writable import require_writable_folder

SKEW_MAX_MS = 300_000
FREE_MIN_SHARE = 0.05
CALL_S = 10.0
FACTS_S = 20.0
KEPT_NAMED_MAX = 5


def result(
    name: str, ok: bool, node: str, ours: object = None, theirs: object = None, hint: str | None = None
) -> CheckRowDocument:
    """One row of ``check --json``."""
    return CheckRowDocument(name, ok, node, ours, theirs, None if ok else hint)


async def check_node(context: CommandContext) -> AsyncIterator[CheckRowDocument]:
    """Everything this node can look at: its configuration, keys, links, roots, disks and clocks."""
    node = context.node
    me = node.runtime.name
    problem = node.config_problem
    yield result(
        "configuration",
        problem is None,
        me,
        problem.reason if problem is not None else "current",
        hint="mend instep.toml, then: instep config reload",
    )
    for found in await asyncio.to_thread(node.pki.problems, wall_ms()):
        yield result(f"keys {found.what}", False, me, f"{found.path}: {found.detail}", hint=found.hint)
    yield result("keys", True, me, "private, current, of this node")
    yield _check_state(node)
    kept = _kept_aside(node)
    if kept is not None:
        yield kept
    roots = [service.fileset.path for service in node.services.values()]
    below = [str(root) for root in roots if node.directory.pki.resolve().is_relative_to(root.resolve())]
    yield result("keys outside served paths", not below, me, below or "yes", hint="move the node directory")
    for uplink in node.peers.uplinks.values():
        async for each in _check_link(node, uplink):
            yield each
    for name in node.runtime.settings.partners:
        if name not in node.peers.uplinks:
            is_up = name in node.peers.sessions
            yield result(
                f"partner {name}",
                is_up,
                name,
                "it dials this node" if is_up else "it has not connected",
                hint=f"on {name}: instep start; instep check",
            )
    for service in node.services.values():
        async for each in _check_fileset(context, service):
            yield each
    for row in await asyncio.to_thread(_rights_rows, node):
        yield row
    for file in context.balancers.files():
        problem_of_file = await context.balancers.why_not(file)
        names = ", ".join(section.name for section in file.sections)
        yield result(
            f"balancer {names}",
            problem_of_file is None,
            me,
            problem_of_file or f"{file.path} would be accepted",
            hint="see what [balancers] and the nodes say: instep balancer render KIND --check",
        )


def _rights_rows(node: Node) -> list[CheckRowDocument]:
    uid, allowed = os.geteuid(), node.runtime.settings.allow_preserve
    needs = []
    for service in node.services.values():
        is_followed = isinstance(service, FollowService) and not service.fileset.observe
        known = service.fileset.definition
        definition = service.known_definition() if isinstance(service, FollowService) else known
        keeps = definition.preserve if definition is not None else ()
        needs.append(need_of(service.fileset, uid, is_followed=is_followed, keeps=keeps, allowed=allowed))
    rows = {
        "rights of the daemon": rights_row(uid, rights_of_process(), needs),
        "links to files of others": hardlinks_row(uid, needs),
    }
    me = node.runtime.name
    return [result(name, row.is_ok, me, row.ours, row.theirs, row.hint) for name, row in rows.items()]


def _check_state(node: Node) -> CheckRowDocument:
    """Whether this node can go on writing down what it does."""
    directory, me = node.directory.database.parent, node.runtime.name
    free = shutil.disk_usage(directory).free
    trouble = node.runtime.deferred.trouble
    return result(
        "room for the state",
        trouble is None and free >= ROOM_NEEDED_BYTES,
        me,
        trouble.reason if trouble is not None else f"{free} bytes are free in {directory}",
        f"at least {ROOM_NEEDED_BYTES} bytes",
        f"free space on the file system of {directory}; it goes on by itself",
    )


def _kept_aside(node: Node) -> CheckRowDocument | None:
    """Names what is left of a state that was damaged and rebuilt, until an operator has removed it."""
    database, me = node.directory.database, node.runtime.name
    kept = sorted(p for p in database.parent.glob(f"{database.name}.damaged-*") if p.name[-1].isdigit())
    if not kept:
        return None
    names = " ".join(quote(str(path)) for path in kept[:KEPT_NAMED_MAX])
    words = f"was damaged, and rebuilt from the tree and the partners; kept for a look: {names}; when seen: rm {names}"
    return replace(result("state", True, me, words), note=words)


async def _check_link(node: Node, uplink: DialledLink) -> AsyncIterator[CheckRowDocument]:
    me = node.runtime.name
    error = uplink.error if not uplink.is_up else None
    if error is not None:
        yield result(
            f"link to {uplink.name}",
            False,
            str(error.facts.get("node", uplink.name)),
            me,
            error.reason,
            error.hint or f"on {uplink.name}: instep status",
        )
        return
    before = wall_ms()
    try:
        reply = await uplink.client.heads(m.HeadsRequest(()), total_s=CALL_S)
    except InstepError as failed:
        yield result(f"link to {uplink.name}", False, uplink.name, me, failed.reason, failed.hint)
        return
    took = wall_ms() - before
    lines = counted(len(reply.heads), "line")
    yield result(f"link to {uplink.name}", True, uplink.name, me, f"answers in {took} ms, {lines}")
    if uplink.skew_ms is not None:
        ok = abs(uplink.skew_ms) <= SKEW_MAX_MS
        yield result(
            f"clock of {uplink.name}",
            ok,
            uplink.name,
            "this node's clock",
            f"{uplink.skew_ms / 1000:+.1f} s",
            "run an NTP client on both nodes",
        )


async def _check_room(node: Node, service: FollowService, place: Place) -> AsyncIterator[CheckRowDocument]:
    """Room for a generation that waits to be staged, once its pages are here."""
    head, base, get = service.facts.head, service.facts.tree or service.facts.live, service.tree.get_page
    if head is None or (base is not None and head.id == base.id) or service.fileset.observe:
        return
    try:
        root = base.root if base is not None else None
        room = await service.worker.run(room_for, place, root, head.root, get)
    except KeyError:
        return  # its pages are not fetched yet: nothing is known of its size
    yield result(
        f"space for generation {head.number} of {service.fileset.name}",
        room.is_enough,
        node.runtime.name,
        f"{room.free_bytes} bytes free",
        f"needs {room.need_bytes} bytes",
        "free space: instep archive prune --dry-run; it goes on by itself",
    )


async def _check_gates(node: Node, service: FollowService) -> AsyncIterator[CheckRowDocument]:
    """Each gate of a followed line, now, whether or not a generation waits."""
    fileset, definition = service.fileset, service.known_definition()
    writer = service.sources.get(service.writer)
    if definition is None or not definition.gates:
        return
    try:
        gates = gates_of(definition)
        client = writer.client if writer is not None else service.source(service.writer).client
        looks = await look_at_gates(node.runtime, fileset, service.line, gates, client)
    except InstepError as error:
        me = node.runtime.name
        yield result(f"gates of {fileset.name}", False, service.writer, me, error.reason, error.hint)
        return
    for look in looks:
        yield result(
            f"gate {look.gate} of {fileset.name}",
            look.code is None,
            service.writer,
            look.ours,
            look.theirs,
            look.reason,
        )


async def _check_partner_gates(node: Node, service: WriterService) -> AsyncIterator[CheckRowDocument]:
    """Each gate of a line written here against every connected partner that accepted it."""
    runtime, fileset = node.runtime, service.fileset
    gates, unknown = known_gates(service.known_definition())
    for text in unknown:
        what = f"gates of {fileset.name}"
        yield result(what, False, runtime.name, text, None, f"instep fileset set {fileset.name} gates=...")
    sessions = [
        session
        for name, session in sorted(node.peers.sessions.items())
        if service.line in session.accepted and node.peers.access.why_not(name, service) is None
    ]
    if not gates or not sessions:
        return
    ours = dict(await node.peers.facts_of_line(service, runtime.facts.key))
    asked = [_facts_now(session, service) for session in sessions]
    for session, answer in zip(sessions, await asyncio.gather(*asked), strict=True):
        name = session.who
        if isinstance(answer, InstepError):
            what = f"gates of {fileset.name} on {name}"
            yield result(what, False, name, "its facts", answer.reason, answer.hint)
            continue
        reply, now = answer
        theirs = dict(reply.facts) | {CLOCK: str(reply.time_ms)}
        for look in compare_facts(gates, theirs, ours | {CLOCK: str(now)}, name, runtime.name):
            yield result(
                f"gate {look.gate} of {fileset.name} on {name}",
                look.code is None,
                name,
                look.theirs,
                look.ours,
                look.reason,
            )


async def _facts_now(session: AcceptedLink, service: WriterService) -> tuple[m.FactsReply, int] | InstepError:
    try:
        return await session.facts(service.line, FACTS_S), wall_ms()
    except InstepError as error:
        return error


def _check_paths(service: WriterService | FollowService) -> CheckRowDocument:
    """Whether all paths of a tree that is written here can be carried, as the newest scan found them."""
    assert not isinstance(service, FollowService)
    name = service.fileset.name
    ok, words = check_words(service.facts)
    row = result(f"paths of {name}", ok, service.runtime.name, words, hint=f"instep status {name}")
    return replace(row, note=words) if service.facts.reported.total else row


async def _check_fileset(
    context: CommandContext, service: WriterService | FollowService
) -> AsyncIterator[CheckRowDocument]:
    node, me, fileset = context.node, context.node.runtime.name, service.fileset
    try:
        place = await service.worker.run(service.place)
        await service.worker.run(require_writable_folder, place.control)
    except (InstepError, OSError) as error:
        reason = error.reason if isinstance(error, InstepError) else str(error)
        hint = error.hint if isinstance(error, InstepError) else None
        if isinstance(error, InstepError) and error.error_code == "mount_missing":
            ours, expected = error.facts["ours"], error.facts["expected"]
            yield result(f"mount of {fileset.name}", False, me, ours, expected, hint)
            return
        yield result(f"root of {fileset.name}", False, me, str(fileset.path), reason, hint)
        return
    yield result(f"root of {fileset.name}", True, me, str(place.root), "marked as this fileset's")
    can_write = os.access(place.control, os.W_OK) and (
        not isinstance(service, FollowService) or os.access(place.root, os.W_OK)
    )
    yield result(
        f"permissions in {fileset.name}",
        can_write,
        me,
        f"user {os.geteuid()}",
        str(place.root),
        "let the user that runs instep read, write and delete there",
    )
    if place.is_control_inside:
        yield result(
            f"control folder of {fileset.name}",
            True,
            me,
            str(place.control),
            "below the root: keep whatever serves the root from serving .instep",
        )
    if service.is_written_here:
        yield _check_paths(service)
    for record in context.housekeeping.mending.rows(fileset.name):
        yield result(record.name, record.is_ok, me, record.ours, record.theirs, record.hint)
    usage = await asyncio.to_thread(shutil.disk_usage, place.control)
    share = usage.free / usage.total if usage.total else 1.0
    yield result(
        f"free space for {fileset.name}",
        share >= FREE_MIN_SHARE,
        me,
        f"{usage.free >> 20} MiB free ({share:.0%})",
        f"at least {FREE_MIN_SHARE:.0%}",
        "free space, or shorten the archive: instep archive prune --dry-run",
    )
    for name, session in sorted(node.peers.sessions.items()):
        path = session.accepted.get(service.line)
        if path:
            same = path == str(fileset.path)
            yield result(
                f"path of {fileset.name} on {name}",
                same or "path" not in (fileset.definition.gates if fileset.definition is not None else ()),
                name,
                str(fileset.path),
                path,
                f"on {name}: instep fileset remove {fileset.name}, then accept it in {fileset.path}",
            )
    mount = mount_at(place.root)
    yield result(f"mount of {fileset.name}", True, me, str(mount), why_shared(mount) or str(place.root))
    yield _watch_row(me, service)
    async for each in _check_line(node, service, place):
        yield each


def _watch_row(me: str, service: WriterService | FollowService) -> CheckRowDocument:
    """Whether the watch sees all changes. On a file system of other machines it never does, and nothing can be done:
    that is shown, but it is no failure."""
    name = f"watch of {service.fileset.name}"
    if service.tree.watch is None or service.tree.watch.problem is None:
        return result(name, True, me, "sees all changes" if service.tree.watch is not None else "not begun")
    problem = service.tree.watch.problem
    is_ok = problem.code == "remote_file_system"
    return result(name, is_ok, me, problem.reason, "changes are found by full scans", problem.hint)


async def _check_line(
    node: Node, service: WriterService | FollowService, place: Place
) -> AsyncIterator[CheckRowDocument]:
    """The rows that only a writer, or only a follower, can check."""
    if not isinstance(service, FollowService):
        async for each in _check_partner_gates(node, service):
            yield each
    else:
        async for each in _check_followed(node, service, place):
            yield each


async def _check_followed(
    node: Node, service: FollowService, place: Place
) -> AsyncIterator[CheckRowDocument]:
    """Gates, room, sources, and whether the root can be exchanged where that was chosen."""
    me, fileset = node.runtime.name, service.fileset
    if fileset.switch == "exchange":
        definition = service.known_definition()
        found = await service.worker.run(obstacles, place, definition, fileset.carry)
        for obstacle in found:
            name = f"exchange of {fileset.name}"
            yield result(name, False, me, obstacle.needed, obstacle.found, EXCHANGE_HINT)
        if not found:
            yield result(f"exchange of {fileset.name}", True, me, "nothing stands against it")
    async for each in _check_gates(node, service):
        yield each
    async for each in _check_room(node, service, place):
        yield each
    yield result(
        f"source of {fileset.name}",
        bool(service.sources),
        service.writer,
        f"follows {service.writer}",
        ", ".join(service.sources) or "no node that sends it is connected",
        f"on {service.writer}: instep partner list; instep fileset list",
    )
