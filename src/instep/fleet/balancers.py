"""Load balancer files from what the cluster knows: a plain function from members to text, no I/O.

Only the first service of a plan is checked; the others track it, so that each balancer asks each node once and a
drain is told to all of them together.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from instep.errors import RefusedError

__all__ = ["BalancerPlan", "Endpoint", "ServerPlan", "Service", "haproxy", "server_names"]

_HOST = re.compile(r"[A-Za-z0-9.:_-]{1,253}")
_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,255}")
_ODD = re.compile(r"[^A-Za-z0-9_.-]")


@dataclass(frozen=True, slots=True)
class Endpoint:
    """``host`` is a name, an IPv4 or an IPv6 address without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One node behind the balancer. Without ``health`` nothing is asked and it stays in."""

    node: str
    host: str
    is_writer: bool = False
    health: Endpoint | None = None
    agent: Endpoint | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """One listening port. ``kind`` is ``http``, ``https`` (passed through unopened) or ``websocket``."""

    kind: str
    listen: Endpoint
    backend_port: int


@dataclass(frozen=True, slots=True)
class BalancerPlan:
    name: str
    services: tuple[Service, ...]
    servers: tuple[ServerPlan, ...]
    affinity: str = "cookie"
    admin_path: str | None = None
    """Requests below it go to the writer only."""


def server_names(nodes: Iterable[str]) -> dict[str, str]:
    """A name that a balancer accepts for each node; two nodes never share one."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for node in sorted(nodes):
        base = _ODD.sub("_", node) or "node"
        name, number = base, 2
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        found[node] = name
    return found


def _refuse_unwritable(plan: BalancerPlan) -> None:
    """Addresses come from other nodes: nothing but an address may reach a balancer's file."""
    hosts = [service.listen.host for service in plan.services]
    for server in plan.servers:
        hosts += [server.host, *(door.host for door in (server.health, server.agent) if door is not None)]
    for text, form, what in (*((h, _HOST, "address") for h in hosts), (plan.admin_path, _PATH, "admin_path")):
        if text is not None and not form.fullmatch(text):
            raise RefusedError(
                f"{text!r} is no {what} that a balancer's file can hold",
                hint="correct it where it is configured",
                code="unwritable_for_balancer",
                balancer=plan.name,
            )


def haproxy(plan: BalancerPlan) -> str:
    """The frontends and backends of ``plan``, to stand after ``global`` and ``defaults`` with timeouts.
    ``RefusedError`` (``unwritable_for_balancer``) for an address or a path that could say more than that."""
    _refuse_unwritable(plan)
    names = server_names(server.node for server in plan.servers)
    base = _ODD.sub("_", plan.name)
    tracked = f"{base}_{plan.services[0].kind}"
    rows: list[str] = []
    for service in plan.services:
        backend = f"{base}_{service.kind}"
        is_tcp = service.kind == "https"
        rows += [
            f"frontend {backend}_in",
            f"    bind {service.listen}",
            f"    mode {'tcp' if is_tcp else 'http'}",
        ]
        has_admin = plan.admin_path is not None and not is_tcp
        if not is_tcp:
            rows += ["    http-request del-header X-Forwarded-For", "    option forwardfor"]
        if has_admin:
            rows += [
                f"    acl is_admin path -i {plan.admin_path}",
                f"    acl is_admin path_beg -i {str(plan.admin_path).rstrip('/')}/",
                f"    use_backend {backend}_admin if is_admin",
            ]
        rows += [f"    default_backend {backend}", "", *_backend(plan, service, names, backend, tracked)]
        if has_admin:
            writers = tuple(server for server in plan.servers if server.is_writer)
            rows += [f"backend {backend}_admin", "    mode http"]
            rows += [
                f"    server {names[s.node]} {Endpoint(s.host, service.backend_port)} track {tracked}/{names[s.node]}"
                for s in writers
            ]
            rows.append("")
    return "\n".join(rows)


def _backend(
    plan: BalancerPlan, service: Service, names: dict[str, str], backend: str, tracked: str
) -> list[str]:
    is_tcp = service.kind == "https"
    is_checked = backend == tracked
    has_cookie = plan.affinity == "cookie" and not is_tcp
    by_source = plan.affinity == "source" or (plan.affinity == "cookie" and is_tcp)
    rows = [f"backend {backend}", f"    mode {'tcp' if is_tcp else 'http'}"]
    rows.append(f"    balance {'source' if by_source else 'leastconn'}")
    if has_cookie:
        rows.append("    cookie INSTEP_NODE insert indirect nocache httponly")
    if service.kind == "websocket":
        rows.append("    timeout tunnel 1h")
    if is_checked and any(server.health is not None for server in plan.servers):
        rows += [
            f"    option httpchk GET /ready?by={_ODD.sub('_', plan.name)}",
            "    http-check expect status 200",
        ]
    for server in plan.servers:
        name = names[server.node]
        row = f"    server {name} {Endpoint(server.host, service.backend_port)}"
        if has_cookie:
            row += f" cookie {name}"
        row += _checks(server) if is_checked else f" track {tracked}/{name}"
        rows.append(row)
    rows.append("")
    return rows


def _checks(server: ServerPlan) -> str:
    """``inter 1s rise 1 fall 1``: one answer of ``/ready`` counts, a node says what it knows."""
    if server.health is None:
        return ""  # nothing can be asked; it stays in until it is taken out by hand
    row = f" check inter 1s rise 1 fall 1 addr {_bare(server.health.host)} port {server.health.port}"
    if server.agent is not None:
        row += f" agent-check agent-inter 1s agent-addr {_bare(server.agent.host)} agent-port {server.agent.port}"
    return row


def _bare(host: str) -> str:
    """A host where HAProxy takes no port beside it: an IPv6 address needs its brackets there, too."""
    return f"[{host}]" if ":" in host else host
