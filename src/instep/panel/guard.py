"""Which requests may be looked at: by the name in ``Host``, and by the page that an unsafe one comes from. Pure.

A name that is not this panel's own is refused, so that no page of a stranger reaches it by a name that resolves to
this machine (DNS rebinding). An unsafe request that signs itself with a cookie must come from a page of this panel: the
algorithm of Go's ``CrossOriginProtection``. A sibling subdomain is ``same-site``, and so is refused too.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from urllib.parse import urlsplit

SAFE = frozenset({"GET", "HEAD", "OPTIONS"})


def host_of(raw: str) -> str | None:
    """The name in a ``Host``, without its port; None where it is none."""
    try:
        parts = urlsplit(f"//{raw}")
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return None
    if parts.hostname is None or parts.netloc != raw or "@" in raw or not raw.isascii():
        return None
    return parts.hostname.rstrip(".").lower()


def is_own_host(raw: str, names: Iterable[str], address: str) -> bool:
    """Whether a ``Host`` names this panel: by one of its names, or by the address that the connection came in at. A
    stranger can rebind a name to this machine, and no address. The port may be the one of a tunnel."""
    host = host_of(raw)
    if host is None:
        return False
    if host in {name.rstrip(".").lower() for name in names}:
        return True
    try:
        return ipaddress.ip_address(host) == ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False


def why_foreign(method: str, headers: Mapping[str, str], scheme: str) -> str | None:
    """Why an unsafe request with a cookie is not of this panel's own pages; None where it is."""
    if method in SAFE:
        return None
    fetched = headers.get("Sec-Fetch-Site")
    if fetched is not None:
        return None if fetched in ("same-origin", "none") else f"Sec-Fetch-Site is {fetched[:20]}"
    origin = headers.get("Origin")
    if origin is None:
        return None if headers.get("Referer") is None else "there is a Referer and no Origin"
    if origin == f"{scheme}://{headers.get('Host', '')}":
        return None
    return "Origin is another site"
