"""From settings and membership to a balancer's file: which nodes serve an application, where, and which are drained."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from instep.errors import RefusedError
from instep.fleet.balancers.file import Program
from instep.fleet.balancers.haproxy import Surroundings, drained_state, haproxy, why_not_asked
from instep.fleet.balancers.nginx import nginx
from instep.fleet.balancers.plan import BalancerPlan, DoorKind, ServerPlan
from instep.fleet.balancers.proxy_map import merged, proxy_map
from instep.model.address import Address
from instep.model.ids import NodeName
from instep.net.messages import messages as m
from instep.node.config.balancers import BalancerSettings
from instep.node.config.places import ServingPlace
from instep.node.config.settings import Settings
from instep.node.peers.presence import host_of, place_of

ACCOUNT = "haproxy"
STATE = ".drained"
"""Added to the name of HAProxy's file: the drained nodes, for an HAProxy that was reloaded."""


@dataclass(frozen=True, slots=True)
class Rendered:
    """A file's text and its warnings for the operator. ``state`` is the text of the file beside it, ``STATE``."""

    program: Program
    text: str
    is_whole: bool
    plans: tuple[BalancerPlan, ...]
    state: str | None = None

    @property
    def warnings(self) -> tuple[str, ...]:
        found = [warning for plan in self.plans for warning in plan.warnings]
        if self.program is Program.HAPROXY:
            found += [why for plan in self.plans if (why := why_not_asked(plan)) is not None]
        return tuple(found)


def chosen(settings: Settings, names: Collection[str]) -> tuple[BalancerSettings, ...]:
    """The sections that say where something listens, all or those named. ``RefusedError`` for none."""
    known = {name: each for name, each in settings.balancers.items() if each.services}
    unknown = [name for name in names if name not in known]
    if unknown or not known:
        what = f"no balancer {unknown[0]}" if unknown else "no balancer"
        raise RefusedError(
            f"{what} is configured here",
            hint=f"there is {', '.join(known)}" if known else "add [balancers.NAME] to instep.toml",
            code="no_balancer",
            balancers=list(known),
        )
    return tuple(each for name, each in known.items() if not names or name in names)


def plan_of(
    settings: Settings,
    balancer: BalancerSettings,
    me: m.Member,
    members: Mapping[NodeName, m.Member],
    out: Collection[NodeName] = (),
    *,
    state_file: Path | None = None,
) -> BalancerPlan:
    """The nodes that serve the application: this node and every member that has all its filesets, and the nodes
    that ``backends`` names. ``out`` are nodes that answered that they are not ready."""
    servers: list[ServerPlan] = []
    warnings: list[str] = []
    everybody = {**members, me.name: me}
    for name in sorted({*everybody, *balancer.backends}):
        if balancer.nodes is not None and name not in balancer.nodes:
            continue
        member = everybody.get(name)
        serving = member.serving if member is not None else None
        own = balancer.backends.get(name)
        has_all = serving is not None and all(fileset in serving.filesets for fileset in balancer.filesets)
        if own is None and not has_all:
            if serving is not None and any(fileset in serving.filesets for fileset in balancer.filesets):
                missing = [fileset for fileset in balancer.filesets if fileset not in serving.filesets]
                warnings.append(f"{balancer.name}: {name} is left out: it has no {', '.join(missing)}")
            continue
        place, why = _place(settings, balancer, name, member, is_self=name == me.name)
        if place is None:
            warnings.append(f"{balancer.name}: {name} is left out: {why}")
            continue
        if place.health is None:
            warnings.append(
                f"{balancer.name}: {name} cannot be asked how it is; set health in its instep.toml"
            )
        is_drained = serving is not None and serving.is_drained
        servers.append(
            ServerPlan(
                node=name,
                at=_at(balancer, place),
                is_writer=serving is not None and all(each in serving.written for each in balancer.filesets),
                health=place.health,
                agent=place.agent,
                is_out=is_drained or name in out,
            )
        )
    if not servers:
        warnings.append(f"{balancer.name}: no node serves {', '.join(balancer.filesets)} yet")
    if (balancer.admin_path or balancer.admin_host) and not any(server.is_writer for server in servers):
        warnings.append(
            f"{balancer.name}: no writer of {', '.join(balancer.filesets)} is known for admin requests"
        )
    return BalancerPlan(
        name=balancer.name,
        services=balancer.services,
        servers=tuple(servers),
        affinity=balancer.affinity,
        paths=balancer.paths,
        hosts=balancer.hosts,
        admin_path=balancer.admin_path,
        admin_host=balancer.admin_host,
        trusted=balancer.trusted,
        filesets=balancer.filesets,
        max_behind=balancer.max_behind,
        health_path=balancer.health_path,
        front=balancer.front,
        state_file=state_file,
        warnings=tuple(warnings),
    )


def _place(
    settings: Settings,
    balancer: BalancerSettings,
    name: NodeName,
    member: m.Member | None,
    *,
    is_self: bool,
) -> tuple[ServingPlace | None, str]:
    """Where it serves, this node's word before its own; or why it cannot be used."""
    own = balancer.backends.get(name)
    serving = member.serving if member is not None else None
    told = place_of(serving, balancer.name) if serving is not None else ServingPlace()
    host = told.host or (host_of(member) if member is not None else None)
    if not is_self:
        why = _why_not_there(settings, told, host if own is None else None)
        if why is not None:
            if own is None:
                return None, why
            told = ServingPlace()
    if own is not None:
        return ServingPlace(
            own.host or host,
            own.port if own.host is not None else told.port,
            own.at or told.at,
            own.health or told.health,
            own.agent or told.agent,
        ), ""
    if host is None and not told.at:
        return None, "it has no address that could be dialled; set address in its [balancers] section"
    return ServingPlace(host, told.port, told.at, told.health, told.agent), ""


def _why_not_there(settings: Settings, told: ServingPlace, host: str | None) -> str | None:
    """Another machine's word must not lead requests to programs of the balancer's own machine."""
    dialled = (partner.address for partner in settings.partners.values() if partner.address is not None)
    if all(address.is_loopback for address in (settings.advertise, *dialled)):
        return None  # all nodes are on this machine
    doors = [*told.at.values(), *(door for door in (told.health, told.agent) if door is not None)]
    if host is not None:
        doors.append(Address(host, 1))
    for door in doors:
        ip = door.ip
        is_near = ip is not None and ip.is_link_local
        if door.is_loopback or door.is_wildcard or is_near:
            return f"it says that it serves at {door.host}, which is another place on each machine"
    return None


def _at(balancer: BalancerSettings, place: ServingPlace) -> dict[DoorKind, Address]:
    found: dict[DoorKind, Address] = {}
    for number, service in enumerate(balancer.services):
        kind = service.kind
        if kind in place.at:
            found[kind] = place.at[kind]
        elif place.host is not None:
            port = place.port if number == 0 and place.port is not None else balancer.ports[kind]
            found[kind] = Address(place.host, port)
    return found


def surroundings(sections: Sequence[BalancerSettings]) -> Surroundings:
    """Of sections that are rendered together. Where this daemon is root, HAProxy gives that up as its package would."""
    socket = next((each.haproxy_socket for each in sections if each.haproxy_socket is not None), None)
    of_global = next((each.of_global for each in sections if each.of_global), ())
    of_defaults = next((each.of_defaults for each in sections if each.of_defaults), ())
    is_said = any(line.split()[0] in ("user", "uid") for line in of_global)
    is_root = os.geteuid() == 0 and not is_said
    return Surroundings(socket, ACCOUNT if is_root and _is_known(ACCOUNT) else None, of_global, of_defaults)


def _is_known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
        grp.getgrnam(user)
    except KeyError:
        return False
    return True


def render(
    program: Program,
    plans: Iterable[BalancerPlan],
    *,
    is_whole: bool,
    around: Surroundings | None = None,
    before: str | None = None,
) -> Rendered:
    """The file's text. ``around`` holds the other parts of a whole file of HAProxy; ``before`` is the present text
    of a proxy map's file: only our lines in it change."""
    plans = tuple(plans)
    state: str | None = None
    if program is Program.HAPROXY:
        text = haproxy(plans, (around or Surroundings()) if is_whole else None)
        state = drained_state(plans) if any(plan.state_file is not None for plan in plans) else None
    elif program is Program.NGINX:
        text = nginx(plans, is_whole=is_whole)
    else:
        text = proxy_map(plans) if before is None else merged(before, plans)
    return Rendered(program, text, is_whole, plans, state)
