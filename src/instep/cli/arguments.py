"""What an argument of the command line may be: checked where it enters, by the kind that its name stands for.

Every argument is UTF-8 of bounded length without control characters. Names, addresses and networks are also checked
by their own rules. Only the paths in a tree may hold any bytes, because file names do.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import click

from instep.api.access import NAME_MAX, PERSON_NAME
from instep.api.command import MESSAGE_MAX
from instep.errors import UsageError
from instep.model.address import DEFAULT_PORT, Address, parse_address
from instep.model.ids import COUNT_MAX, fileset_name, node_name, shared_name
from instep.model.lease import lease_name
from instep.model.share import is_server

if TYPE_CHECKING:
    from instep.node.config.values import IpNetwork

ARGUMENT_BYTES_MAX = 4096
"""The limit of the kernel for a path, and longer than every token and setting that is in use."""
_SEVERAL_LINES = frozenset({"message", "reason", "assignments"})
_TREE_PATHS = frozenset(
    {"held", "paths", "explain path", "log path", "archive words", "lock path", "edit path"}
)
_PATHS = frozenset({"path", "directory"})


def check_length(arguments: Sequence[str]) -> None:
    """``UsageError`` for an argument that is longer than every right one, before anything reads or repeats it."""
    for one in arguments:
        if len(os.fsencode(one)) > ARGUMENT_BYTES_MAX:
            raise _too_long(f"the argument that begins with {one[:40]!r}", len(one), ARGUMENT_BYTES_MAX)


def _too_long(shown: str, found: int, longest: int) -> UsageError:
    return UsageError(
        f"{shown} has {found} characters, the limit is {longest}",
        hint="shorten it",
        code="argument_too_long",
        argument=shown,
    )


def checked(value: str, param: click.Parameter, context: click.Context | None) -> str:
    """The value as it was typed; ``UsageError`` names the argument and the fault."""
    name = str(param.name)
    shown = param.opts[0] if isinstance(param, click.Option) else param.human_readable_name
    owner = context.info_name if context is not None else None
    above = context.parent if context is not None else None
    group = (above.info_name if above.parent is not None else "top") if above is not None else None
    if name in ("message", "reason") and len(value) > MESSAGE_MAX:
        raise _too_long(shown, len(value), MESSAGE_MAX)
    if not {name, f"{owner} {name}", f"{group} {name}"} & _TREE_PATHS:
        _check_text(value, shown, name)
    rule = _RULES.get(f"{group} {name}") or _RULES.get(name)
    if rule is not None and value:
        return rule(value, shown)
    return value


def _check_text(value: str, shown: str, name: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{shown} is not UTF-8 text, from byte {len(os.fsencode(value[: error.start])) + 1} on: {value!r}",
            hint="type it in a terminal whose locale is UTF-8, such as C.UTF-8",
            code="argument_not_utf8",
            argument=shown,
        ) from None
    lines = value.replace("\n", " ").replace("\t", " ") if name in _SEVERAL_LINES else value
    if any(c < " " or "\x7f" <= c <= "\x9f" for c in lines) and name not in _PATHS:
        raise UsageError(
            f"{shown} has a control character: {value!r}",
            hint="type it without",
            code="argument_with_controls",
            argument=shown,
        )


def _node(value: str, _: str) -> str:
    return node_name(value)


def _shared(value: str, _: str) -> str:
    return shared_name(value)


def _fileset(value: str, _: str) -> str:
    return fileset_name(value)


def _lease(value: str, _: str) -> str:
    return lease_name(value)


def _profile(value: str, shown: str) -> str:
    return _matching(value, shown, r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?", "a sync profile such as site")


def _sync_side(value: str, _: str) -> str:
    fileset, _, home = value.partition("@")
    fileset_name(fileset)
    node_name(home)
    return value


def _cron(value: str, shown: str) -> str:
    from datetime import UTC

    from instep.core.cluster.schedule import BadCronLine, schedule_of

    if value != "off":
        try:
            schedule_of(value, UTC)
        except BadCronLine as error:
            raise UsageError(f"{shown} {value!r} {error}", code="bad_value") from None
    return value


def _time_zone(value: str, shown: str) -> str:
    from instep.node.config.kinds import BadValue
    from instep.node.config.shared_parts.jobs import time_zone

    try:
        time_zone(value)
    except BadValue as error:
        raise UsageError(f"{shown} {value!r} {error}", code="bad_value") from None
    return value


def _listing(value: str, shown: str) -> str:
    return _matching(value, shown, r"[0-9a-f]{1,64}", "an id of: instep collisions list")


def _backup(value: str, shown: str) -> str:
    return _matching(value, shown, r"[0-9]{8}T[0-9]{6}Z(-[0-9]{1,5})?", "an id of: instep backup list")


def _matching(value: str, shown: str, pattern: str, what: str) -> str:
    if re.fullmatch(pattern, value) is None:
        raise UsageError(f"{shown} {value!r} is not {what}", code="bad_name", argument=shown)
    return value


def _fileset_or_generation(value: str, _: str) -> str:
    fileset_name(value)
    if value.isdecimal() and int(value) > COUNT_MAX:
        raise UsageError(
            f"{value} is not a generation number", hint="instep log FILESET", code="bad_generation"
        )
    return value


def _peer_address(value: str, shown: str) -> str:
    """An address of a node, with the usual port where none was typed."""
    host = f"[{value}]" if value.count(":") > 1 and "[" not in value else value
    for typed in (value, f"{host}:{DEFAULT_PORT}"):
        if parse_address(typed) is not None:
            return typed
    return _address(value, shown)


def _address(value: str, shown: str) -> str:
    return str(read_address(value, shown))


def _network(value: str, shown: str) -> str:
    read_network(value, shown)
    return value


def read_address(raw: str, option: str = "") -> Address:
    """HOST:PORT as typed, for an option; ``UsageError`` with a right example."""
    from instep.node.config.kinds import BadValue
    from instep.node.config.values import address

    try:
        return address(raw)
    except BadValue as error:
        raise UsageError(f"{option} {raw!r} {error}".lstrip(), code="bad_address") from None


def read_network(raw: str, option: str = "") -> IpNetwork:
    """A CIDR or an address as typed, for an option; ``UsageError`` with a right example."""
    from instep.node.config.kinds import BadValue
    from instep.node.config.values import network

    try:
        return network(raw)
    except BadValue as error:
        raise UsageError(f"{option} {raw!r} {error}".lstrip(), code="bad_network") from None


def _server(value: str, shown: str) -> str:
    if not is_server(value):
        raise UsageError(
            f"{shown} {value!r} is not a host, such as files.example.org", code="bad_name", argument=shown
        )
    return value


def _reader(value: str, shown: str) -> str:
    return _network(value, shown) if "/" in value else _server(value, shown)


def _exported(value: str, shown: str) -> str:
    if not value.startswith("/") or ".." in value.split("/"):
        raise UsageError(
            f"{shown} {value!r} is not an absolute path without '..'", code="bad_value", argument=shown
        )
    return value


def _fingerprint(value: str, shown: str) -> str:
    from instep.node.config.kinds import BadValue
    from instep.node.config.values import fingerprint

    try:
        return fingerprint(value)
    except BadValue as error:
        raise UsageError(f"{shown} {value!r} {error}", code="bad_value") from None


def _person(value: str, shown: str) -> str:
    if not re.fullmatch(PERSON_NAME, value) or len(value) > NAME_MAX:
        raise UsageError(
            f"{shown} {value!r} is not a name of letters, digits and _ . @ -",
            hint="such as ana",
            code="bad_name",
        )
    return value


_RULES: dict[str, Callable[[str, str], str]] = {
    "fileset": _fileset, "fileset name": _fileset, "top words": _fileset_or_generation,
    "node": _node, "nodes": _node, "home": _node, "origin": _node, "source": _node, "to": _node, "node name": _node,
    "partner name": _node, "pki name": _node, "top name": _node, "top names": _node,
    "trust address": _address, "trust pin": _fingerprint, "address": _peer_address, "at": _peer_address,
    "lease_name": _lease, "job work": _shared, "request kind": _shared, "request request_id": _shared,
    "seat pool": _shared, "standby service": _shared, "listen": _peer_address, "advertise": _peer_address,
    "user name": _person, "token name": _person, "panel person": _person, "filesets": _fileset,
    "profile": _profile, "left": _sync_side, "right": _sync_side, "initiators": _node, "reviewed": _listing,
    "collision_id": _listing, "of_fileset": _fileset,
    "external part": _shared, "backup_id": _backup, "schedule": _cron, "zone": _time_zone,
    "server": _server, "readers": _reader, "writers": _reader, "exported": _exported,
    "networks": _network, "allow": _network, "from_address": _network,
}  # fmt: skip
"""By the argument's name, where needed behind the group of its command (``top`` for a command of none)."""
