"""The plan of a balancer, for any program: applications, their ports, and the nodes that serve them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from instep.errors import RefusedError
from instep.model.address import Address, why_not_plain_host

MARK = "Made by instep balancer"
"""In the first line of every file that was rendered; a file without it belongs to the operator."""

_PATH = re.compile(r"/[A-Za-z0-9._~/-]{0,255}")
_QUESTION = re.compile(r"/[A-Za-z0-9._~/?&=:,%+-]{0,511}")
_FILE = re.compile(r"/[A-Za-z0-9._/@+-]{1,1023}")
_BASE = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_WORD = re.compile(r"[A-Za-z0-9._:/-]{1,128}")
_ODD = re.compile(r"[^A-Za-z0-9_.-]")


class DoorKind(Enum):
    """The protocol of a port. HTTPS is passed through unopened, or ended at the balancer."""

    HTTP = "http"
    HTTPS = "https"
    WEBSOCKET = "websocket"


class Affinity(Enum):
    """How a user stays on one node."""

    COOKIE = "cookie"
    SOURCE = "source"
    OFF = "off"


@dataclass(frozen=True, slots=True)
class ServerPlan:
    """One node behind the balancer. ``at`` is where it serves each kind; without ``health`` nothing is asked."""

    node: str
    at: Mapping[DoorKind, Address]
    is_writer: bool = False
    health: Address | None = None
    agent: Address | None = None
    is_out: bool = False
    """It said that it wants no new work, or answers that it is not ready."""


@dataclass(frozen=True, slots=True)
class Service:
    """One listening port. With a ``certificate`` TLS ends here, and nodes are asked over plain HTTP; ``key`` is its key
    where that is another file."""

    kind: DoorKind
    listen: Address
    certificate: Path | None = None
    key: Path | None = None

    @property
    def is_passed_through(self) -> bool:
        return self.kind is DoorKind.HTTPS and self.certificate is None


@dataclass(frozen=True, slots=True)
class BalancerPlan:
    """One application: where it listens and which nodes serve it. Two applications may share a port when ``paths`` or
    ``hosts`` distinguish them."""

    name: str
    services: tuple[Service, ...]
    servers: tuple[ServerPlan, ...]
    affinity: Affinity = Affinity.COOKIE
    paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    admin_path: str | None = None
    """Requests below it go to the writer only."""
    admin_host: str | None = None
    trusted: tuple[str, ...] = ()
    """Networks of proxies in front, whose word about the client is kept (D22)."""
    filesets: tuple[str, ...] = ()
    max_behind: str | None = None
    health_path: str | None = None
    """The request that the application itself must answer well, besides the node."""
    front: Address | None = None
    """Where a proxy in front finds this balancer."""
    state_file: Path | None = None
    """The file with the drained nodes, for an HAProxy that was reloaded."""
    warnings: tuple[str, ...] = field(default=())

    @property
    def ready(self) -> str:
        """The question to each node."""
        asked = [f"by={self.name}", *(f"fileset={name}" for name in self.filesets)]
        return "/ready?" + "&".join([*asked, *([f"max_behind={self.max_behind}"] if self.max_behind else [])])

    def serving(self, kind: DoorKind) -> tuple[ServerPlan, ...]:
        return tuple(server for server in self.servers if kind in server.at)

    def backend(self, kind: DoorKind) -> str:
        """The name of the backend of one port."""
        return f"{self.name}_{kind.value}"


@dataclass(frozen=True, slots=True)
class Door:
    """One listening port with the applications behind it; the first is the one that is asked for nothing else."""

    listen: Address
    is_passed_through: bool
    services: tuple[tuple[BalancerPlan, Service], ...]

    @property
    def first(self) -> tuple[BalancerPlan, Service]:
        return self.services[0]


def cookie_of(plan: BalancerPlan) -> str:
    """The cookie that keeps a user on a node: one for each application, since not every node serves all of them."""
    return cookie_of_application(plan.name)


def cookie_of_application(name: str) -> str:
    """The cookie of the section ``[balancers.NAME]``."""
    return f"INSTEP_NODE_{name.replace('-', '_')}"


def doors_of(plans: Iterable[BalancerPlan]) -> tuple[Door, ...]:
    """The ports of all applications, each once, in the order of the plans. Within one, an application that names
    neither paths nor hosts comes last: it takes what is left. ``RefusedError`` (``same_port``) when two would."""
    found: dict[Address, list[tuple[BalancerPlan, Service]]] = {}
    for plan in plans:
        for service in plan.services:
            found.setdefault(service.listen, []).append((plan, service))
    for listen, rows in found.items():
        takers = [plan.name for plan, service in rows if _is_open(plan) or service.is_passed_through]
        if len(takers) > 1 or (takers and any(service.is_passed_through for _, service in rows[1:])):
            raise RefusedError(
                f"{' and '.join(takers)} take everything at {listen}",
                hint="render them into files of their own, or give them paths or hosts",
                code="same_port",
                balancers=takers,
            )
    return tuple(
        Door(listen, rows[0][1].is_passed_through, tuple(sorted(rows, key=lambda row: _is_open(row[0]))))
        for listen, rows in found.items()
    )


def _is_open(plan: BalancerPlan) -> bool:
    return not plan.paths and not plan.hosts


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


def opening(plans: Sequence[BalancerPlan]) -> list[str]:
    """The lines that say whose file it is."""
    names = ", ".join(plan.name for plan in plans)
    return [
        f"# {MARK} for {names}; what you change here is lost.",
        "# Change [balancers] in instep.toml, or set only = \"backend\" and keep the rest to yourself.",
    ]  # fmt: skip


def require_writable(plan: BalancerPlan) -> None:
    """Addresses come from other nodes: nothing but an address may reach a balancer's file. ``RefusedError``
    (``unwritable_for_balancer``) names the node and the value."""
    own: list[tuple[str, object, str | None]] = [
        ("name", plan.name, None if _BASE.fullmatch(plan.name) else "is no plain word"),
        *(("listen", s.listen.host, why_not_plain_host(s.listen.host)) for s in plan.services),
        *(("file", str(f), None if _FILE.fullmatch(str(f)) else "has characters that need quoting")
          for s in plan.services for f in (s.certificate, s.key) if f is not None),
        *(("path", p, None if _PATH.fullmatch(p) else "is no plain path")
          for p in (*plan.paths, *([plan.admin_path] if plan.admin_path is not None else []))),
        *(("host", h, why_not_plain_host(h))
          for h in (*plan.hosts, *([plan.admin_host] if plan.admin_host is not None else []))),
        *(("question", word, None if _WORD.fullmatch(word) else "is no plain word")
          for word in (*plan.filesets, *plan.trusted, *([plan.max_behind] if plan.max_behind else []))),
    ]  # fmt: skip
    if plan.health_path is not None:
        is_plain = _QUESTION.fullmatch(plan.health_path)
        own.append(("path", plan.health_path, None if is_plain else "is no plain path with a query"))
    if plan.front is not None:
        own.append(("front", plan.front.host, why_not_plain_host(plan.front.host)))
    if plan.state_file is not None:
        is_file = _FILE.fullmatch(str(plan.state_file))
        own.append(("file", str(plan.state_file), None if is_file else "has characters that need quoting"))
    for what, value, why in own:
        _refuse(plan, None, what, value, why)
    for server in plan.servers:
        doors = (*server.at.values(), *(door for door in (server.health, server.agent) if door is not None))
        for door in doors:
            why = why_not_plain_host(door.host)
            _refuse(plan, server.node, "address", door.host, why or _why_not_port(door.port))


def _why_not_port(port: int) -> str | None:
    return None if 0 < port < 65536 else f"has no port but {port}"


def _refuse(plan: BalancerPlan, node: str | None, what: str, value: object, why: str | None) -> None:
    if why is None:
        return
    whose = f" of {node}" if node is not None else ""
    raise RefusedError(
        f"{value!r} is no {what}{whose} that a balancer's file can hold: it {why}",
        hint="correct it where it is configured",
        code="unwritable_for_balancer",
        balancer=plan.name,
        node=node,
    )
