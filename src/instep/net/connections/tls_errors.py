"""Errors of TLS and of sockets as ours, saying which side refused."""

from __future__ import annotations

import socket
import ssl
from typing import Any

from instep.errors import InstepError, NotAllowedError, PeerError, UnavailableError


class RefusedPeer(ssl.SSLCertVerificationError):
    """A handshake that OpenSSL would accept, and this node does not."""

    def __init__(self, refusal: InstepError) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


_ALERTS = {
    "ACCESS_DENIED": (
        "refused_by_peer_allow",
        "the other side refused this address (its allow list)",
        "on that node: instep allow add CIDR, or: instep invite NAME --from ADDR",
    ),
    "CERTIFICATE_REVOKED": (
        "refused_by_peer_revoked",
        "the other side refused this node's certificate: revoked",
        "on the node that holds the CA key: instep invite NAME; here: instep join TOKEN",
    ),
    "CERTIFICATE_EXPIRED": (
        "refused_by_peer_expired",
        "the other side refused this node's certificate: expired",
        "compare the clocks (date -u) of both nodes; when they agree: instep pki renew",
    ),
    "UNKNOWN_CA": (
        "refused_by_peer_unknown",
        "the other side refused this node's certificate: it does not know the CA",
        "are both nodes of one cluster? else, on both: instep partner add NAME ADDRESS --pin FINGERPRINT",
    ),
    "BAD_CERTIFICATE": (
        "refused_by_peer_certificate",
        "the other side refused this node's certificate",
        "compare the clocks (date -u) of both nodes; when they agree: instep check",
    ),
    "CERTIFICATE_REQUIRED": (
        "refused_by_peer_no_certificate",
        "the other side wants a certificate",
        "instep join TOKEN",
    ),
}


def translated_tls_error(error: BaseException, address: str, doing: str) -> InstepError:
    """An error of ``ssl`` or of a socket as one of ours, saying which side refused."""
    if isinstance(error, RefusedPeer):
        return error.refusal
    at: dict[str, Any] = {"address": address, "what": doing}
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotAllowedError(
            f"this node refused the certificate of {address}: {error.verify_message}",
            hint=f"see the key that it presents: instep pki trust fetch {address}",
            code="certificate_refused_here",
            **at,
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        for alert, (code, text, hint) in _ALERTS.items():
            if alert in reason:
                return NotAllowedError(f"{address}: {text}", hint=hint, code=code, **at)
        if "INTERNAL_ERROR" in reason:
            return UnavailableError(f"{address} has too many connections or failed", code="peer_full", **at)
        if any(each in reason for each in ("PROTOCOL_VERSION", "WRONG_VERSION", "UNSUPPORTED_PROTOCOL")):
            return PeerError(f"{address} does not speak TLS 1.3", code="tls_version", why=reason, **at)
        return UnavailableError(f"no TLS connection with {address}", code="tls_failed", why=reason, **at)
    if isinstance(error, TimeoutError):
        return UnavailableError(f"{address} did not answer in time", code="timed_out", **at)
    if isinstance(error, socket.gaierror):
        return UnavailableError(f"{address}: the name is not known here", code="unknown_host", **at)
    if isinstance(error, ConnectionRefusedError):
        return UnavailableError(f"nothing listens at {address}", code="connection_refused", **at)
    if isinstance(error, OSError) and not isinstance(error, ConnectionError) and error.strerror:
        return UnavailableError(f"{address} cannot be reached: {error.strerror}", **at)
    return UnavailableError(f"{address} cut the connection", code="connection_cut", why=str(error), **at)
