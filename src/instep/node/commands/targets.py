"""The targets of a command: the fileset with its service, the generation, the path."""

from __future__ import annotations

from instep.errors import UnavailableError, UsageError
from instep.model.ids import HeadRef
from instep.node.following.follower import FollowService
from instep.node.lines.snapshot import pick_fileset
from instep.node.node import Node
from instep.node.runtime.signers import BROKEN
from instep.node.writing.writer import WriterService
from instep.store.port import NodeStore

GENERATIONS_MAX = 10_000


def service_of(node: Node, named: str | None) -> WriterService | FollowService:
    """The service of the named fileset, or of the only one."""
    return node.services[pick_fileset(node.runtime.settings, named).name]


def running_service_of(node: Node, named: str | None) -> WriterService | FollowService:
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


def generation_of(store: NodeStore, service: WriterService | FollowService, number: int) -> HeadRef:
    """The generation with this number; the newest epoch first. ``UsageError`` ``no_generation``."""
    for signed in store.generations(service.line, GENERATIONS_MAX):
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


def path_of(path: str | None, path_b64: bytes | None) -> bytes | None:
    """The path of a command, exact bytes first."""
    return path_b64 if path_b64 is not None or path is None else path.encode()
