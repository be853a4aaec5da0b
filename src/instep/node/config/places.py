"""Where a node serves an application, as ``instep.toml`` and the other nodes write it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from instep.errors import InstepError
from instep.fleet.balancers.plan import DoorKind as DoorKind
from instep.model.address import Address, parse_address, why_not_plain_host
from instep.model.ids import NodeName
from instep.model.ids import node_name as parse_node_name
from instep.node.config import values
from instep.node.config.keys import key, keys_of
from instep.node.config.kinds import BadValue, kind, string


def plain_address(raw: object) -> Address:
    """An address that a balancer's file can hold."""
    found = values.address(raw)
    why = why_not_plain_host(found.host)
    if why is not None:
        raise BadValue(f"has a host that {why}")
    return found


@dataclass(frozen=True, slots=True)
class PlaceKeys:
    """A place that is written as a table."""

    http: Address | None = key(None, plain_address)
    """Where the node serves http."""
    https: Address | None = key(None, plain_address)
    """Where the node serves https."""
    websocket: Address | None = key(None, plain_address)
    """Where the node serves websocket."""
    health: Address | None = key(None, plain_address)
    """Where the node answers `/ready`."""
    agent: Address | None = key(None, plain_address)
    """Where the node answers HAProxy's agent-check."""


@dataclass(frozen=True, slots=True)
class ServingPlace:
    """Where one node serves an application. ``at`` for single kinds; else ``host``, with ``port`` for the first
    kind."""

    host: str | None = None
    port: int | None = None
    at: Mapping[DoorKind, Address] = field(default_factory=dict)
    health: Address | None = None
    agent: Address | None = None


def _written_place(place: ServingPlace) -> object:
    if place.host is not None:
        return place.host if place.port is None else str(Address(place.host, place.port))
    doors = {
        **{door.value: address for door, address in place.at.items()},
        "health": place.health,
        "agent": place.agent,
    }
    return {name: str(address) for name, address in doors.items() if address is not None}


@kind(_written_place)
def serving_place(raw: object) -> ServingPlace:
    """``"10.0.0.5"``, ``"10.0.0.5:8081"``, or a table of ``PlaceKeys``."""
    if isinstance(raw, dict):
        known = [one.name for one in keys_of(PlaceKeys)]
        unknown = [name for name in raw if name not in known]
        if unknown or not raw:
            raise BadValue(f"has {', '.join(unknown) or 'nothing'} in it; it can hold {', '.join(known)}")
        doors = {name: plain_address(value) for name, value in raw.items()}
        at = {door: doors[door.value] for door in DoorKind if door.value in doors}
        return ServingPlace(at=at, health=doors.get("health"), agent=doors.get("agent"))
    text = string(raw)
    if why_not_plain_host(text) is None:
        return ServingPlace(host=text)
    if parse_address(text) is None:
        raise BadValue('is not HOST, HOST:PORT or a table such as { http = "10.0.0.5:8081" }')
    found = plain_address(text)
    return ServingPlace(host=found.host, port=found.port)


@kind(lambda places: {str(name): _written_place(place) for name, place in places.items()})
def serving_places(raw: object) -> Mapping[NodeName, ServingPlace]:
    if not isinstance(raw, dict):
        raise BadValue('is not a table such as { main = "10.0.0.5:8081" }')
    found: dict[NodeName, ServingPlace] = {}
    for name, value in raw.items():
        try:
            found[parse_node_name(name)] = serving_place(value)
        except InstepError as error:
            raise BadValue(f"names {name}, which is no node; {error.hint}") from None
        except BadValue as error:
            raise BadValue(f"has for {name} a value that {error}") from None
    return MappingProxyType(found)
