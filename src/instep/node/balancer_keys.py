"""Every key of ``[balancers.NAME]``: how it is read, its default and what it does. The reference page is made from
this."""

from __future__ import annotations

import re

from instep.errors import InstepError
from instep.fleet.balancer_file import Program
from instep.fleet.balancer_plan import Affinity, Kind
from instep.model.address import Address, parse_address, why_not_plain_host
from instep.model.ids import NodeName, fileset_name, node_name
from instep.node import values
from instep.node.balancer_settings import Place
from instep.node.config_keys import NO_DEFAULT, Key
from instep.node.values import BadValue

__all__ = ["BALANCER", "BALANCERS_MAX", "NAME", "PLACE", "SERVICE", "place"]

BALANCERS_MAX = 64
LISTED_MAX = 64
NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,30}")


def plain_address(raw: object) -> Address:
    """An address that a balancer's file can hold."""
    found = values.address(raw)
    why = why_not_plain_host(found.host)
    if why is not None:
        raise BadValue(f"has a host that {why}")
    return found


def _host(raw: object) -> str:
    text = values.string(raw).lower()
    why = why_not_plain_host(text)
    if why is not None:
        raise BadValue(why)
    return text


def _hosts(raw: object) -> tuple[str, ...]:
    return _few(tuple(_host(item) for item in values.strings(raw)))


def _path(raw: object) -> str:
    text = values.string(raw)
    if not re.fullmatch(r"/[A-Za-z0-9._~/-]{0,255}", text) or "//" in text or ".." in text.split("/"):
        raise BadValue("is not a path of a URL such as /geoserver/web")
    return text


def _paths(raw: object) -> tuple[str, ...]:
    return _few(tuple(_path(item) for item in values.strings(raw)))


def _few(found: tuple[str, ...]) -> tuple[str, ...]:
    if len(found) > LISTED_MAX:
        raise BadValue(f"has {len(found)} entries, the limit is {LISTED_MAX}")
    return tuple(dict.fromkeys(found))


def _filesets(raw: object) -> tuple[str, ...]:
    try:
        return _few(tuple(fileset_name(item) for item in values.strings(raw)))
    except InstepError as error:
        raise BadValue(f"names something that is no fileset; {error.hint}") from None


def _nodes(raw: object) -> tuple[str, ...]:
    try:
        return tuple(node_name(item) for item in values.strings(raw))
    except InstepError as error:
        raise BadValue(f"names something that is no node; {error.hint}") from None


def _networks(raw: object) -> tuple[str, ...]:
    return _few(tuple(str(values.network(item)) for item in values.strings(raw)))


def _port(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 < raw < 65536:
        raise BadValue("is not a port from 1 to 65535")
    return raw


def _off_or_path(raw: object) -> object:
    return None if raw == "off" else values.absolute_path(raw)


def _off_or_address(raw: object) -> object:
    return None if raw == "off" else plain_address(raw)


def _off_or_duration(raw: object) -> object:
    return None if raw == "off" else values.shown_duration(values.duration_ms(raw))


def _check(raw: object) -> tuple[str, ...]:
    words = values.strings(raw)
    if not words or not words[0].startswith("/") or not any("{file}" in word for word in words):
        raise BadValue(
            'is not an argument list with {file} in it, such as ["/usr/sbin/haproxy", "-c", "-f", "{file}"]'
        )
    return words


def _question(raw: object) -> str:
    text = values.string(raw)
    if not re.fullmatch(r"/[A-Za-z0-9._~/?&=:,%+-]{0,511}", text):
        raise BadValue("is not a path of a URL, with or without a query, such as /geoserver/ows?service=WMS")
    return text


def _lines(raw: object) -> tuple[str, ...]:
    found = tuple(line.strip() for line in values.strings(raw))
    if len(found) > LISTED_MAX or not all(line.isprintable() and line for line in found):
        raise BadValue(f"is not a list of at most {LISTED_MAX} lines of text")
    return found


def place(raw: object) -> Place:
    """``"10.0.0.5"``, ``"10.0.0.5:8081"``, or a table of ``PLACE``."""
    if isinstance(raw, dict):
        unknown = [name for name in raw if name not in (key.name for key in PLACE)]
        if unknown or not raw:
            known = ", ".join(key.name for key in PLACE)
            raise BadValue(f"has {', '.join(unknown) or 'nothing'} in it; it can hold {known}")
        doors = {name: plain_address(value) for name, value in raw.items()}
        at = {kind: doors[kind.value] for kind in Kind if kind.value in doors}
        return Place(at=at, health=doors.get("health"), agent=doors.get("agent"))
    text = values.string(raw)
    if why_not_plain_host(text) is None:
        return Place(host=text)
    if parse_address(text) is None:
        raise BadValue('is not HOST, HOST:PORT or a table such as { http = "10.0.0.5:8081" }')
    found = plain_address(text)
    return Place(host=found.host, port=found.port)


def _places(raw: object) -> dict[NodeName, Place]:
    if not isinstance(raw, dict):
        raise BadValue('is not a table such as { main = "10.0.0.5:8081" }')
    found: dict[NodeName, Place] = {}
    for name, value in raw.items():
        try:
            found[node_name(name)] = place(value)
        except InstepError as error:
            raise BadValue(f"names {name}, which is no node; {error.hint}") from None
        except BadValue as error:
            raise BadValue(f"has for {name} a value that {error}") from None
    return found


BALANCER: tuple[Key, ...] = (
    Key(
        "filesets", _filesets, [], "Nodes that have all of these serve it. Required where something listens."
    ),
    Key(
        "backends",
        _places,
        {},
        'Per node, before what it says of itself: `HOST`, `HOST:PORT`, or a table: `{ main = "10.0.0.5:8081" }`.',
    ),
    Key(
        "address",
        place,
        None,
        "Where this node serves it: `HOST`, `HOST:PORT`, or a table. Told to the others.",
    ),
    Key("nodes", _nodes, None, "Only these nodes; whoever serves it when not given."),
    Key(
        "affinity",
        values.choice(*(a.value for a in Affinity)),
        "cookie",
        "How a user stays on a node: `cookie`, `source` (the client's address), `off`.",
    ),
    Key("paths", _paths, [], "Only requests below these; all when empty. Lets applications share a port."),
    Key("hosts", _hosts, [], "Only requests for these names; all when empty."),
    Key("admin_path", _path, None, "Requests below it go to the writer only."),
    Key("admin_host", _host, None, "Requests for this name go to the writer only."),
    Key(
        "trusted",
        _networks,
        [],
        "Proxies in front whose `X-Forwarded-*` is believed; from all others it is taken away.",
    ),
    Key("front", plain_address, None, "Where a proxy in front finds the balancer, for `proxy-map`."),
    Key(
        "max_behind",
        _off_or_duration,
        "off",
        "A node that has not been in step for longer gets no requests, or `off`.",
    ),
    Key(
        "health_path",
        _question,
        None,
        "A path of the application that must answer 2xx or 3xx besides the node's `/ready`, such as "
        "`/geoserver/ows?service=WMS&request=GetCapabilities`.",
    ),
    Key(
        "haproxy_socket",
        _off_or_path,
        "off",
        "HAProxy's runtime socket on this machine: drains are told there at once, or `off`.",
    ),
    Key(
        "kind",
        values.choice(*(p.value for p in Program)),
        "haproxy",
        "What `balancer reload` renders: `haproxy`, `nginx`, `proxy-map`.",
    ),
    Key(
        "file",
        _off_or_path,
        "off",
        "Where `balancer reload` puts it, or `off`. Sections with the same file are rendered together.",
    ),
    Key("only", values.choice("off", "backend"), "off", "`backend`: not the whole file, the rest is yours."),
    Key(
        "global",
        _lines,
        [],
        "Your own lines in the `global` of HAProxy's whole file, such as `log /dev/log local0`.",
    ),
    Key("defaults", _lines, [], "The same in its `defaults`, such as `timeout server 5m`."),
    Key(
        "check",
        _check,
        None,
        "The parser, with `{file}` for the file; `haproxy -c` and `nginx -t` when not given.",
    ),
    Key(
        "update",
        values.choice("auto", "manual"),
        "auto",
        "`auto`: rendered and reloaded again when the membership changes; `manual`: on `balancer reload`.",
    ),
)

SERVICE: tuple[Key, ...] = (
    Key("listen", plain_address, NO_DEFAULT, "Where the balancer listens."),
    Key("backend", _port, NO_DEFAULT, "The port on the nodes."),
    Key(
        "tls",
        values.choice("passthrough", "terminate"),
        "passthrough",
        "`https` only. `passthrough`: nodes end TLS; `terminate`: the balancer does and asks nodes over HTTP.",
    ),
    Key(
        "certificate",
        values.absolute_path,
        None,
        "With `terminate`: certificate and chain; HAProxy wants the key in it.",
    ),
    Key(
        "key",
        values.absolute_path,
        None,
        "With `terminate`: the key, for nginx, where it is not in `certificate`.",
    ),
)

PLACE: tuple[Key, ...] = (
    *(Key(kind.value, plain_address, None, f"Where the node serves {kind.value}.") for kind in Kind),
    Key("health", plain_address, None, "Where the node answers `/ready`."),
    Key("agent", plain_address, None, "Where the node answers HAProxy's agent-check."),
)
