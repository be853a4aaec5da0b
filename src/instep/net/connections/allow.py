"""The addresses that may connect at all, decided before TLS. Implements the section "Allow lists" of
``docs/spec/wire.md``."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

LOOPBACK: tuple[Network, ...] = (ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128"))


class AllowList:
    """Address ranges that may connect: exactly those. Only an empty list means loopback (a proxy or tunnel of
    this machine would otherwise open it to every client behind it)."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self.networks: tuple[Network, ...] = tuple(networks)

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
            peer in network for network in self.networks or LOOPBACK if network.version == peer.version
        )
