"""A node's report of how it can be put behind a balancer, and which parts of another's report are believed."""

from __future__ import annotations

from instep.fleet.balancers.plan import DoorKind
from instep.model.address import Address, parse_address, why_not_plain_host
from instep.net.messages import messages as m
from instep.node.config.places import ServingPlace
from instep.node.config.settings import Settings

TOLD_MAX = 200
"""Filesets and places each, so that it fits what a member may say."""


def serving_of(settings: Settings, *, is_drained: bool, host: str) -> m.Serving:
    """This node's own word. A listener on every interface is reported with ``host``, at which others reach it."""
    shown = [fileset for fileset in settings.filesets.values() if not fileset.observe]
    shown.sort(key=lambda fileset: fileset.name)
    places = [
        (balancer.name, kind, told)
        for balancer in settings.balancers.values()
        if balancer.address is not None
        for kind, told in _told(balancer.address)
    ]
    return m.Serving(
        health=_door(host, settings.health),
        agent=_door(host, settings.agent),
        filesets=tuple(fileset.name for fileset in shown)[:TOLD_MAX],
        written=tuple(fileset.name for fileset in shown if fileset.is_written_here)[:TOLD_MAX],
        places=tuple(places)[:TOLD_MAX],
        is_drained=is_drained,
    )


def _door(host: str, door: Address | None) -> str:
    if door is None:
        return ""
    return str(Address(host, door.port) if door.is_wildcard else door)


def _told(place: ServingPlace) -> list[tuple[str, str]]:
    rows = [(kind.value, str(address)) for kind, address in place.at.items()]
    for name, door in (("health", place.health), ("agent", place.agent)):
        if door is not None:
            rows.append((name, str(door)))
    if place.host is not None:
        rows.append(("", place.host if place.port is None else str(Address(place.host, place.port))))
    return rows


def why_not_serving(member: m.Member) -> str | None:
    """Why a member's word is not taken; None when it is fine."""
    serving = member.serving
    if serving is None:
        return None
    size = len(m.encode(serving))
    if size > m.SERVING_BYTES_MAX:
        return f"says {size} bytes about how it serves, the limit is {m.SERVING_BYTES_MAX}"
    for what, text in (("health", serving.health), ("agent", serving.agent)):
        why = _why_not_door(text) if text else None
        if why is not None:
            return f"names {text!r} as {what}, which {why}"
    for balancer, kind, text in serving.places:
        why = _why_not_door(text) if kind or parse_address(text) else why_not_plain_host(text)
        if why is not None:
            return f"names {text!r} as its address for {balancer!r}, which {why}"
    return None


def _why_not_door(text: str) -> str | None:
    address = parse_address(text)
    return "is no address with a port" if address is None else why_not_plain_host(address.host)


def door_of(text: str) -> Address | None:
    return parse_address(text) if text else None


def host_of(member: m.Member) -> str | None:
    """The host of a node, when a balancer's file can hold it: that of the address where it can be dialled, else the
    one that its connections come from. A node that only dials others needs no open port, and serves users all the
    same."""
    address = parse_address(member.address)
    for host in (address.host if address is not None else "", member.seen_at):
        if host and why_not_plain_host(host) is None and not Address(host, 1).is_wildcard:
            return host
    return None


def is_loopback_host(host: str) -> bool:
    return Address(host, 1).is_loopback


def dialled_at(told: str, seen_at: str) -> str:
    """The address that a node says it can be dialled at, empty where it cannot be: a loopback address that comes from
    another machine means another node here."""
    address = parse_address(told)
    is_elsewhere = bool(seen_at) and not is_loopback_host(seen_at)
    return "" if address is not None and address.is_loopback and is_elsewhere else told


def place_of(serving: m.Serving, balancer: str) -> ServingPlace:
    """The addresses at which the node reports to serve this application."""
    at: dict[DoorKind, Address] = {}
    doors: dict[str, Address] = {}
    host, port = None, None
    kinds = {kind.value: kind for kind in DoorKind}
    for name, kind, text in serving.places:
        if name != balancer:
            continue
        address = parse_address(text)
        if kind in kinds and address is not None:
            at[kinds[kind]] = address
        elif kind in ("health", "agent") and address is not None:
            doors[kind] = address
        elif not kind:
            host, port = (text, None) if address is None else (address.host, address.port)
    return ServingPlace(
        host,
        port,
        at,
        doors.get("health") or door_of(serving.health),
        doors.get("agent") or door_of(serving.agent),
    )
