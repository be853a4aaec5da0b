"""Where something listens: a host and a port, and which hosts may be written into another program's file."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass

DEFAULT_PORT = 7443
"""Where nodes listen for peers, unless told otherwise."""
_NAME = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
                   r"(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*\.?")  # fmt: skip
_ZONE = re.compile(r"[A-Za-z0-9._-]{1,15}")
_NO_ADDRESS = "is not an address"
_NO_NAME = "is neither a name nor an address"


@dataclass(frozen=True, slots=True)
class Address:
    """A host (name, IPv4 or IPv6 without brackets) and a port, shown as ``host:port`` or ``[v6]:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only programs on the same machine can reach it."""
        if self.host == "localhost" or self.host.endswith(".localhost"):
            return True
        ip = self.ip
        return ip is not None and ip.is_loopback

    @property
    def is_wildcard(self) -> bool:
        """Whether it means every interface and therefore cannot be dialled."""
        ip = self.ip
        return ip is not None and ip.is_unspecified

    @property
    def ip(self) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
        try:
            return ipaddress.ip_address(self.host)
        except ValueError:
            return None


def parse_address(text: str) -> Address | None:
    """``host:port``, an IPv6 address in brackets; None for anything else. A host is a name of the DNS or an address, so
    that no quote, blank or control character of one reaches a file, a log or a terminal."""
    host, colon, port = text.rpartition(":")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        return None
    if not colon or not host or not port.isascii() or not port.isdecimal() or not 0 < int(port) < 65536:
        return None
    bare, percent, zone = host.partition("%")
    if why_not_plain_host(bare) in (_NO_NAME, _NO_ADDRESS) or (percent and not _ZONE.fullmatch(zone)):
        return None
    return Address(host, int(port))


def why_not_plain_host(host: str) -> str | None:
    """Why a host cannot stand in a balancer's file, completing "... because it": anything but a name of the DNS or an
    address without a zone could say more there than where something listens."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        if ":" in host or re.fullmatch(r"[0-9.]+", host):
            return _NO_ADDRESS
        return None if _NAME.fullmatch(host) else _NO_NAME
    if isinstance(ip, ipaddress.IPv6Address) and ip.scope_id is not None:
        return "has a zone, which means something on one machine only"
    if ip.is_multicast:
        return "is a multicast address"
    return None
