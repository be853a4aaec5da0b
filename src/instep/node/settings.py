"""What a node was told to do: ``instep.toml`` as frozen values. ``config.py`` reads it."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instep.model.definition import Definition
from instep.model.ids import FilesetName, LineId, NodeName
from instep.model.link import Link
from instep.node.balancer_settings import BalancerSettings
from instep.node.hook_settings import HookSettings
from instep.node.mounts import ExpectedMount
from instep.node.values import Address, IpNetwork, MaxDeletions

__all__ = [
    "ArchivePolicy",
    "BalancerSettings",
    "FactSettings",
    "FilesetSettings",
    "GoldenRequest",
    "GoldenSettings",
    "HookSettings",
    "HooksSettings",
    "PartnerSettings",
    "ServiceSettings",
    "Settings",
]


@dataclass(frozen=True, slots=True)
class HooksSettings:
    """Each slot's hooks, in the order of the file."""

    validate: tuple[HookSettings, ...] = ()
    freeze: tuple[HookSettings, ...] = ()
    thaw: tuple[HookSettings, ...] = ()
    reload: tuple[HookSettings, ...] = ()
    probe: tuple[HookSettings, ...] = ()
    repair: tuple[HookSettings, ...] = ()
    on_failure: tuple[HookSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class GoldenRequest:
    """One request whose answer must stay the same; ``path`` begins with a slash and may have a query."""

    name: str
    method: str
    path: str
    compare: str = "digest"
    expect_status: int = 200
    body: str | None = None
    ignore: tuple[str, ...] = ()
    """Regular expressions; what they match does not count."""
    tolerance: int = 0
    max_share_percent: float = 0.0
    is_change_expected: bool = False


@dataclass(frozen=True, slots=True)
class GoldenSettings:
    """The requests, and whom to ask: ``url`` is this node's own application, ``balancer`` what users call."""

    url: str | None = None
    balancer: str | None = None
    timeout_ms: int = 10_000
    retries: int = 0
    auth_file: Path | None = None
    headers_file: Path | None = None
    tls: str = "strict"
    requests: tuple[GoldenRequest, ...] = ()


@dataclass(frozen=True, slots=True)
class ArchivePolicy:
    """What the archive keeps at least. Whatever one of the first two keeps, stays."""

    keep_last: int = 10
    keep_within_ms: int = 30 * 86_400_000
    max_share_percent: float = 20.0
    """Share of the file system above which status warns; it never prunes below the first two."""


@dataclass(frozen=True, slots=True)
class FactSettings:
    """Where a named fact comes from. Exactly one of the sources is set."""

    file: Path | None = None
    match: str | None = None
    digest_of: Path | None = None
    fingerprint_of: Path | None = None
    value: str | None = None
    run: tuple[str, ...] | None = None
    """A program and its arguments; its output is the fact."""
    list: Path | None = None
    """A directory; the names in it are the fact, one a line."""


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    """The program that uses a fileset's tree, by one of these: whose user the facts ``service`` and ``access`` are
    about."""

    unit: str | None = None
    """A systemd unit."""
    pid_file: Path | None = None
    user: str | None = None


@dataclass(frozen=True, slots=True)
class PartnerSettings:
    """One partner: what this node lets it have, and where to dial it."""

    link: Link
    address: Address | None = None
    """None: this node never dials it, it dials here."""
    pin: str | None = None
    """SHA-256 of its public key in hex: trusted without a common CA."""


@dataclass(frozen=True, slots=True)
class FilesetSettings:
    """One fileset on this node."""

    name: FilesetName
    path: Path
    writer: NodeName
    definition: Definition | None
    """The rules that travel, where it is written; None where it is followed."""
    publish: str = "auto"
    settle_ms: int = 200
    settle_max_ms: int = 10_000
    trigger: bytes | None = None
    trigger_max_ms: int = 5_000
    max_deletions: MaxDeletions = field(default_factory=MaxDeletions)
    strict: bool = False
    """Any held path refuses the publish."""
    history: str = "auto"
    to: tuple[NodeName, ...] | None = None
    """None: every partner that its link allows."""
    switch: str = "inplace"
    carry: tuple[bytes, ...] = ()
    """With ``exchange``: ignored paths that move along."""
    linger_ms: int = 60_000
    """With ``exchange``: how long the old tree stays whole."""
    drift: str = "revert"
    stage: Path | None = None
    """None: beside the root where possible, else in ``.instep/`` below it."""
    archive: ArchivePolicy = ArchivePolicy()
    without: frozenset[str] = frozenset()
    """What this node's file system cannot keep and the operator gave up."""
    observe: bool = False
    """Compare and report, never write."""
    hooks: HooksSettings = HooksSettings()
    service: ServiceSettings | None = None
    expect_mount: ExpectedMount | None = None
    """Which file system must hold the root."""
    golden: GoldenSettings = GoldenSettings()
    origin: NodeName | None = None
    """Who began the line, where that is not its writer: a change of writer keeps the line."""

    @property
    def line(self) -> LineId:
        """The line that is written or followed here; it stays the same when another node becomes its writer."""
        return LineId(self.name, self.origin or self.writer)

    @property
    def is_written_here(self) -> bool:
        return self.definition is not None

    def offers_to(self, partner: NodeName) -> bool:
        """Whether ``to`` names the partner; its link has a say as well."""
        return self.to is None or partner in self.to


@dataclass(frozen=True, slots=True)
class Settings:
    """The whole configuration of a node."""

    name: NodeName
    listen: Address
    advertise: Address
    is_advertise_written: bool = False
    """Whether the file has ``advertise``; else it is ``listen``."""
    health: Address | None = None
    """Where ``/live`` and ``/ready`` are answered."""
    agent: Address | None = None
    """Where HAProxy's agent-check is answered."""
    allow: tuple[IpNetwork, ...] = ()
    poll_ms: int = 30_000
    drain_linger_ms: int = 1_000
    """What requests in flight get before a switch, once every balancer that asks knows that this node is drained."""
    rate_limit: int | None = None
    """Bytes a second of contents sent, None for no limit."""
    allow_preserve: frozenset[str] = frozenset()
    """``owner``, ``setuid``, ``security``: what a peer's manifest may set here (P7)."""
    partners: Mapping[NodeName, PartnerSettings] = field(default_factory=dict)
    filesets: Mapping[FilesetName, FilesetSettings] = field(default_factory=dict)
    facts: Mapping[str, FactSettings] = field(default_factory=dict)
    balancers: Mapping[str, BalancerSettings] = field(default_factory=dict)
    probers: tuple[IpNetwork, ...] = ()
    """Where balancers ask from; nobody else counts as one, when any is named."""
    allow_drain: frozenset[NodeName] = frozenset()
    """Partners that may drain this node."""
    warnings: tuple[str, ...] = ()
    """What is allowed but probably not meant; status repeats them."""
    fingerprint: str = ""
    """BLAKE3 of the file's text, 16 hex digits: status says which file runs."""

    def allows(self, peer: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
        """Whether a peer may connect: who is listed, or only loopback when nobody is."""
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(peer in network for network in self.allow) if self.allow else peer.is_loopback
