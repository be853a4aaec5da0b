"""Certificates and revocation lists out of bytes that others wrote: read through at once, so that nothing that is
taken here fails later, where no error is expected.

The library reads most parts of a certificate only when they are asked for, and OpenSSL, which does the handshakes, has
a reader of its own that takes less.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from instep.errors import PeerError

UNREADABLE = (
    TypeError,
    ValueError,
    UnsupportedAlgorithm,
    x509.InvalidVersion,
    x509.ExtensionNotFound,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
)
"""All that the library raises about a certificate, a request or a list that is not as it should be."""


def certificate_of_der(raw: bytes) -> x509.Certificate:
    try:
        return _read_through(x509.load_der_x509_certificate(raw))
    except UNREADABLE as error:
        raise PeerError(f"certificate cannot be decoded: {error}", code="bad_certificate") from error


def certificates_of_pem(raw: bytes) -> list[x509.Certificate]:
    """All certificates of a bundle, in order; text between them is ignored."""
    try:
        return [_read_through(each) for each in x509.load_pem_x509_certificates(raw)]
    except UNREADABLE as error:
        raise PeerError(f"no certificates in this PEM: {error}", code="bad_certificate") from error


def _read_through(certificate: x509.Certificate) -> x509.Certificate:
    """The same, unless a part that every certificate has cannot be read. Extensions are for those who need one."""
    certificate.public_key()
    _ = (certificate.subject, certificate.issuer, certificate.serial_number)
    _ = (certificate.not_valid_before_utc, certificate.not_valid_after_utc)
    return certificate


def crl_of_pem(raw: bytes) -> x509.CertificateRevocationList:
    try:
        found = x509.load_pem_x509_crl(raw)
        _ = (found.issuer, found.last_update_utc, found.extensions, [each.serial_number for each in found])
        return found
    except UNREADABLE as error:
        raise PeerError(f"revocation list cannot be decoded: {error}", code="bad_crl") from error


def require_loadable(certificates: Iterable[x509.Certificate]) -> None:
    """``PeerError`` ``bad_certificate`` for one that OpenSSL cannot load: among the trusted ones it would keep this
    node from every handshake."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    for certificate in certificates:
        pem = certificate.public_bytes(serialization.Encoding.PEM).decode("ascii")
        try:
            context.load_verify_locations(cadata=pem)
        except ssl.SSLError as error:
            raise PeerError(
                f"OpenSSL cannot load the certificate with the serial number {certificate.serial_number:x}",
                hint="on the node whose certificate it is: instep pki renew",
                code="bad_certificate",
            ) from error
