"""nginx's file for a plan: a plain function to text, for the free nginx. The free nginx does not check its servers,
and has no sticky cookie of its own. So the drained nodes are written into the file (the node that renders asks the
others), the next node is tried where one fails, and the cookie is made of maps. One thing it cannot do at all, and
that is refused: HTTPS that is passed through unopened.
"""

from __future__ import annotations

from collections.abc import Sequence

from instep.errors import RefusedError
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

BACKUPS = 2
"""Nodes that are tried where the one that the cookie names does not answer."""


def nginx(plans: Sequence[BalancerPlan], *, is_whole: bool) -> str:
    """A whole file, or a file for an ``http`` block to include, as in ``conf.d``.
    ``RefusedError``: ``unwritable_for_balancer`` for an address or a path that could say more than that,
    ``not_in_this_version`` for HTTPS that is passed through."""
    for plan in plans:
        require_writable(plan)
        if any(service.is_passed_through for service in plan.services):
            raise RefusedError(
                f"balancer {plan.name}: passing HTTPS through nginx unopened is not in this version of instep",
                hint='end it at the balancer (tls = "terminate"), or use HAProxy',
                code="not_in_this_version",
                balancer=plan.name,
            )
    rows = opening(plans)
    body: list[str] = ["map $http_upgrade $instep_connection {", '    default "upgrade";', '    "" "";', "}"]
    for plan in plans:
        names = server_names(server.node for server in plan.servers)
        body += _client(plan)
        for service in plan.services:
            body += _upstreams(plan, service, names)
    for door in doors_of(plans):
        body += _servers(door)
    if not is_whole:
        return "\n".join([*rows, "", *body]) + "\n"
    rows += ["", "worker_processes auto;", "events {", "    worker_connections 4096;", "}", "http {"]
    own = [
        "server_names_hash_bucket_size 256;",
        "map_hash_bucket_size 256;",
        "variables_hash_bucket_size 256;",
        "",
    ]
    return "\n".join([*rows, *(f"    {row}" if row else "" for row in (*own, *body)), "}"]) + "\n"


def _variable(plan: BalancerPlan, what: str, kind: DoorKind | None = None) -> str:
    name = plan.name.replace("-", "_")
    return f"$instep_{name}_{what}" + (f"_{kind.value}" if kind is not None else "")


def _client(plan: BalancerPlan) -> list[str]:
    """The client's address: our own word, unless a trusted proxy asks (D22)."""
    trusts = _variable(plan, "trusts")
    headers = {
        "for": ("$proxy_add_x_forwarded_for", "$remote_addr"),
        "proto": ("$http_x_forwarded_proto", "$scheme"),
        "host": ("$http_x_forwarded_host", "$http_host"),
        "port": ("$http_x_forwarded_port", "$server_port"),
    }
    rows = ["", f"geo {trusts} {{", "    default 0;", *(f"    {network} 1;" for network in plan.trusted), "}"]
    for header, (told, own) in headers.items():
        rows += [f"map {trusts} {_variable(plan, header)} {{", f"    default {own};", f"    1 {told};", "}"]
    return rows


def _upstreams(plan: BalancerPlan, service: Service, names: dict[str, str]) -> list[str]:
    kind = service.kind
    backend = plan.backend(kind)
    servers = plan.serving(kind)
    out = {server.node for server in servers if server.is_out}
    if len(out) == len(servers):
        out = set()  # some node has to answer, and be it with an error
    rows = ["", f"upstream {backend} {{", "    " + _balance(plan)]
    for server in servers:
        down = " down" if server.node in out else ""
        rows.append(f"    server {server.at[kind]} max_fails=1 fail_timeout=5s{down};")
    if not servers:
        rows.append("    server 127.0.0.1:9 down;  # no node serves it yet")
    rows.append("}")
    if plan.admin_path is not None or plan.admin_host is not None:
        writers = [f"    server {s.at[kind]};" for s in servers if s.is_writer]
        nobody = "    server 127.0.0.1:9 down;  # no writer is known"
        rows += [f"upstream {backend}_admin {{", *(writers or [nobody]), "}"]
    if plan.affinity is Affinity.COOKIE:
        rows += _cookie(plan, service, names, out)
    return rows


def _balance(plan: BalancerPlan) -> str:
    return "ip_hash;" if plan.affinity is Affinity.SOURCE else "least_conn;"


def _cookie(plan: BalancerPlan, service: Service, names: dict[str, str], out: set[str]) -> list[str]:
    """An upstream for each node that is in, with the others to fall back to; the cookie chooses it. It is set again
    when another node answered than the one that it names."""
    kind, rows = service.kind, []
    backend, pool, told = plan.backend(kind), _variable(plan, "pool", kind), _variable(plan, "told", kind)
    cookie = cookie_of(plan)
    secure = "; Secure" if service.certificate is not None else ""
    servers = plan.serving(kind)
    inside = [server for server in servers if server.node not in out]
    for server in inside:
        rows += [f"upstream {backend}_at_{names[server.node]} {{"]
        rows.append(f"    server {server.at[kind]} max_fails=1 fail_timeout=5s;")
        rows += [f"    server {other.at[kind]} backup;" for other in _next_to(server, inside)]
        rows.append("}")
    rows += [f"map $cookie_{cookie} {pool} {{", f"    default {backend};"]
    rows += [f'    "{names[s.node]}" {backend}_at_{names[s.node]};' for s in inside]
    rows += ["}", f'map "$cookie_{cookie} $upstream_addr" {told} {{', '    default "";']
    for server in servers:
        name = names[server.node]
        address = str(server.at[kind])
        dotted, shown = _quoted(name), _quoted(address)
        rows.append(f'    "~^{dotted} (.*, )?{shown}$" "";')
        rows.append(f'    "~^[^ ]* (.*, )?{shown}$" "{cookie}={name}; Path=/; HttpOnly{secure}";')
    return [*rows, "}"]


def _next_to(server: ServerPlan, inside: Sequence[ServerPlan]) -> list[ServerPlan]:
    """The nodes that take over from one that fails: the next ones, so that they differ from node to node."""
    at = inside.index(server)
    return [*inside[at + 1 :], *inside[:at]][:BACKUPS]


def _quoted(text: str) -> str:
    """For a regular expression: the text and nothing else."""
    return "".join(f"\\{c}" if c in ".[]-" else c for c in text)


def _servers(door: Door) -> list[str]:
    """One ``server`` for each host that is asked for, and one for all others."""
    hosts: dict[str, list[tuple[BalancerPlan, Service]]] = {}
    for plan, service in door.services:
        for host in plan.hosts or ("",):
            hosts.setdefault(host.lower(), []).append((plan, service))
        if plan.admin_host is not None:
            hosts.setdefault(plan.admin_host.lower(), [])
    rest = hosts.pop("", [])
    _, first = door.first
    rows: list[str] = []
    for host, here in (*sorted(hosts.items()), ("", rest)):
        admins = [
            (p, s) for p, s in door.services if p.admin_host is not None and p.admin_host.lower() == host
        ]
        rows += ["", "server {", f"    listen {door.listen}{_tls(first)}{'' if host else ' default_server'};"]
        rows.append(f"    server_name {host or '_'};")
        if first.certificate is not None:
            rows.append(f"    ssl_certificate {first.certificate};")
            rows.append(f"    ssl_certificate_key {first.key or first.certificate};")
        rows += [f"    {row}" for row in _headers(door.first[0])]
        if first.kind is DoorKind.WEBSOCKET:
            rows.append("    proxy_read_timeout 1h;")
        taken: set[str] = set()
        for plan, service in admins:
            rows += _locations(plan, service, plan.paths or ("/",), taken, is_admin=True)
        for plan, service in (*here, *(rest if host else ())):
            if plan.admin_path is not None and (plan.paths or "/" not in taken):
                rows += _locations(plan, service, (plan.admin_path,), taken, is_admin=True)
            rows += _locations(plan, service, plan.paths or ("/",), taken, is_admin=False)
        if "/" not in taken:
            rows += ["    location / {", "        return 404;", "    }"]
        rows.append("}")
    return rows


def _tls(service: Service) -> str:
    return " ssl" if service.certificate is not None else ""


def _locations(
    plan: BalancerPlan, service: Service, paths: Sequence[str], taken: set[str], *, is_admin: bool
) -> list[str]:
    """The path itself and all below it, unless something before it took that."""
    rows: list[str] = []
    for path in paths:
        bare = path.rstrip("/")
        for match, key in ((f"{bare}/", f"{bare}/"), (f"= {bare}", bare)):
            if key in taken or not key:
                continue
            taken.add(key)
            rows += [
                f"    location {match} {{",
                *(f"        {row}" for row in _pass(plan, service, is_admin)),
                "    }",
            ]
    return rows


def _pass(plan: BalancerPlan, service: Service, is_admin: bool) -> list[str]:
    kind = service.kind
    has_cookie = plan.affinity is Affinity.COOKIE and not is_admin
    to = _variable(plan, "pool", kind) if has_cookie else plan.backend(kind) + ("_admin" if is_admin else "")
    rows = [f"proxy_pass http://{to};"]
    if has_cookie:
        rows.append(f"add_header Set-Cookie {_variable(plan, 'told', kind)} always;")
    return rows


def _headers(plan: BalancerPlan) -> list[str]:
    """The headers of all requests that are passed on at a port; applications that share it trust the same proxies."""
    told = [
        f"proxy_set_header X-Forwarded-{header.capitalize()} {_variable(plan, header)};"
        for header in ("for", "proto", "host", "port")
    ]
    return [
        "client_max_body_size 0;",
        "proxy_http_version 1.1;",
        "proxy_set_header Host $http_host;",
        "proxy_set_header Upgrade $http_upgrade;",
        "proxy_set_header Connection $instep_connection;",
        'proxy_set_header Forwarded "";',
        "proxy_set_header X-Real-IP $remote_addr;",
        *told,
        "proxy_connect_timeout 5s;",
        "proxy_next_upstream error timeout http_502 http_503;",
        "proxy_next_upstream_tries 3;",
        "proxy_next_upstream_timeout 15s;",
    ]
