"""The commands that bring a link back, by the reason that it is down, with the names of both nodes."""

from __future__ import annotations

from instep.errors import InstepError
from instep.model.ids import NodeName

SILENT = frozenset({"closed", "connection_refused", "timed_out", "unavailable", "unknown_host"})
"""Nothing answers at the address, or no longer."""


def cures_of(error: InstepError, us: NodeName, partner: NodeName) -> tuple[str, ...]:
    """What an operator types about the link from ``us`` to ``partner``; the first one is the likeliest."""
    match error.error_code:
        case code if code in SILENT:
            moved = f"where it has another address now, here: instep node set-address {partner} HOST:PORT"
            return (f"on {partner}: instep start; or, {moved}",)
        case "refused_by_peer_revoked":
            return (f"on the node that holds the CA key: instep invite {us}; then here: instep join TOKEN",)
        case "refused_by_peer_allow":
            return (f"on {partner}: instep invite {us} --from ADDR; or there: instep allow add CIDR",)
        case _:
            return (error.hint,) if error.hint else ()
