"""The targets of a command: the fileset with its service, the generation, the path."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from instep.errors import InstepError, RefusedError, UnavailableError, UsageError
from instep.model.definition import Mode
from instep.model.ids import FilesetName, HeadRef, NodeName
from instep.model.paths import shown
from instep.net.messages.messages import FactsReply, Report
from instep.node.config.settings import Settings
from instep.node.facts.owners import OwnerTrouble, of_followed
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import pick_fileset
from instep.node.node import Node
from instep.node.peers.accepted_link import AcceptedLink
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.signers import BROKEN

GENERATIONS_MAX = 10_000


def service_of(node: Node, named: str | None) -> LineService:
    """The service of the named fileset, or of the only one."""
    return node.services[pick_fileset(node.runtime.settings, named).name]


def outside(node: Node, to: str, paths: Sequence[bytes] = ()) -> str:
    """The directory that a command writes into, absolute. It is in no fileset of this node, and none of the ``paths``
    that are written below it is: there it would be published. ``UsageError`` ``no_directory``, ``RefusedError``
    ``inside_a_fileset``."""
    if not os.path.isabs(to):
        raise UsageError(f"{to} is not an absolute path", code="no_directory")
    settings, place = node.runtime.settings, to
    around = settings.fileset_around(Path(to))
    if around is None and (found := settings.path_in_a_fileset(Path(to), paths)) is not None:
        path, around = found
        place = f"{to}/{shown(path)}"
    if around is not None:
        raise RefusedError(
            f"{place} lies in the fileset {around.name}, which would carry it",
            hint="name a directory outside",
            code="inside_a_fileset",
        )
    return to


def running_service_of(node: Node, named: str | None) -> LineService:
    """As ``service_of``, for an act of its machine; ``UnavailableError`` ``line_stopped`` when that has stopped."""
    service = service_of(node, named)
    if service.driver.failure is not None or service.standing.code == BROKEN:
        raise UnavailableError(
            f"the line of {service.fileset.name} has stopped here: {service.standing.reason}",
            hint="look at the log of the daemon; instep stop, then: instep start",
            code="line_stopped",
            fileset=service.fileset.name,
        )
    return service


def require_one_writer(service: LineService) -> None:
    """``RefusedError`` for a fileset of many homes: its lines have each its own writer."""
    if service.fileset.is_of_many_homes:
        raise RefusedError(
            f"{service.fileset.name} has many homes, and this version changes the writer of none of their lines",
            hint=f"instep status {service.fileset.name}",
            code="not_in_replicate",
        )


def refuse_many_homes(name: FilesetName, modes: Iterable[str]) -> None:
    """``RefusedError`` where a fileset that is to be followed is offered in mode replicate."""
    if Mode.REPLICATE.value in modes:
        raise RefusedError(
            f"{name} has many homes: every node that has it writes its own files in it",
            hint=f"instep fileset add {name} PATH --mode replicate",
            code="of_many_homes",
        )


def generation_of(service: LineService, number: int) -> HeadRef:
    """The generation with this number; the newest epoch first. ``UsageError`` ``no_generation``."""
    for signed in service.runtime.store.generations(service.line, GENERATIONS_MAX):
        ref = signed.ref()
        if ref.number == number:
            return ref
    newest = service.head.number if service.head is not None else "none"
    name = service.fileset.name
    raise UsageError(
        f"{name} has no generation {number} here; the newest is {newest}",
        hint=f"instep log {name}",
        code="no_generation",
        asked=number,
        newest=newest,
    )


def session_of(node: Node, name: NodeName, hint: str | None = None, so: str = "") -> AcceptedLink:
    """The connection that a partner keeps open to this node; ``UnavailableError`` ``not_connected``. ``so`` is the
    consequence that the reason names."""
    session = node.peers.sessions.get(name)
    if session is None:
        raise UnavailableError(f"{name} is not connected{so}", hint=hint, code="not_connected", node=name)
    return session


def is_connected(node: Node, name: NodeName) -> bool:
    """Whether there is a connection with this node, whichever side dialled."""
    uplink = node.peers.uplinks.get(name)
    return name in node.peers.sessions or (uplink is not None and uplink.is_up)


def accepted_by(node: Node, service: LineService) -> dict[NodeName, AcceptedLink]:
    """The partners that have a connection open here, accepted the line, and may have it."""
    return {
        name: session
        for name, session in sorted(node.peers.sessions.items())
        if service.line in session.accepted and node.peers.access.why_not(name, service) is None
    }


def current_reports(node: Node, service: LineService) -> dict[NodeName, Report]:
    """As ``LinkPolicy.current``, of the last reports."""
    return node.peers.access.current(service, service.reports())


def direct_followers(node: Node, service: LineService) -> list[NodeName]:
    """The nodes that have the line from here and may: connected ones that accepted it, and ones that reported of it."""
    reported = {name for name, report in current_reports(node, service).items() if not report.via}
    accepted = accepted_by(node, service).keys() - {service.writer}
    return sorted(reported | accepted)


def path_of(path: str | None, path_b64: bytes | None) -> bytes | None:
    """The path of a command, exact bytes first."""
    return path_b64 if path_b64 is not None or path is None else path.encode()


def owner_trouble(settings: Settings, service: LineService) -> OwnerTrouble | None:
    """The owners that a tree which is followed here should have and has not."""
    definition = service.known_definition()
    if definition is None or service.is_written_here or service.fileset.observe:
        return None
    unknown = tuple(service.tree.owners.unknown)
    return of_followed(service.fileset, definition.preserve, settings.allow_preserve, unknown)


async def facts_now(
    session: AcceptedLink, service: LineService, within_s: float
) -> tuple[FactsReply, int] | InstepError:
    """The facts of a partner and when they came, or why they did not."""
    try:
        return await session.facts(service.line, within_s), wall_ms()
    except InstepError as error:
        return error
