"""The tables ``[balancers.NAME]``, key by key and then against each other."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.fleet.balancer_file import Program
from instep.fleet.balancer_plan import Affinity, Kind, Service
from instep.model.address import Address
from instep.model.ids import FilesetName
from instep.node import balancer_keys as keys
from instep.node.balancer_settings import BalancerSettings
from instep.node.hook_fields import read_hook
from instep.node.settings import FilesetSettings
from instep.node.toml_lines import KeyPath

if TYPE_CHECKING:
    from instep.node.config_reader import Reader

__all__ = ["read_balancers"]

OF_A_FILE = ("kind", "only", "check", "reload", "update", "haproxy_socket", "global", "defaults")
"""What sections with one file must say alike; one that leaves it out takes the others' word."""


def read_balancers(
    reader: Reader, filesets: Mapping[FilesetName, FilesetSettings]
) -> dict[str, BalancerSettings]:
    tables = reader.table(("balancers",), reader.document.get("balancers", {}))
    if len(tables) > keys.BALANCERS_MAX:
        reader.wrong(("balancers",), len(tables), f"are too many, the limit is {keys.BALANCERS_MAX}")
    raws = {name: reader.table(("balancers", name), raw) for name, raw in tables.items()}
    raws = _with_words_of_file(reader, raws)
    found: dict[str, BalancerSettings] = {}
    for name, raw in raws.items():
        if not keys.NAME.fullmatch(name):
            why = "is not a name such as maps: a to z, 0 to 9 and -, at most 31, a letter or digit first"
            reader.wrong(("balancers", name), name, why)
            continue
        found[name] = _balancer(reader, name, raw)
    _check_ports(reader, found)
    for name, balancer in found.items():
        if balancer.file is not None:
            for fileset in filesets.values():
                if balancer.file.is_relative_to(fileset.path):
                    why = f"lies in fileset {fileset.name}: rendering it would change the tree"
                    reader.wrong(("balancers", name, "file"), str(balancer.file), why)
    return found


def _with_words_of_file(reader: Reader, raws: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Each section with what the others of its file say of the file."""
    told: dict[object, dict[str, tuple[str, Any]]] = {}
    for name, raw in raws.items():
        file = raw.get("file", "off")
        if file == "off" or not isinstance(file, str):
            continue
        words = told.setdefault(file, {})
        for key in OF_A_FILE:
            if key in raw:
                first, value = words.setdefault(key, (name, raw[key]))
                if value != raw[key]:
                    why = f"differs from [balancers.{first}], which is rendered to the same file {file}"
                    reader.wrong(("balancers", name, key), raw[key], why)
    return {
        name: {**{key: value for key, (_, value) in told.get(raw.get("file"), {}).items()}, **raw}
        if isinstance(raw.get("file"), str)
        else raw
        for name, raw in raws.items()
    }


def _balancer(reader: Reader, name: str, raw: dict[str, Any]) -> BalancerSettings:
    path: KeyPath = ("balancers", name)
    row = reader.read(path, raw, keys.BALANCER, ("reload", *(kind.value for kind in Kind)))
    services, ports = [], {}
    for kind in Kind:
        if raw.get(kind.value, "off") != "off":
            made = _service(reader, (*path, kind.value), kind, raw[kind.value])
            if made is not None:
                services.append(made[0])
                ports[kind] = made[1]
    program = Program(row["kind"])
    has_doors = any(raw.get(kind.value, "off") != "off" for kind in Kind)
    if has_doors and not row["filesets"]:
        reader.wrong((*path, "filesets"), None, "is missing: a node serves it when it has these")
    if not has_doors and row["file"] is not None:
        reader.wrong((*path, "file"), raw.get("file"), "has nothing to hold: set http, https or websocket")
    if not has_doors and row["address"] is None:
        reader.warn(path, f"balancer {name} says neither where it listens nor where this node serves it")
    for key in ("reload", "check") if row["file"] is None else ():
        if key in raw:
            reader.wrong((*path, key), raw[key], "goes with file")
    passes = [service for service in services if service.is_passed_through]
    if program is Program.NGINX and passes:
        why = 'cannot be passed through by nginx in this version; write tls = "terminate", or use haproxy'
        reader.wrong((*path, "https"), raw.get("https"), why)
    if row["haproxy_socket"] is not None and program is not Program.HAPROXY:
        reader.wrong(
            (*path, "haproxy_socket"), raw["haproxy_socket"], f"goes with haproxy, not with {row['kind']}"
        )
    for key in ("global", "defaults"):
        if row[key] and (program is not Program.HAPROXY or row["only"] == "backend"):
            reader.wrong((*path, key), raw.get(key), "goes with a whole file of haproxy")
    return BalancerSettings(
        name=name,
        filesets=row["filesets"],
        services=tuple(services),
        ports=ports,
        address=row["address"],
        backends=row["backends"] or {},
        nodes=row["nodes"],
        affinity=Affinity(row["affinity"]),
        paths=row["paths"],
        hosts=row["hosts"],
        admin_path=row["admin_path"],
        admin_host=row["admin_host"],
        trusted=row["trusted"],
        front=row["front"],
        max_behind=row["max_behind"],
        health_path=row["health_path"],
        haproxy_socket=row["haproxy_socket"],
        of_global=row["global"],
        of_defaults=row["defaults"],
        program=program,
        file=row["file"],
        is_whole=row["only"] == "off",
        check=row["check"],
        reload=read_hook(reader, (*path, "reload"), raw["reload"]) if "reload" in raw else None,
        is_automatic=row["update"] == "auto",
    )


def _service(reader: Reader, path: KeyPath, kind: Kind, raw: object) -> tuple[Service, int] | None:
    if not isinstance(raw, dict):
        reader.wrong(
            path, raw, 'is neither "off" nor a table such as { listen = "0.0.0.0:80", backend = 8080 }'
        )
        return None
    before = len(reader.problems)
    row = reader.read(path, raw, keys.SERVICE)
    is_ended_here = row["tls"] == "terminate"
    for key in ("tls", "certificate", "key"):
        if key in raw and kind is not Kind.HTTPS:
            reader.wrong((*path, key), raw[key], "goes with https")
        elif key in ("certificate", "key") and key in raw and not is_ended_here:
            reader.wrong((*path, key), raw[key], 'goes with tls = "terminate"')
    if kind is Kind.HTTPS and is_ended_here and row["certificate"] is None:
        reader.wrong((*path, "certificate"), None, 'is missing: tls = "terminate" shows it to clients')
    if len(reader.problems) > before:
        return None
    certificate: Path | None = row["certificate"]
    return Service(kind, row["listen"], certificate, row["key"]), row["backend"]


def _check_ports(reader: Reader, found: Mapping[str, BalancerSettings]) -> None:
    """Who shares a port must be told apart by what is asked for, and must treat the client alike."""
    ports: dict[Address, list[tuple[BalancerSettings, Service]]] = {}
    for balancer in found.values():
        for service in balancer.services:
            here = ports.setdefault(service.listen, [])
            for other, theirs in here:
                if other.file != balancer.file:
                    continue  # another balancer's file, perhaps on another machine
                path = ("balancers", balancer.name, service.kind.value)
                shared = f"listens on {service.listen} like [balancers.{other.name}]"
                if other.name == balancer.name or service.is_passed_through or theirs.is_passed_through:
                    reader.wrong(
                        path, str(service.listen), f"{shared}; only ports that are looked into can be shared"
                    )
                elif (service.certificate, service.key) != (theirs.certificate, theirs.key):
                    reader.wrong(
                        path, str(service.certificate or "off"), f"{shared}, which has another certificate"
                    )
                elif other.trusted != balancer.trusted:
                    reader.wrong(
                        path, list(balancer.trusted), f"{shared}, which trusts {list(other.trusted)}"
                    )
                elif {*_asked(balancer)} & {*_asked(other)}:
                    reader.wrong(path, str(service.listen), f"{shared}; give each its own paths or hosts")
            here.append((balancer, service))


def _asked(balancer: BalancerSettings) -> list[tuple[str, str]]:
    """The corners of what an application takes: two that share one cannot be told apart."""
    return [(host, path.rstrip("/")) for host in balancer.hosts or ("",) for path in balancer.paths or ("",)]
