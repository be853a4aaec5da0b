"""The settings of a node: ``instep.toml`` as frozen values, and the reader that assembles them from all its tables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from instep.api.command import Role
from instep.model.address import Address
from instep.model.ids import FilesetName, NodeName
from instep.model.paths import is_below
from instep.node.config import values
from instep.node.config.balancers import BalancerSettings, read_balancers
from instep.node.config.facts import FactSettings, read_facts
from instep.node.config.filesets import FilesetSettings, read_filesets
from instep.node.config.keys import NO_DEFAULT, key, section
from instep.node.config.kinds import as_set, choice, matching, off_or, some_of, strings
from instep.node.config.outside.notify import NotifySettings, read_notify
from instep.node.config.outside.oidc import OidcSettings, read_oidc
from instep.node.config.partners import PartnerSettings, read_partners
from instep.node.config.shared_parts.backups import BackupSettings, read_backup
from instep.node.config.shared_parts.jobs import JobSettings, RequestSettings, read_jobs, read_requests
from instep.node.config.shared_parts.pools import PoolSettings, read_pools
from instep.node.config.shared_parts.standby import StandbySettings, read_standby
from instep.node.config.sync import SyncSettings, read_sync
from instep.node.config.table_reader import Table
from instep.node.config.values import POLL_MS_MIN, IpNetwork, duration_ms, networks, node_name, node_names
from instep.tree.root.resolving import resolved

_GROUP = matching(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}", "is not the name of a group such as operators")
_PRESERVE_HERE = ("owner", "setuid", "security")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The whole configuration of a node."""

    name: NodeName = key(NO_DEFAULT, node_name, needs_restart=True)
    """This node's name. Certificates carry it: see `instep node rename`."""
    listen: Address = key("127.0.0.1:7443", values.address)
    """Where peers connect, with mutual TLS."""
    advertise: Address = key(None, values.address, is_filled=True)
    """The address that other nodes dial; `listen` when not given."""
    panel: Address | None = key("off", off_or(values.address))
    """Where the web panel and the REST API listen, such as `127.0.0.1:7480`, or `off`; off loopback with TLS only."""
    panel_names: tuple[str, ...] = key([], strings)
    """More host names that browsers reach the panel by; others than these and its addresses are refused."""
    health: Address | None = key("off", off_or(values.address))
    """Where `/live` and `/ready` are answered over HTTP, or `off`."""
    agent: Address | None = key("off", off_or(values.address))
    """Where HAProxy's agent-check is answered, or `off`."""
    probers: tuple[IpNetwork, ...] = key([], networks)
    """Where balancers ask from; with any named, only these and loopback count as balancers that a drain waits for."""
    allow_drain: frozenset[NodeName] = key([], as_set(node_names))
    """Partners that may drain this node with `instep node drain`; no partner by default."""
    socket_group: str | None = key("off", off_or(_GROUP))
    """A group of this machine whose members may give commands here without being root, or `off`."""
    socket_role: str = key("viewer", choice(*(role.value for role in Role)))
    """The commands of the members of `socket_group`: `viewer` looks, `operator` also acts, `admin` may all."""
    allow: tuple[IpNetwork, ...] = key([], networks)
    """Networks from which peers may connect; empty means loopback only."""
    poll_ms: int = key("30s", duration_ms)
    """How often a partner without news asks, jittered."""
    drain_linger_ms: int = key("1s", duration_ms)
    """For requests in flight, once balancers know of a drain."""
    rate_limit: int | None = key("off", values.rate_limit)
    """Most bytes of contents sent in a second, such as `20MiB`, or `off`."""
    allow_preserve: frozenset[str] = key([], as_set(some_of(*_PRESERVE_HERE)))
    """The metadata that a peer's manifest may set here: owner, setuid, security."""
    cluster_file: Path | None = key(None, values.private_file)
    """A file of mode 0600 with the address of the cluster's database; without it this node has its own."""
    partners: Mapping[NodeName, PartnerSettings] = section(
        PartnerSettings, dict, is_named=True, is_whole=True
    )
    filesets: Mapping[FilesetName, FilesetSettings] = section(
        FilesetSettings, dict, is_named=True, is_whole=True
    )
    facts: Mapping[str, FactSettings] = section(FactSettings, dict, is_named=True)
    balancers: Mapping[str, BalancerSettings] = section(BalancerSettings, dict, is_named=True)
    jobs: Mapping[str, JobSettings] = section(JobSettings, dict, is_named=True)
    requests: Mapping[str, RequestSettings] = section(RequestSettings, dict, is_named=True)
    pools: Mapping[str, PoolSettings] = section(PoolSettings, dict, is_named=True)
    standby: Mapping[str, StandbySettings] = section(StandbySettings, dict, is_named=True)
    backup: BackupSettings | None = section(BackupSettings, None)
    sync: Mapping[str, SyncSettings] = section(SyncSettings, dict, is_named=True)
    notify: Mapping[str, NotifySettings] = section(NotifySettings, dict, is_named=True)
    oidc: OidcSettings | None = section(OidcSettings, None)
    is_advertise_written: bool = False
    """Whether the file has ``advertise``; else it is ``listen``."""
    warnings: tuple[str, ...] = ()
    """Settings that are allowed but probably not meant; status repeats them."""
    fingerprint: str = ""
    """BLAKE3 of the file's text, 16 hex digits: status says which file runs."""

    def fileset_around(self, path: Path) -> FilesetSettings | None:
        """The fileset whose tree holds this path, links on the way followed."""
        real = resolved(path)
        found = (each for each in self.filesets.values() if real.is_relative_to(resolved(each.path)))
        return next(found, None)

    def path_in_a_fileset(self, folder: Path, paths: Sequence[bytes]) -> tuple[bytes, FilesetSettings] | None:
        """The first of ``paths`` that would lie in the tree of a fileset if it were written below ``folder``."""
        real = resolved(folder)
        for each in self.filesets.values():
            root = resolved(each.path)
            if root != real and root.is_relative_to(real):
                below = os.fsencode(root.relative_to(real))
                for path in paths:
                    if path == below or is_below(path, below):
                        return path, each
        return None


def read_settings(top: Table, fingerprint: str) -> Settings | None:
    """All tables of the document; None where problems were found."""
    row = top.read(Settings)
    row["advertise"] = row["advertise"] or row["listen"]
    _check_addresses(top, row)
    if row["poll_ms"] < POLL_MS_MIN:
        top.wrong("poll", f"is shorter than {POLL_MS_MIN}ms")
    partners = read_partners(top, row["name"])
    filesets = read_filesets(top, row["name"], partners)
    facts = read_facts(top)
    balancers = read_balancers(top, filesets)
    jobs, requests, pools = read_jobs(top), read_requests(top), read_pools(top)
    standby = read_standby(top)
    sync, notify = read_sync(top), read_notify(top)
    backup, oidc = read_backup(top, filesets), read_oidc(top)
    if top.reading.problems:
        return None
    return Settings(
        **row,
        is_advertise_written="advertise" in top.raw,
        partners=MappingProxyType(partners),
        filesets=MappingProxyType(filesets),
        facts=MappingProxyType(facts),
        balancers=MappingProxyType(balancers),
        jobs=MappingProxyType(jobs),
        requests=MappingProxyType(requests),
        pools=MappingProxyType(pools),
        standby=MappingProxyType(standby),
        sync=MappingProxyType(sync),
        notify=notify,
        backup=backup,
        oidc=oidc,
        warnings=tuple(top.reading.warnings),
        fingerprint=fingerprint,
    )


def _check_addresses(top: Table, row: Mapping[str, Any]) -> None:
    listen, advertise = row["listen"], row["advertise"]
    if advertise.is_wildcard:
        top.warn("advertise", f"{advertise} cannot be dialled; set advertise to an address of this machine")
    if not listen.is_loopback and not row["allow"]:
        top.warn("listen", "allow is empty, so only loopback peers may connect; add a network to allow")
    taken = {name: row[name] for name in ("listen", "health", "agent", "panel") if row[name] is not None}
    for name in ("health", "agent", "panel"):
        twin = next((other for other in taken if other != name and taken[other] == taken.get(name)), None)
        if twin is not None:
            top.wrong(name, f"is the address of {twin} as well", str(taken[name]))
