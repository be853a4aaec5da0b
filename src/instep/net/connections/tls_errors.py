"""Errors of TLS and of sockets as ours, saying which side refused."""

from __future__ import annotations

import socket
import ssl

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
        "on that node: instep allow add CIDR, or instep invite --from ADDRESS",
    ),
    "CERTIFICATE_REVOKED": (
        "refused_by_peer_revoked",
        "the other side refused this node's certificate: revoked",
        "ask for a new token: instep invite NAME, then instep join TOKEN",
    ),
    "CERTIFICATE_EXPIRED": (
        "refused_by_peer_expired",
        "the other side refused this node's certificate: expired",
        "instep pki renew",
    ),
    "UNKNOWN_CA": (
        "refused_by_peer_unknown",
        "the other side refused this node's certificate: it does not know the CA",
        "are both nodes of one cluster? else: instep partner add NAME ADDRESS --pin FINGERPRINT on both",
    ),
    "BAD_CERTIFICATE": (
        "refused_by_peer_certificate",
        "the other side refused this node's certificate",
        "instep pki list; instep check",
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
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotAllowedError(
            f"this node refused the certificate of {address}: {error.verify_message}",
            hint=(
                "compare the clocks of both nodes"
                if "not yet valid" in error.verify_message
                else "instep pki trust fetch shows the key that it presents"
            ),
            code="certificate_refused_here",
            address=address,
            what=doing,
        )
    if isinstance(error, ssl.SSLError):
        reason = error.reason or str(error)
        for alert, (code, text, hint) in _ALERTS.items():
            if alert in reason:
                return NotAllowedError(
                    f"{address}: {text}", hint=hint, code=code, address=address, what=doing
                )
        if "INTERNAL_ERROR" in reason:
            return UnavailableError(
                f"{address} has too many connections or failed", code="peer_full", address=address, what=doing
            )
        if "PROTOCOL_VERSION" in reason or "WRONG_VERSION" in reason or "UNSUPPORTED_PROTOCOL" in reason:
            return PeerError(
                f"{address} does not speak TLS 1.3",
                code="tls_version",
                address=address,
                what=doing,
                why=reason,
            )
        return UnavailableError(
            f"TLS with {address} failed: {reason}", code="tls_failed", address=address, what=doing
        )
    if isinstance(error, (TimeoutError, socket.timeout)):
        return UnavailableError(
            f"{address} did not answer in time", code="timed_out", address=address, what=doing
        )
    if isinstance(error, socket.gaierror):
        return UnavailableError(
            f"{address}: the name is not known here", code="unknown_host", address=address, what=doing
        )
    if isinstance(error, ConnectionRefusedError):
        return UnavailableError(
            f"nothing listens at {address}", code="connection_refused", address=address, what=doing
        )
    if isinstance(error, OSError):
        return UnavailableError(
            f"{address} cannot be reached: {error.strerror or error}", address=address, what=doing
        )
    return UnavailableError(f"{address} failed: {error}", address=address, what=doing)
