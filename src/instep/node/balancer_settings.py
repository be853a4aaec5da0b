"""``[balancers.NAME]`` as frozen values: one application, where it listens, who serves it, and the file it is
rendered to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instep.fleet.balancer_file import Program
from instep.fleet.balancer_plan import Affinity, Kind, Service
from instep.model.address import Address
from instep.model.ids import FilesetName, NodeName
from instep.node.hook_settings import HookSettings

__all__ = ["BalancerSettings", "Place"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where one node serves an application. ``at`` for single kinds; else ``host``, with ``port`` for the first
    kind."""

    host: str | None = None
    port: int | None = None
    at: Mapping[Kind, Address] = field(default_factory=dict)
    health: Address | None = None
    agent: Address | None = None


@dataclass(frozen=True, slots=True)
class BalancerSettings:
    """One application. Without ``services`` nothing is rendered here: it only tells where this node serves it."""

    name: str
    filesets: tuple[FilesetName, ...] = ()
    """A node that has all of them serves it."""
    services: tuple[Service, ...] = ()
    ports: Mapping[Kind, int] = field(default_factory=dict)
    """Where nodes serve it when they say nothing else."""
    address: Place | None = None
    """Where this node serves it; told to the others."""
    backends: Mapping[NodeName, Place] = field(default_factory=dict)
    """This node's own word, before what they say of themselves."""
    nodes: tuple[NodeName, ...] | None = None
    """Nobody but these; None: whoever serves it."""
    affinity: Affinity = Affinity.COOKIE
    paths: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    admin_path: str | None = None
    admin_host: str | None = None
    trusted: tuple[str, ...] = ()
    front: Address | None = None
    max_behind: str | None = None
    health_path: str | None = None
    haproxy_socket: Path | None = None
    of_global: tuple[str, ...] = ()
    of_defaults: tuple[str, ...] = ()
    """The operator's own lines in a whole file of HAProxy."""
    program: Program = Program.HAPROXY
    file: Path | None = None
    """None: rendered only when it is asked for."""
    is_whole: bool = True
    check: tuple[str, ...] | None = None
    """None: the program's own parser."""
    reload: HookSettings | None = None
    is_automatic: bool = True
    """Rendered again by itself when the membership changes."""
