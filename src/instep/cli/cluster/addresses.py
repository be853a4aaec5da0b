"""The name and addresses of a new node where not all of them were given: docs/decisions/loopback-first.md."""

from __future__ import annotations

import os
import socket
import tomllib
from dataclasses import dataclass

import click

from instep.cli.arguments import read_address, read_network
from instep.cli.session import Function
from instep.errors import ConfigError
from instep.model.address import DEFAULT_PORT, Address
from instep.model.ids import NodeName, node_name
from instep.node.config.loading import read_text
from instep.node.directory import NodeDirectory

PORTS_TRIED = 50
PANEL_PORT_AFTER = 37
"""7443 and 7480."""
PORT_MAX = 65_535


@dataclass(frozen=True, slots=True)
class Chosen:
    """The first keys of ``instep.toml``."""

    name: NodeName
    listen: Address
    advertise: Address
    allow: tuple[str, ...]
    panel: str
    is_advertise_given: bool

    @property
    def top(self) -> dict[str, object]:
        """The keys to write. ``advertise`` only where it says more than ``listen``."""
        top: dict[str, object] = {"name": str(self.name), "listen": str(self.listen)}
        if self.is_advertise_given or self.advertise != self.listen:
            top["advertise"] = str(self.advertise)
        if self.panel != "off":
            top["panel"] = self.panel
        return {**top, "allow": list(self.allow)}

    def next_steps(self, node: NodeDirectory) -> list[str]:
        """The commands for a cluster of several machines."""
        steps = [f"instep --dir {node.path} fileset add NAME PATH"]
        if self.advertise.is_loopback:
            outward = Address(default_route_address() or "ADDRESS", self.listen.port)
            steps.append(
                f"only this machine reaches {self.listen}; for other servers: "
                f"instep --dir {node.path} node set-address {self.name} {outward}"
            )
        return steps


def new_node_options(function: Function) -> Function:
    """The options of ``init`` and ``join`` about a node that begins."""
    for option in (
        click.option("--start", "is_started", is_flag=True, help="Start the daemon as well."),
        click.option("--allow", multiple=True, metavar="CIDR", help="Networks from which peers may connect."),
        click.option(
            "--panel",
            metavar="HOST:PORT|off",
            help="Where the web panel listens; a port on loopback beside the one of --listen when not given.",
        ),
        click.option("--advertise", metavar="HOST:PORT", help="The address that other nodes dial."),
        click.option("--listen", metavar="HOST:PORT", help="Where peers connect; loopback when not given."),
    ):
        function = option(function)
    return function


def choose(
    node: NodeDirectory,
    name: str | None,
    listen: str | None,
    advertise: str | None,
    panel: str | None,
    allow: tuple[str, ...],
) -> Chosen:
    """Complete what was given; for a node that exists, what was not given stays as it is."""
    old = _existing(node)
    for one in allow:
        read_network(one, "--allow")
    given_advertise = advertise or old.get("advertise")
    at = read_address(advertise, "--advertise") if advertise else None
    if listen or old.get("listen"):
        bound = read_address(listen or str(old["listen"]), "--listen")
    elif at is not None and not at.is_loopback:
        bound = Address("0.0.0.0", at.port)
    elif at is not None:
        bound = at
    else:
        bound = Address("127.0.0.1", _free_port())
    if at is None:
        at = read_address(str(given_advertise), "advertise") if given_advertise else _reachable(bound)
    chosen_name = node_name(name or str(old.get("name") or host_name()))
    written = old.get("allow")
    networks = allow or (tuple(str(one) for one in written) if isinstance(written, list) else ())
    return Chosen(
        chosen_name, bound, at, networks, _panel(panel, old, bound), is_advertise_given=bool(given_advertise)
    )


def _panel(given: str | None, old: dict[str, object], bound: Address) -> str:
    """Where the panel listens: as given, as it was, or for a new node beside its listener, so that the nodes of one
    machine have panels of their own. An older node has none until it is given one."""
    if given is not None:
        return given if given == "off" else str(read_address(given, "--panel"))
    if old:
        return str(old.get("panel", "off"))
    port = bound.port + PANEL_PORT_AFTER
    return str(Address("127.0.0.1", port)) if port <= PORT_MAX else "off"


def default_route_address() -> str | None:
    """The address of this machine on its default route; no packet is sent. None when there is no route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return None
        found = str(probe.getsockname()[0])
    return None if found.startswith("127.") else found


def _existing(node: NodeDirectory) -> dict[str, object]:
    if not node.holds_node:
        return {}
    try:
        return tomllib.loads(read_text(node.config))
    except ValueError as error:
        raise ConfigError(
            f"{node.config} cannot be read: {error}", hint="instep config check", code="bad_configuration"
        ) from error


def _reachable(bound: Address) -> Address:
    """The default address for others to dial: the listener, or an outward address for a wildcard."""
    if not bound.is_wildcard:
        return bound
    return Address(default_route_address() or host_name(), bound.port)


def host_name() -> str:
    return socket.gethostname().lower().rstrip(".") or os.uname().nodename


def _free_port() -> int:
    """The usual port, or the next free one on loopback: several nodes may live on one machine."""
    for port in range(DEFAULT_PORT, DEFAULT_PORT + PORTS_TRIED):
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    return DEFAULT_PORT
