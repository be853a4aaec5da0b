"""HAProxy's file for a plan: a plain function to text.

Only the first port of an application is checked; its others track it, so that each balancer asks each node once and a
drain reaches all of them together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from instep.fleet.balancers.plan import (
    Affinity,
    BalancerPlan,
    Door,
    DoorKind,
    ServerPlan,
    Service,
    cookie_of,
    doors_of,
    opening,
    require_writable,
    server_names,
)
from instep.model.address import Address

TIMEOUTS = (
    "connect 5s",
    "client 60s",
    "server 60s",
    "http-request 15s",
    "http-keep-alive 15s",
    "queue 15s",
)
STATE_COLUMNS = (
    "be_id be_name srv_id srv_name srv_addr srv_op_state srv_admin_state srv_uweight srv_iweight "
    "srv_time_since_last_change srv_check_status srv_check_result srv_check_health srv_check_state "
    "srv_agent_state bk_f_forced_id srv_f_forced_id srv_fqdn srv_port srvrecord srv_use_ssl "
    "srv_check_port srv_check_addr srv_agent_addr srv_agent_port"
)
STOPPED, FORCED_DRAIN, FAILED, CHECKED, AGENT_CHECKED = 0, 8, 2, 6, 22
"""From HAProxy's management guide, "show servers state"."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """The parts of a whole file besides the applications. ``socket`` is where it takes commands, ``account`` the user
    that it runs as once it listens; ``of_global`` and ``of_defaults`` are the operator's own lines, the last word in
    their section."""

    socket: Path | None = None
    account: str | None = None
    of_global: tuple[str, ...] = ()
    of_defaults: tuple[str, ...] = ()


def haproxy(plans: Sequence[BalancerPlan], around: Surroundings | None) -> str:
    """A whole file, or with no surroundings the frontends and backends to stand after a ``global`` and ``defaults`` of
    your own. ``RefusedError`` (``unwritable_for_balancer``) for an address or a path that could say more than that."""
    for plan in plans:
        require_writable(plan)
    rows = opening(plans)
    if around is not None:
        rows += ["", *_global(around), "", "defaults", *(f"    timeout {each}" for each in TIMEOUTS)]
        rows += [f"    {line}" for line in around.of_defaults]
    for door in doors_of(plans):
        rows += ["", *_frontend(door)]
    for plan in plans:
        names = server_names(server.node for server in plan.servers)
        for service in plan.services:
            rows += ["", *_backend(plan, service, names)]
            if _has_admin(plan, service):
                rows += ["", *_admin(plan, service, names)]
    return "\n".join(rows) + "\n"


def _global(around: Surroundings) -> list[str]:
    rows = ["global"]
    if around.socket is not None:
        rows.append(f"    stats socket {around.socket} mode 660 level admin")
    if around.account is not None:
        rows += [f"    user {around.account}", f"    group {around.account}"]
    return [*rows, *(f"    {line}" for line in around.of_global)]


def _has_admin(plan: BalancerPlan, service: Service) -> bool:
    return not service.is_passed_through and bool(plan.admin_path or plan.admin_host)


def _frontend(door: Door) -> list[str]:
    plan, service = door.first
    rows = [f"frontend {plan.backend(service.kind)}_in"]
    tls = f" ssl crt {service.certificate} alpn h2,http/1.1" if service.certificate is not None else ""
    rows.append(f"    bind {door.listen}{tls}")
    if door.is_passed_through:
        return [*rows, "    mode tcp", f"    default_backend {plan.backend(service.kind)}"]
    rows += ["    mode http", *_client(plan, is_tls=bool(tls))]
    routes: list[str] = []
    for plan, service in door.services:
        acls, more = _routes(plan, service)
        rows += acls
        routes += more
    return [*rows, *routes]


def _client(plan: BalancerPlan, *, is_tls: bool) -> list[str]:
    """The client's address: our own word, unless a trusted proxy asks."""
    unless = ""
    rows = []
    if plan.trusted:
        rows.append(f"    acl from_trusted src {' '.join(plan.trusted)}")
        unless = " unless from_trusted"
    rows += [
        f"    http-request del-header {header}{unless}"
        for header in ("X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Real-IP", "Forwarded")
    ]
    rows.append(f"    http-request set-header X-Forwarded-Proto {'https' if is_tls else 'http'}{unless}")
    rows.append(f"    http-request set-header X-Forwarded-Port %[dst_port]{unless}")
    rows.append("    option forwardfor")
    return rows


def _routes(plan: BalancerPlan, service: Service) -> tuple[list[str], list[str]]:
    """The conditions of one application on a port, and where they lead."""
    acls, base = [], plan.name
    for path in plan.paths:
        acls += _below(f"{base}_path", path)
    acls += [
        f"    acl {base}_host req.hdr(host),field(1,:),lower -m str {host.lower()}" for host in plan.hosts
    ]
    mine = [f"{base}_path"] if plan.paths else []
    mine_here = [*mine, *([f"{base}_host"] if plan.hosts else [])]
    backend, routes = plan.backend(service.kind), []
    if plan.admin_path is not None:
        acls += _below(f"{base}_admin", plan.admin_path)
        routes.append(f"    use_backend {backend}_admin if {' '.join([*mine_here, f'{base}_admin'])}")
    if plan.admin_host is not None:
        host = plan.admin_host.lower()
        acls.append(f"    acl {base}_adminhost req.hdr(host),field(1,:),lower -m str {host}")
        routes.append(f"    use_backend {backend}_admin if {' '.join([*mine, f'{base}_adminhost'])}")
    if mine_here:
        routes.append(f"    use_backend {backend} if {' '.join(mine_here)}")
    else:
        routes.append(f"    default_backend {backend}")
    return acls, routes


def _below(acl: str, path: str) -> list[str]:
    """The path itself and all below it."""
    bare = path.rstrip("/")
    rows = [f"    acl {acl} path_beg {bare}/"]
    return [f"    acl {acl} path {bare}", *rows] if bare else rows


def _backend(plan: BalancerPlan, service: Service, names: dict[str, str]) -> list[str]:
    kind, is_tcp = service.kind, service.is_passed_through
    has_cookie = plan.affinity is Affinity.COOKIE and not is_tcp
    by_source = plan.affinity is Affinity.SOURCE or (plan.affinity is Affinity.COOKIE and is_tcp)
    rows = [f"backend {plan.backend(kind)}", f"    mode {'tcp' if is_tcp else 'http'}"]
    rows.append(f"    balance {'source' if by_source else 'leastconn'}")
    rows.append("    option redispatch 1")
    if not is_tcp:
        rows += [
            "    retries 3",
            "    retry-on conn-failure empty-response",
            "    http-request disable-l7-retry if !METH_GET",
        ]
    if has_cookie:
        secure = " secure" if service.certificate is not None else ""
        rows.append(f"    cookie {cookie_of(plan)} insert indirect nocache httponly{secure}")
    if kind is DoorKind.WEBSOCKET:
        rows.append("    timeout tunnel 1h")
    if plan.state_file is not None:
        rows += ["    load-server-state-from-file local", f"    server-state-file-name {plan.state_file}"]
    is_checked = service is plan.services[0]
    if is_checked and any(server.health is not None for server in plan.serving(kind)):
        rows += _questions(plan)
    for server in plan.serving(kind):
        row = f"    server {names[server.node]} {server.at[kind]}"
        if has_cookie:
            row += f" cookie {names[server.node]}"
        rows.append(row + (_checks(server) if is_checked else _tracks(plan, server, names)))
    return rows


def _questions(plan: BalancerPlan) -> list[str]:
    """The questions to a node, and then to its application on the same host."""
    rows = ["    option httpchk"]
    asks = plan.health_path is not None and why_not_asked(plan) is None
    if asks:
        rows.append("    http-check connect")
    rows += [f"    http-check send meth GET uri {plan.ready}", "    http-check expect status 200"]
    if asks:
        first = plan.services[0].kind
        port = plan.serving(first)[0].at[first].port
        rows += [
            f"    http-check connect port {port}",
            f"    http-check send meth GET uri {plan.health_path}",
        ]
        rows.append("    http-check expect rstatus ^[23]")
    return rows


def why_not_asked(plan: BalancerPlan) -> str | None:
    """Why HAProxy cannot ask the application itself, besides the node; None when it can, or need not."""
    first = plan.services[0]
    servers = [server for server in plan.serving(first.kind) if server.health is not None]
    if plan.health_path is None or not servers:
        return None
    if first.is_passed_through:
        return f"{plan.name}: health_path is not asked, because {first.kind.value} is passed through"
    if len({server.at[first.kind].port for server in servers}) > 1:
        return f"{plan.name}: health_path is not asked, because its port differs from node to node"
    apart = [s.node for s in servers if s.health is not None and s.health.host != s.at[first.kind].host]
    if apart:
        return f"{plan.name}: health_path is not asked, because {apart[0]} has health at another address"
    return None


def _admin(plan: BalancerPlan, service: Service, names: dict[str, str]) -> list[str]:
    """Only the writer; while it is drained, an error says so, rather than an edit that is lost elsewhere."""
    rows = [f"backend {plan.backend(service.kind)}_admin", "    mode http"]
    if service.kind is DoorKind.WEBSOCKET:
        rows.append("    timeout tunnel 1h")
    rows += [
        f"    server {names[server.node]} {server.at[service.kind]}"
        for server in plan.serving(service.kind)
        if server.is_writer
    ]
    return rows


def _tracks(plan: BalancerPlan, server: ServerPlan, names: dict[str, str]) -> str:
    first = plan.services[0].kind
    return (
        f" track {plan.backend(first)}/{names[server.node]}" if first in server.at and server.health else ""
    )


def _checks(server: ServerPlan) -> str:
    """``inter 1s rise 1 fall 1``: one answer of ``/ready`` counts, a node says what it knows."""
    if server.health is None:
        return ""  # nothing can be asked; it stays in until it is taken out by hand
    row = f" check inter 1s rise 1 fall 1 addr {_bare(server.health)} port {server.health.port}"
    if server.agent is not None:
        row += f" agent-check agent-inter 1s agent-addr {_bare(server.agent)} agent-port {server.agent.port}"
    return row


def _bare(address: Address) -> str:
    """A host where HAProxy takes no port beside it: an IPv6 address needs its brackets there, too."""
    return f"[{address.host}]" if ":" in address.host else address.host


def drained_state(plans: Sequence[BalancerPlan]) -> str:
    """HAProxy's server-state file: the drained nodes, so that a reloaded HAProxy begins with them drained and not
    with a second in which it has asked no node yet. They begin as *down*, since a node that only drains still gets
    clients that have its cookie; the next answer of ``/ready``, and an agent that says "ready", take a node in
    again."""
    rows = ["1", f"# {STATE_COLUMNS}"]
    for plan in plans:
        names = server_names(server.node for server in plan.servers)
        first = plan.services[0].kind
        for number, server in enumerate(plan.serving(first), 1):
            if not server.is_out or server.health is None:
                continue  # nothing would take it in again
            at, agent = server.at[first], server.agent
            host, name = ("-", at.host) if at.ip is None else (at.host, "-")
            drain, agents = (FORCED_DRAIN, AGENT_CHECKED) if agent is not None else (0, 0)
            words = (
                0, plan.backend(first), number, names[server.node], host, STOPPED, drain, 1, 1, 0, 1, FAILED, 0,
                CHECKED, agents, 0, 0, name, at.port, "-", 0, 0, "-", "-", agent.port if agent is not None else 0,
            )  # fmt: skip
            rows.append(" ".join(str(word) for word in words))
    return "\n".join(rows) + "\n"


def drain_commands(plan: BalancerPlan) -> dict[str, tuple[bool, tuple[str, ...]]]:
    """For each node by its name in the file: whether it is drained, and the commands for HAProxy's runtime socket
    that say so. The next answer of the node says the same, so nothing stays that the node does not want."""
    names = server_names(server.node for server in plan.servers)
    first = plan.services[0].kind
    found: dict[str, tuple[bool, tuple[str, ...]]] = {}
    for server in plan.serving(first):
        at = f"{plan.backend(first)}/{names[server.node]}"
        rows = []
        if server.agent is not None:
            rows.append(f"set server {at} state {'drain' if server.is_out else 'ready'}")
        if server.health is not None:
            rows.append(f"set server {at} health {'down' if server.is_out else 'up'}")
        found[at] = server.is_out, tuple(rows)
    return found
