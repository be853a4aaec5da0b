"""The commands that bring a link back, by the reason that it is down, with the names of both nodes."""

from __future__ import annotations

from instep.errors import InstepError
from instep.model.ids import NodeName

SILENT = frozenset(
    {"closed", "connection_refused", "stream_broken", "timed_out", "unavailable", "unknown_host"}
)
"""Nothing answers at the address, or no longer."""


def cures_of(error: InstepError, us: NodeName, partner: NodeName) -> tuple[str, ...]:
    """What an operator types about the link from ``us`` to ``partner``; the first one is the likeliest."""
    moved = f"where it has another address now, here: instep node set-address {partner} HOST:PORT"
    match error.error_code:
        case code if code in SILENT:
            return (f"on {partner}: instep start; or, {moved}",)
        case "bad_answer" | "connection_cut" | "stream_refused" | "tls_failed" | "tls_version":
            return (f"another program may listen there; on {partner}: instep status; or, {moved}",)
        case "refused_by_peer_revoked":
            return (f"on the node that holds the CA key: instep invite {us}; then here: instep join TOKEN",)
        case "refused_by_peer_allow":
            return (f"on {partner}: instep invite {us} --from ADDR; or there: instep allow add CIDR",)
        case _:
            return (error.hint,) if error.hint else ()
