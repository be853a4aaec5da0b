"""Certificates that are not as they should be."""

from __future__ import annotations

from cryptography import x509

from instep.net.trust.certs import Purpose, der_of
from instep.net.trust.pki import Pki


def unloadable(pki: Pki) -> x509.Certificate:
    """A node's TLS certificate with the types of its names changed: the library reads it, and OpenSSL does not."""
    der = der_of(pki.certificate(Purpose.TLS))
    return x509.load_der_x509_certificate(der.replace(b"\x55\x04\x03\x0c", b"\x55\x04\x03\x17"))
