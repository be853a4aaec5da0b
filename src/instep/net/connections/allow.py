"""The addresses that may connect at all, decided before TLS. Implements the section "Allow lists" of
``docs/spec/wire.md``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from instep.errors import UsageError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


def network_of(text: str) -> Network:
    """A CIDR or a single address, or ``UsageError``."""
    try:
        return ipaddress.ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not an address range", hint="write 10.20.0.0/16 or 10.20.0.7", code="bad_cidr"
        ) from error


class AllowList:
    """Address ranges that may connect: exactly those. Only an empty list means loopback (a proxy or tunnel of
    this machine would otherwise open it to every client behind it)."""

    def __init__(self, ranges: Iterable[str] = ()) -> None:
        self.networks: tuple[Network, ...] = tuple(network_of(text) for text in ranges)

    def lets(self, address: str) -> bool:
        """Whether a peer's address, as ``accept`` gave it, may connect. An IPv4 address that came through an
        IPv6 socket counts as IPv4; a scope (``%eth0``) is ignored."""
        try:
            peer: Address = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        if isinstance(peer, ipaddress.IPv6Address) and peer.ipv4_mapped is not None:
            peer = peer.ipv4_mapped
        return any(
            peer in network for network in self.networks or _LOOPBACK if network.version == peer.version
        )
