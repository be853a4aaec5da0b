"""A node's report of how it can be put behind a balancer, and which parts of another's report are believed."""

from __future__ import annotations

from instep.fleet.balancers.plan import DoorKind
from instep.model.address import Address, parse_address, why_not_plain_host
from instep.net.messages import messages as m
from instep.node.config.places import ServingPlace
from instep.node.config.settings import Settings

TOLD_MAX = 200
"""Filesets and places each, so that it fits what a member may say."""


def serving_of(settings: Settings, *, is_drained: bool) -> m.Serving:
    """This node's own word. A listener on every interface is reported with the address that others dial."""
    shown = [fileset for fileset in settings.filesets.values() if not fileset.observe]
    shown.sort(key=lambda fileset: fileset.name)
    places = [
        (balancer.name, kind, told)
        for balancer in settings.balancers.values()
        if balancer.address is not None
        for kind, told in _told(balancer.address)
    ]
    return m.Serving(
        health=_door(settings, settings.health),
        agent=_door(settings, settings.agent),
        filesets=tuple(fileset.name for fileset in shown)[:TOLD_MAX],
        written=tuple(fileset.name for fileset in shown if fileset.is_written_here)[:TOLD_MAX],
        places=tuple(places)[:TOLD_MAX],
        is_drained=is_drained,
    )


def _door(settings: Settings, door: Address | None) -> str:
    if door is None:
        return ""
    return str(Address(settings.advertise.host, door.port) if door.is_wildcard else door)


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
    """Where the node can be dialled, when a balancer's file can hold that."""
    address = parse_address(member.address)
    is_plain = address is not None and why_not_plain_host(address.host) is None and not address.is_wildcard
    return address.host if address is not None and is_plain else None


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
