"""Balancers in ``instep.toml``: an application, where it listens, which nodes serve it, the file it is rendered to."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from instep.fleet.balancers.file import Program
from instep.fleet.balancers.plan import Affinity, Service
from instep.fleet.balancers.plan import DoorKind as DoorKind
from instep.model.address import Address, why_not_plain_host
from instep.model.ids import FilesetName, NodeName, fileset_name
from instep.model.ids import node_name as parse_node_name
from instep.node.config import values
from instep.node.config.filesets import FilesetSettings
from instep.node.config.hooks import HookSettings, read_hook
from instep.node.config.keys import NO_DEFAULT, key, section
from instep.node.config.kinds import (
    BadValue,
    enum_of,
    flag,
    kind,
    list_of,
    matching,
    named,
    off_or,
    string,
    strings,
    whole_number,
)
from instep.node.config.places import ServingPlace, plain_address, serving_place, serving_places
from instep.node.config.table_reader import Table
from instep.node.config.values import absolute_path

BALANCERS_MAX = 64
LISTED_MAX = 64
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")
_DOORS = tuple(door.value for door in DoorKind)
_OF_A_FILE = ("kind", "only", "check", "reload", "update", "haproxy_socket", "global", "defaults")
"""Keys that all sections of one file must have alike; a section without one takes it from the others."""


def _host(raw: object) -> str:
    text = string(raw).lower()
    why = why_not_plain_host(text)
    if why is not None:
        raise BadValue(why)
    return text


_question = matching(
    "/[A-Za-z0-9._~/?&=:,%+-]{0,511}",
    "is not a path of a URL, with or without a query, such as /geoserver/ows?service=WMS",
)
_path = matching(
    r"/(?!/)(?!.*//)(?!(.*/)?\.\.(/|$))[A-Za-z0-9._~/-]{0,255}",
    "is not a path of a URL such as /geoserver/web",
)
_filesets = list_of(named(fileset_name, "names something that is no fileset"), LISTED_MAX)
_port = whole_number(1, 65535, "is not a port from 1 to 65535")


def _age(raw: object) -> str:
    return values.shown_duration(values.duration_ms(raw))


@kind(is_list=True)
def _check(raw: object) -> tuple[str, ...]:
    words = strings(raw)
    if not words or not words[0].startswith("/") or not any("{file}" in word for word in words):
        raise BadValue(
            'is not an argument list with {file} in it, such as ["/usr/sbin/haproxy", "-c", "-f", "{file}"]'
        )
    return words


@kind(is_list=True)
def _lines(raw: object) -> tuple[str, ...]:
    found = tuple(line.strip() for line in strings(raw))
    if len(found) > LISTED_MAX or not all(line.isprintable() and line for line in found):
        raise BadValue(f"is not a list of at most {LISTED_MAX} lines of text")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class PortKeys:
    """Where the balancer listens for one kind of request, and where the nodes answer it."""

    listen: Address = key(NO_DEFAULT, plain_address)
    """Where the balancer listens."""
    backend: int = key(NO_DEFAULT, _port)
    """The port on the nodes."""
    is_ended_here: bool = key("passthrough", flag("passthrough", "terminate", true="terminate"), name="tls")
    """`https` only. `passthrough`: nodes end TLS; `terminate`: the balancer does and asks nodes over HTTP."""
    certificate: Path | None = key(None, absolute_path)
    """With `terminate`: certificate and chain; HAProxy wants the key in it."""
    private_key: Path | None = key(None, absolute_path, name="key")
    """With `terminate`: the key, for nginx, where it is not in `certificate`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BalancerSettings:
    """One application. Without ``services`` nothing is rendered here: it only says where this node serves it."""

    name: str
    filesets: tuple[FilesetName, ...] = key(
        [], list_of(named(fileset_name, "names something that is no fileset"), LISTED_MAX)
    )
    """Nodes that have all of these serve it. Required where something listens."""
    backends: Mapping[NodeName, ServingPlace] = key({}, serving_places)
    """Per node, in place of its own report: `HOST`, `HOST:PORT`, or a table: `{ main = "10.0.0.5:8081" }`."""
    address: ServingPlace | None = key(None, serving_place)
    """Where this node serves it: `HOST`, `HOST:PORT`, or a table. The other nodes learn it."""
    nodes: tuple[NodeName, ...] | None = key(
        None, list_of(named(parse_node_name, "names something that is no node"))
    )
    """Only these nodes; every node that serves it when not given."""
    affinity: Affinity = key("cookie", enum_of(Affinity))
    """How a user stays on a node: `cookie`, `source` (the client's address), `off`."""
    paths: tuple[str, ...] = key([], list_of(_path, LISTED_MAX))
    """Only requests below these; all when empty. Lets applications share a port."""
    hosts: tuple[str, ...] = key([], list_of(_host, LISTED_MAX))
    """Only requests for these names; all when empty."""
    admin_path: str | None = key(None, _path)
    """Requests below it go to the writer only."""
    admin_host: str | None = key(None, _host)
    """Requests for this name go to the writer only."""
    trusted: tuple[str, ...] = key([], list_of(lambda raw: str(values.network(raw)), LISTED_MAX))
    """Proxies in front whose `X-Forwarded-*` is believed; from all others it is taken away."""
    front: Address | None = key(None, plain_address)
    """Where a proxy in front finds the balancer, for `proxy-map`."""
    max_behind: str | None = key("off", off_or(_age))
    """A node that has not been in step for longer gets no requests, or `off`."""
    health_path: str | None = key(None, _question)
    """A path of the application that must answer 2xx or 3xx besides the node's `/ready`, such as
    `/geoserver/ows?service=WMS&request=GetCapabilities`."""
    haproxy_socket: Path | None = key("off", off_or(absolute_path))
    """HAProxy's runtime socket on this machine: a drain is set there at once, or `off`."""
    program: Program = key("haproxy", enum_of(Program), name="kind")
    """The kind of file that `balancer reload` renders: `haproxy`, `nginx`, `proxy-map`."""
    file: Path | None = key("off", off_or(absolute_path))
    """Where `balancer reload` puts it, or `off`. Sections with the same file are rendered together."""
    is_whole: bool = key("off", flag("off", "backend", true="off"), name="only")
    """`backend`: not the whole file, the rest is yours."""
    of_global: tuple[str, ...] = key([], _lines, name="global")
    """Your own lines in the `global` of HAProxy's whole file, such as `log /dev/log local0`."""
    of_defaults: tuple[str, ...] = key([], _lines, name="defaults")
    """The same in its `defaults`, such as `timeout server 5m`."""
    check: tuple[str, ...] | None = key(None, _check)
    """The parser, with `{file}` for the file; `haproxy -c` and `nginx -t` when not given."""
    is_automatic: bool = key("auto", flag("auto", "manual", true="auto"), name="update")
    """`auto`: rendered and reloaded again when the membership changes; `manual`: on `balancer reload`."""
    reload: HookSettings | None = section(HookSettings, None)
    services: tuple[Service, ...] = section(PortKeys, (), *_DOORS)
    ports: Mapping[DoorKind, int] = field(default_factory=dict)
    """Where nodes serve it when they say nothing else."""


def read_balancers(
    top: Table, filesets: Mapping[FilesetName, FilesetSettings]
) -> dict[str, BalancerSettings]:
    sections = top.below("balancers")
    if len(sections.raw) > BALANCERS_MAX:
        many = len(sections.raw)
        top.wrong("balancers", f"are too many, the limit is {BALANCERS_MAX}", many)
    tables = _with_words_of_file({name: sections.below(name) for name in sections.raw})
    found: dict[str, BalancerSettings] = {}
    for name, table in tables.items():
        if not _NAME.fullmatch(name):
            why = "is not a name such as maps: a to z, 0 to 9 and -, at most 31, a letter or digit first"
            sections.wrong(name, why, name)
            continue
        found[name] = _balancer(table, name)
    _check_ports(tables, found)
    for name, balancer in found.items():
        file = balancer.file
        for fileset in filesets.values():
            if file is not None and file.is_relative_to(fileset.path):
                why = f"lies in fileset {fileset.name}: rendering it would change the tree"
                tables[name].wrong("file", why, str(file))
    return found


def _with_words_of_file(tables: dict[str, Table]) -> dict[str, Table]:
    """Each section with the keys about the file from the other sections of that file."""
    said: dict[str, dict[str, tuple[str, Any]]] = {}
    files = {name: file for name, table in tables.items() if isinstance(file := table.raw.get("file"), str)}
    for name, file in files.items():
        if file == "off":
            continue
        words, table = said.setdefault(file, {}), tables[name]
        for word in _OF_A_FILE:
            if word in table.raw:
                first, value = words.setdefault(word, (name, table.raw[word]))
                if value != table.raw[word]:
                    why = f"differs from [balancers.{first}], which is rendered to the same file {file}"
                    table.wrong(word, why)
    shared = {
        name: {word: value for word, (_, value) in said.get(file, {}).items()} for name, file in files.items()
    }
    return {
        name: dataclasses.replace(table, raw=shared.get(name, {}) | table.raw)
        for name, table in tables.items()
    }


def _balancer(table: Table, name: str) -> BalancerSettings:
    raw = table.raw
    row = table.read(BalancerSettings)
    doors = [door for door in DoorKind if raw.get(door.value, "off") != "off"]
    made = {door: _service(table, door) for door in doors}
    opened = {door: pair for door, pair in made.items() if pair is not None}
    found = BalancerSettings(
        name=name,
        **row,
        services=tuple(service for service, _ in opened.values()),
        ports={door: port for door, (_, port) in opened.items()},
    )
    if doors and not found.filesets:
        table.wrong("filesets", "is missing: a node serves it when it has these", None)
    for where, why in _contradictions(found, raw, has_doors=bool(doors)):
        table.wrong(where, why)
    if not doors and found.address is None:
        table.warn("", f"balancer {name} says neither where it listens nor where this node serves it")
    if "reload" not in raw:
        return found
    hook = read_hook(table.reading, (*table.path, "reload"), raw["reload"])
    return dataclasses.replace(found, reload=hook)


def _contradictions(
    found: BalancerSettings, raw: dict[str, Any], *, has_doors: bool
) -> Iterator[tuple[str, str]]:
    """Keys that do not go together."""
    if not has_doors and found.file is not None:
        yield "file", "has nothing to hold: set http, https or websocket"
    if found.file is None:
        yield from ((word, "goes with file") for word in ("reload", "check") if word in raw)
    if found.program is Program.NGINX and any(service.is_passed_through for service in found.services):
        why = 'cannot be passed through by nginx in this version; write tls = "terminate", or use haproxy'
        yield "https", why
    if found.program is not Program.HAPROXY and found.haproxy_socket is not None:
        yield "haproxy_socket", f"goes with haproxy, not with {found.program.value}"
    if found.program is not Program.HAPROXY or not found.is_whole:
        for word, lines in (("global", found.of_global), ("defaults", found.of_defaults)):
            if lines:
                yield word, "goes with a whole file of haproxy"


def _service(balancer: Table, door: DoorKind) -> tuple[Service, int] | None:
    if not isinstance(balancer.raw[door.value], dict):
        why = 'is neither "off" nor a table such as { listen = "0.0.0.0:80", backend = 8080 }'
        balancer.wrong(door.value, why)
        return None
    before = len(balancer.reading.problems)
    table = balancer.below(door.value)
    row = table.read(PortKeys)
    for word in ("tls", "certificate", "key"):
        if word in table.raw and door is not DoorKind.HTTPS:
            table.wrong(word, "goes with https")
        elif word != "tls" and word in table.raw and not row["is_ended_here"]:
            table.wrong(word, 'goes with tls = "terminate"')
    if door is DoorKind.HTTPS and row["is_ended_here"] and row["certificate"] is None:
        table.wrong("certificate", 'is missing: tls = "terminate" shows it to clients', None)
    if len(table.reading.problems) > before:
        return None
    return Service(door, row["listen"], row["certificate"], row["private_key"]), row["backend"]


def _check_ports(tables: Mapping[str, Table], found: Mapping[str, BalancerSettings]) -> None:
    """Applications on one port must differ in what is asked for, and must treat the client alike."""
    opened = [(balancer, service) for balancer in found.values() for service in balancer.services]
    for number, (balancer, service) in enumerate(opened):
        for other, theirs in opened[:number]:
            # Of another file: another balancer, perhaps on another machine.
            if other.file == balancer.file and theirs.listen == service.listen:
                clash = _clash(balancer, service, other, theirs)
                if clash is not None:
                    shared = f"listens on {service.listen} like [balancers.{other.name}]"
                    value, why = clash
                    tables[balancer.name].wrong(service.kind.value, f"{shared}{why}", value)


def _clash(
    balancer: BalancerSettings, service: Service, other: BalancerSettings, theirs: Service
) -> tuple[object, str] | None:
    if other.name == balancer.name or service.is_passed_through or theirs.is_passed_through:
        return str(service.listen), "; only ports that are looked into can be shared"
    if (service.certificate, service.key) != (theirs.certificate, theirs.key):
        return str(service.certificate or "off"), ", which has another certificate"
    if other.trusted != balancer.trusted:
        return list(balancer.trusted), f", which trusts {list(other.trusted)}"
    if {*_asked(balancer)} & {*_asked(other)}:
        return str(service.listen), "; give each its own paths or hosts"
    return None


def _asked(balancer: BalancerSettings) -> list[tuple[str, str]]:
    """The host and path pairs that an application takes; two applications with one pair in common collide."""
    return [(host, path.rstrip("/")) for host in balancer.hosts or ("",) for path in balancer.paths or ("",)]
