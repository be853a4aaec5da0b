"""The kinds of single values in ``instep.toml`` and on the command line: durations, sizes, addresses, networks, paths,
names. ``kinds.py`` says what a kind is."""

from __future__ import annotations

import ipaddress
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from instep.model.address import Address, parse_address
from instep.model.definition import PATTERNS_MAX, why_not_pattern
from instep.model.ids import node_name as parse_node_name
from instep.node.config.kinds import (
    BadValue,
    ValueKind,
    kind,
    list_of,
    named,
    off_or,
    string,
    strings,
    whole_number,
)

IpNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_DURATION = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(ms|s|m|h|d)")
_DURATION_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_SIZE = re.compile(r"(\d{1,15}(?:\.\d{1,15})?)\s*(B|KiB|MiB|GiB|TiB|KB|MB|GB|TB)?")
_SIZE_BYTES = {
    None: 1, "B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30, "TiB": 1 << 40,
    "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
}  # fmt: skip
_LEAST_DELETIONS = 20
"""A share of a small tree would stop ordinary work: this many deletions are always let through."""


@dataclass(frozen=True, slots=True)
class MaxDeletions:
    """Deletions let through without ``--accept-deletions``: a share or a number; neither: any."""

    percent: float | None = 50.0
    count: int | None = None

    def limit(self, entries: int) -> int | None:
        """The largest harmless number for a tree of ``entries``; None when there is no limit."""
        if self.count is not None:
            return self.count
        if self.percent is None:
            return None
        return max(_LEAST_DELETIONS, int(entries * self.percent / 100))

    def __str__(self) -> str:
        if self.count is not None:
            return str(self.count)
        return "off" if self.percent is None else f"{self.percent:g}%"


@kind(is_list=True)
def patterns(raw: object) -> tuple[str, ...]:
    """Gitignore patterns within the limits that partners hold them to."""
    found = strings(raw)
    if len(found) > PATTERNS_MAX:
        raise BadValue(f"has {len(found)} patterns, the limit is {PATTERNS_MAX}")
    for pattern in found:
        why = why_not_pattern(pattern)
        if why is not None:
            raise BadValue(f"has a pattern that {why}")
    return found


count = whole_number(0, math.inf, "is not a whole number from 0")


@kind(lambda ms: f"{ms}ms")
def duration_ms(raw: object) -> int:
    """Milliseconds of ``200ms``, ``5s``, ``10m``, ``1h``, ``30d``; ``0`` may stand without a unit."""
    if isinstance(raw, str):
        if raw == "0":
            return 0
        found = _DURATION.fullmatch(raw)
        if found is not None:
            return round(float(found[1]) * _DURATION_MS[found[2]])
    raise BadValue("is not a duration such as 200ms, 5s, 10m, 1h or 30d")


def _own_poll(raw: object) -> int:
    if raw == "off":
        return 0
    found = duration_ms(raw)
    if found < POLL_MS_MIN:
        raise BadValue(f'is shorter than {POLL_MS_MIN}ms; use "off" for never')
    return found


POLL_MS_MIN = 100
own_poll = ValueKind(_own_poll, lambda ms: shown_duration(ms) if ms else "off", words=("off",))
"""Milliseconds between two questions to a partner, 0 for ``off``."""


def shown_duration(ms: int) -> str:
    """The shortest exact way to write a duration: ``shown_duration(300_000) == "5m"``."""
    for unit in ("d", "h", "m", "s"):
        if ms and ms % _DURATION_MS[unit] == 0:
            return f"{ms // _DURATION_MS[unit]}{unit}"
    return f"{ms}ms"


def size_bytes(raw: object) -> int:
    """Bytes of ``64KiB``, ``4MiB``, ``1GB`` or a plain number."""
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return raw
    if isinstance(raw, str):
        found = _SIZE.fullmatch(raw)
        if found is not None:
            return int(float(found[1]) * _SIZE_BYTES[found[2]])
    raise BadValue("is not a size such as 64KiB, 4MiB or 1GiB")


def _rate(raw: object) -> int:
    limit = size_bytes(raw.removesuffix("/s") if isinstance(raw, str) else raw)
    if limit < 1024:
        raise BadValue('is under 1KiB a second; use "off" for no limit')
    return limit


rate_limit = off_or(_rate)
"""Bytes a second, or None for ``off``."""


@kind(lambda share: f"{share:g}%")
def percent(raw: object) -> float:
    """``20%`` as 20.0."""
    if isinstance(raw, str) and raw.endswith("%"):
        try:
            value = float(raw[:-1])
        except ValueError:
            value = -1.0
        if 0 <= value <= 100:
            return value
    raise BadValue("is not a share such as 20%")


@kind(lambda limit: str(limit) if limit.count is None else limit.count)
def max_deletions(raw: object) -> MaxDeletions:
    if raw == "off":
        return MaxDeletions(percent=None)
    if isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0:
        return MaxDeletions(percent=None, count=raw)
    try:
        return MaxDeletions(percent=percent(raw))
    except BadValue:
        raise BadValue('is not a share such as 50%, a number, or "off"') from None


def address(raw: object) -> Address:
    """``host:port``; an IPv6 address stands in brackets."""
    text = string(raw)
    found = parse_address(text)
    if found is None and text.count(":") > 1 and "[" not in text:
        raise BadValue("has an IPv6 address without brackets; write [::1]:7443")
    if found is None:
        raise BadValue("is not HOST:PORT such as 10.20.0.1:7443")
    return found


def network(raw: object) -> IpNetwork:
    """A CIDR or a single address: ``10.20.0.0/16``, ``10.20.0.7``, ``fd00::/8``."""
    text = string(raw)
    try:
        return ipaddress.ip_network(text)
    except ValueError as error:
        if "host bits" in str(error):
            wider = ipaddress.ip_network(text, strict=False)
            raise BadValue(f"has host bits set; did you mean {wider}?") from None
        raise BadValue("is not a network such as 10.20.0.0/16 or an address") from None


networks = list_of(network)


def private_file(raw: object) -> Path:
    """A file that holds a secret, and not the secret itself."""
    text = string(raw)
    if "://" in text or text.startswith("sqlite:"):
        raise BadValue(
            "is an address, which can hold a secret; write it into a file of mode 0600 and name that file"
        )
    return absolute_path(raw)


def absolute_path(raw: object) -> Path:
    """An absolute path without ``..``; not resolved, because it may not exist yet."""
    text = string(raw)
    if not text.startswith("/") or ".." in text.split("/"):
        raise BadValue("is not an absolute path without '..'")
    return Path(os.path.normpath(text))


def _relative(raw: object) -> str:
    text = string(raw)
    parts = text.split("/")
    if any(part in ("", ".", "..") for part in parts) or parts[0].lower().startswith(".instep"):
        raise BadValue("is not a path relative to the fileset's root")
    return text


relative_path = ValueKind(lambda raw: os.fsencode(_relative(raw)))
"""A path below a fileset's root."""


@kind(is_list=True)
def relative_paths(raw: object) -> tuple[bytes, ...]:
    """Paths below a fileset's root, none of which lies in another; a trailing slash is allowed."""
    found = tuple(_relative(item.removesuffix("/")) for item in strings(raw))
    if len(found) > PATTERNS_MAX:
        raise BadValue(f"has {len(found)} paths, the limit is {PATTERNS_MAX}")
    for path in found:
        inside = next((other for other in found if path.startswith(f"{other}/")), None)
        if inside is not None:
            raise BadValue(f"has {path}, which lies in {inside}")
    return tuple(map(os.fsencode, dict.fromkeys(found)))


def fingerprint(raw: object) -> str:
    """SHA-256 of a public key as 64 hex digits; colons and a ``sha256:`` prefix are allowed."""
    digits = string(raw).lower().removeprefix("sha256:").replace(":", "")
    if not re.fullmatch(r"[0-9a-f]{64}", digits):
        raise BadValue("is not a fingerprint of 64 hex digits, as `instep node list` shows it")
    return digits


node_name = named(parse_node_name, "is not a node name")
node_names = list_of(node_name)


@kind(is_list=True)
def program(raw: object) -> tuple[str, ...]:
    """A program and its arguments, without a shell."""
    words = strings(raw)
    if not words or not words[0].startswith("/"):
        raise BadValue(
            'is not an argument list that begins with an absolute path, such as ["/usr/local/bin/check"]'
        )
    return words
