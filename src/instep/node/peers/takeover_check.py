"""The obstacles to this node going on with a line as its writer: asked before a handover, changes nothing."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from shlex import quote

from instep.errors import ConfigError
from instep.model.address import parse_address
from instep.model.definition import FilesetClass
from instep.model.ids import NodeName
from instep.net.messages.messages import Obstacle
from instep.node.config.editing.writer_edit import check_change
from instep.node.lines.line_service import LineService
from instep.node.peers.peer_context import PeerContext
from instep.node.peers.reachability import is_covered
from instep.node.runtime.read_only import ENDING


def obstacles(peers: PeerContext, service: LineService, partners: Sequence[NodeName]) -> tuple[Obstacle, ...]:
    """One for each thing that an operator has to put right here first, with the command that does it."""
    found: list[Obstacle] = []
    if service.fileset.observe:
        found.append(
            _here(
                peers,
                "only observes it",
                f"instep fileset accept {service.fileset.name} {quote(str(service.fileset.path))} --seed",
            )
        )
    if peers.runtime.read_only.now is not None:
        found.append(_here(peers, "is read-only", ENDING))
    definition = service.known_definition()
    if definition is None:
        found.append(_here(peers, "knows no generation of it yet", "instep status"))
        return tuple(found)
    try:
        check_change(peers.runtime.directory, service.line, peers.runtime.name, definition)
    except ConfigError as error:
        found.append(
            _here(peers, f"could not name itself in instep.toml: {error.reason}", "instep config check")
        )
    for partner in partners:
        if partner != peers.runtime.name:
            found.extend(why_unserved(peers, service, definition.fileset_class, partner))
    return tuple(found)


def _here(peers: PeerContext, why: str, hint: str) -> Obstacle:
    me = peers.runtime.name
    return Obstacle("", f"{me} {why}", f"on {me}: {hint}")


def why_unserved(
    peers: PeerContext, service: LineService, fileset_class: FilesetClass, partner: NodeName
) -> list[Obstacle]:
    """Why ``partner`` could not follow the line from this node, were it the writer."""
    runtime = peers.runtime
    settings, me, name = runtime.settings, runtime.name, service.fileset.name
    row = settings.partners.get(partner)
    found: list[Obstacle] = []

    def stands(reason: str, hint: str) -> None:
        found.append(Obstacle(partner, reason, f"on {me}: {hint}"))

    is_origin = service.line.origin == partner
    if row is None:
        stands(f"{me} does not list {partner}", f"instep partner set {partner} --replicate --data")
    elif not is_origin and not row.link.lets(fileset_class, own_line=True):
        what = "data" if row.link.replicate else "replicate"
        stands(
            f"the link of {me} to {partner} has {what} off",
            f"instep partner set {partner} --replicate --data",
        )
    if not is_origin and not service.fileset.offers_to(partner):
        stands(f"{me} does not name {partner} in to of {name}", f"instep fileset set {name} to=")
    address = _address_of(peers, partner)
    if address is not None:
        network = ipaddress.ip_network(address)
        if not is_covered(settings.allow, network):
            stands(
                f"{me} does not allow peers from {address}, where {partner} is", f"instep allow add {network}"
            )
        if settings.listen.is_loopback and not network.is_loopback:
            stands(
                f"{me} listens on {settings.listen}, which {partner} at {address} cannot reach",
                f"instep node set-address {me} {peers.membership.outward_address}",
            )
    return found


def _address_of(peers: PeerContext, partner: NodeName) -> str | None:
    """The IP address that a member comes from; None when only a host name is known, or nothing."""
    member = peers.membership.members.get(partner)
    address = parse_address(member.address) if member is not None else None
    for host in (member.seen_at if member is not None else "", address.host if address is not None else ""):
        try:
            return str(ipaddress.ip_address(host))
        except ValueError:
            continue
    return None
