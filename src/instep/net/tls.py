"""TLS of peers: contexts that follow the files, and who the other side is.

Implements the section "TLS" of ``docs/spec/wire.md``: version 1.3 only, no resumption, client certificates
asked for and needed everywhere but at ``join``. A change of certificate, trust or revocation list builds *new*
contexts, so nothing that OpenSSL cached can outlive it; open connections are checked again by ``Trust``.
"""

from __future__ import annotations

import datetime as dt
import socket
import ssl
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from instep.errors import ConfigError, InstepError, NotAllowedError, PeerError, UnavailableError
from instep.model.ids import NodeName
from instep.net.certs import (
    CertificateFacts,
    Purpose,
    certificate_of_der,
    certificates_of_pem,
    facts_of,
    name_of,
    pem_of,
    pin_of,
    revoked_serials,
    was_issued_by,
)
from instep.net.pki import Pki

__all__ = [
    "FetchedChain",
    "PeerIdentity",
    "TlsContexts",
    "Trust",
    "alert_of",
    "fingerprint_of",
    "joining_context",
    "split_bundle",
    "translated_tls_error",
    "trust_fetch",
]


@dataclass(frozen=True, slots=True)
class PeerIdentity:
    """Who is at the other end of a connection."""

    name: NodeName
    serial: int
    pin: str
    not_after: dt.datetime


class Trust:
    """Whom this node knows: the cluster's CA with its revocations, and pinned certificates of partners of
    other clusters. A pinned name is never accepted with another certificate, nor the other way round."""

    def __init__(
        self,
        authorities: Sequence[x509.Certificate],
        crl: x509.CertificateRevocationList | None,
        pinned: Mapping[NodeName, x509.Certificate],
    ) -> None:
        self.authorities = tuple(authorities)
        self.crl = crl
        self.pinned = dict(pinned)
        self._revoked = revoked_serials(crl)
        self._pins = {name: pin_of(certificate) for name, certificate in self.pinned.items()}

    def identify(self, der: bytes | None) -> PeerIdentity:
        """The node that presented this certificate (once a connection), or ``NotAllowedError``:
        ``no_certificate``, ``bad_identity``, ``unknown_certificate``, ``certificate_revoked``."""
        if der is None:
            raise NotAllowedError(
                "no client certificate was presented",
                hint="join the cluster first: instep invite NAME on a member, then instep join TOKEN here",
                code="no_certificate",
            )
        certificate = certificate_of_der(der)
        pin = pin_of(certificate)
        if self.pinned:
            for name, pinned_pin in self._pins.items():
                if pinned_pin == pin and self.pinned[name] == certificate:
                    return PeerIdentity(name, -1, pin, certificate.not_valid_after_utc)
        name = name_of(certificate, Purpose.TLS)
        if name in self._pins or not was_issued_by(certificate, self.authorities):
            raise NotAllowedError(
                f"the certificate of {name} is not one that this node knows",
                hint=f"join it to this cluster, or: instep partner add {name} ADDRESS --pin {pin}",
                code="unknown_certificate",
                name=name,
                pin=pin,
            )
        identity = PeerIdentity(name, certificate.serial_number, pin, certificate.not_valid_after_utc)
        self.check(identity)
        return identity

    def check(self, identity: PeerIdentity) -> None:
        """Whether an identity of an open connection is still good; ``NotAllowedError`` when revoked since."""
        if identity.serial in self._revoked:
            raise NotAllowedError(
                f"the certificate of {identity.name} was revoked",
                hint="ask for a new token and join again",
                code="certificate_revoked",
                name=identity.name,
            )

    def is_good(self, identity: PeerIdentity, now: dt.datetime) -> bool:
        """For closing connections that outlived a revocation, an expiry or a pin."""
        if identity.serial in self._revoked or now > identity.not_after:
            return False
        return identity.serial != -1 or self._pins.get(identity.name) == identity.pin


class TlsContexts:
    """The contexts of one node. Take ``server`` and ``client_for`` anew for each connection."""

    def __init__(self, pki: Pki) -> None:
        self._pki = pki
        self.reload()

    def reload(self) -> None:
        """Follow the files of ``pki/``. Raises and keeps the old contexts when they do not fit together."""
        pki = self._pki
        try:
            pinned = pki.pinned()
            trust = Trust(pki.authorities(), pki.crl(), pinned)
            server = self._context(ssl.PROTOCOL_TLS_SERVER, trust, pinned.values())
            server.verify_mode = ssl.CERT_OPTIONAL
            server.num_tickets = 0
            client = self._context(ssl.PROTOCOL_TLS_CLIENT, trust, ())
            pinned_clients = {
                name: self._context(ssl.PROTOCOL_TLS_CLIENT, None, (certificate,))
                for name, certificate in pinned.items()
            }
        except (ssl.SSLError, OSError) as error:
            raise ConfigError(
                f"the certificates in {pki.directory} do not fit together: {error}",
                hint="instep check; instep pki list",
                code="bad_pki",
            ) from error
        self.trust = trust
        self.server = server
        self._client = client
        self._pinned_clients = pinned_clients
        self.name = pki.name

    def client_for(self, name: NodeName) -> ssl.SSLContext:
        """The context for dialling this partner, to be used with ``server_hostname=name``."""
        return self._pinned_clients.get(name, self._client)

    def _context(
        self, protocol: int, trust: Trust | None, exact: Sequence[x509.Certificate] | Any
    ) -> ssl.SSLContext:
        context = _bare_context(protocol)
        context.load_cert_chain(self._pki.certificate_path(), self._pki.key_path())
        exact = list(exact)
        anchors = [*(trust.authorities if trust is not None else ()), *exact]
        context.load_verify_locations(cadata="".join(pem_of(anchor).decode("ascii") for anchor in anchors))
        if exact:
            context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        elif trust is not None and trust.crl is not None and len(trust.authorities) == 1:
            context.load_verify_locations(cafile=self._pki.directory / "crl.pem")
            context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
        return context


class _TellingObject(ssl.SSLObject):
    """Event loops drop the alert that explains a failed handshake; this one hangs it on the exception."""

    outgoing: ssl.MemoryBIO

    def do_handshake(self) -> None:
        try:
            super().do_handshake()
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            raise
        except ssl.SSLError as error:
            error.alert = self.outgoing.read()  # type: ignore[attr-defined]
            raise


class _TellingContext(ssl.SSLContext):
    sslobject_class = _TellingObject

    def wrap_bio(self, incoming: ssl.MemoryBIO, outgoing: ssl.MemoryBIO, *args: Any, **named: Any) -> Any:
        made = super().wrap_bio(incoming, outgoing, *args, **named)
        assert isinstance(made, _TellingObject)
        made.outgoing = outgoing
        return made


def alert_of(error: BaseException) -> bytes:
    """What OpenSSL wanted to tell the peer when a handshake of ours failed."""
    alert = getattr(error, "alert", b"")
    return alert if isinstance(alert, bytes) else b""


def _bare_context(protocol: int) -> ssl.SSLContext:
    context = _TellingContext(protocol)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.options |= ssl.OP_NO_TICKET | ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    return context


def joining_context(authority: x509.Certificate) -> ssl.SSLContext:
    """For a node that has no certificate yet and got the CA's fingerprint in its token."""
    context = _bare_context(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=pem_of(authority).decode("ascii"))
    return context


# Looking at strangers ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class FetchedChain:
    """What a server presented, unverified, its own certificate first."""

    certificates: tuple[x509.Certificate, ...]

    @property
    def fingerprint(self) -> str:
        return fingerprint_of(self.certificates[0])

    @property
    def pin(self) -> str:
        return pin_of(self.certificates[0])

    def facts(self) -> list[CertificateFacts]:
        return [facts_of(certificate) for certificate in self.certificates]

    def pem(self) -> bytes:
        return b"".join(pem_of(certificate) for certificate in self.certificates)


def fingerprint_of(certificate: x509.Certificate) -> str:
    """Hex SHA-256 of the whole certificate."""
    return certificate.fingerprint(hashes.SHA256()).hex()


def trust_fetch(
    host: str, port: int, *, server_name: str | None = None, timeout_s: float = 10.0
) -> FetchedChain:
    """The certificates that a TLS server presents, without believing them (E9): for showing to a person, or
    for comparing with a fingerprint. Blocking."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with (
            socket.create_connection((host, port), timeout=timeout_s) as plain,
            context.wrap_socket(plain, server_hostname=server_name or host) as secure,
        ):
            ders = _presented(secure)
    except (OSError, ValueError) as error:
        raise translated_tls_error(error, f"{host}:{port}", "fetching its certificate") from error
    if not ders:
        raise PeerError(f"{host}:{port} presented no certificate", code="bad_certificate")
    return FetchedChain(tuple(certificate_of_der(der) for der in ders))


def _presented(secure: ssl.SSLSocket) -> list[bytes]:
    """The presented chain; ``get_unverified_chain`` became public in Python 3.13 and is there since 3.10."""
    public = getattr(secure, "get_unverified_chain", None)
    if public is not None:
        return [bytes(der) for der in public()]
    private = getattr(getattr(secure, "_sslobj", None), "get_unverified_chain", None)
    if private is not None:
        chain = private()
        if chain:
            return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]
    leaf = secure.getpeercert(binary_form=True)
    return [leaf] if leaf else []


def split_bundle(raw: bytes) -> list[tuple[x509.Certificate, CertificateFacts]]:
    """The certificates of a PEM bundle, each with what to show of it (E8)."""
    return [(certificate, facts_of(certificate)) for certificate in certificates_of_pem(raw)]


# Errors -----------------------------------------------------------------------------------------------------

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
    if isinstance(error, ssl.SSLCertVerificationError):
        return NotAllowedError(
            f"this node refused the certificate of {address}: {error.verify_message}",
            hint=(
                "compare the clocks of both nodes"
                if "not yet valid" in error.verify_message
                else "instep pki trust fetch shows what it presents"
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
