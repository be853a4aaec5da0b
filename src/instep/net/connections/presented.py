"""The certificates that the other side of a TLS connection presents, and a look at those of a stranger."""

from __future__ import annotations

import socket
import ssl
from dataclasses import dataclass

from cryptography import x509

from instep.errors import PeerError
from instep.net.connections.tls_errors import translated_tls_error
from instep.net.trust.certs import CertificateFacts, facts_of, pem_of, pin_of
from instep.net.trust.decoding import certificate_of_der
from instep.net.trust.vouching import proven_of


@dataclass(frozen=True, slots=True)
class FetchedChain:
    """A server's chain, unverified, its own certificate first."""

    certificates: tuple[x509.Certificate, ...]

    @property
    def own(self) -> tuple[x509.Certificate, ...]:
        """The node's own certificate and what follows it, behind one of another CA that it shows."""
        return proven_of(self.certificates).chain

    @property
    def pin(self) -> str:
        return pin_of(self.own[0])

    def facts(self) -> list[CertificateFacts]:
        return [facts_of(certificate) for certificate in self.certificates]

    def pem(self) -> bytes:
        return b"".join(pem_of(certificate) for certificate in self.certificates)


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
            ders = presented(secure)
    except (OSError, ValueError) as error:
        raise translated_tls_error(error, f"{host}:{port}", "fetching its certificate") from error
    if not ders:
        raise PeerError(f"{host}:{port} presented no certificate", code="bad_certificate")
    return FetchedChain(tuple(certificate_of_der(der) for der in ders))


def presented(secure: ssl.SSLSocket | ssl.SSLObject) -> list[bytes]:
    """The presented chain; ``get_unverified_chain`` became public in Python 3.13 and is there since 3.10."""
    leaf = secure.getpeercert(binary_form=True)
    if leaf is None:
        return []
    public = getattr(secure, "get_unverified_chain", None)
    if public is not None:
        return [bytes(der) for der in public()]
    private = getattr(getattr(secure, "_sslobj", None), "get_unverified_chain", None)
    if private is not None:
        chain = private()
        if chain:
            return [ssl.PEM_cert_to_DER_cert(certificate.public_bytes()) for certificate in chain]
    return [leaf]
