"""Certificates that are not as they should be, and those of another CA."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from instep.net.trust.certs import Purpose, der_of, moment_of, pem_of
from instep.net.trust.pki import Pki

AnyKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
DAY_MS = 86_400_000


def unloadable(pki: Pki) -> x509.Certificate:
    """A node's TLS certificate with the types of its names changed: the library reads it, and OpenSSL does not."""
    der = der_of(pki.certificate(Purpose.TLS))
    return x509.load_der_x509_certificate(der.replace(b"\x55\x04\x03\x0c", b"\x55\x04\x03\x17"))


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def pem_of_key(key: AnyKey, passphrase: bytes | None = None) -> bytes:
    sealed = serialization.BestAvailableEncryption(passphrase) if passphrase else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, sealed)


class OtherAuthority:
    """A CA that no node trusts: a root, and an issuer below it that signs for every server."""

    def __init__(self, now_ms: int) -> None:
        self._now_ms = now_ms
        root_key, self.key = new_key(), new_key()
        self.root = self._signed("Root", root_key, "Root", root_key, is_ca=True)
        self.issuer = self._signed("Issuer", self.key, "Root", root_key, is_ca=True)

    def bundle(self, leaf: x509.Certificate, key: AnyKey | None = None) -> bytes:
        """A file as such CAs send it: the certificate, its issuers, and the key where it is asked for."""
        chain = b"".join(map(pem_of, (leaf, self.issuer, self.root)))
        return chain if key is None else chain + pem_of_key(key)

    def issue(
        self,
        names: Sequence[str],
        key: AnyKey,
        *,
        days: tuple[float, float] = (-1, 365),
        usages: Sequence[ObjectIdentifier] = (ExtendedKeyUsageOID.SERVER_AUTH,),
        is_ca: bool = False,
    ) -> x509.Certificate:
        return self._signed(names[0], key, "Issuer", self.key, names, days=days, usages=usages, is_ca=is_ca)

    def _signed(
        self,
        subject: str,
        key: AnyKey,
        issuer: str,
        issuer_key: ec.EllipticCurvePrivateKey,
        names: Sequence[str] = (),
        *,
        is_ca: bool,
        days: tuple[float, float] = (-2, 3_650),
        usages: Sequence[ObjectIdentifier] = (),
    ) -> x509.Certificate:
        now = moment_of(self._now_ms)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
            .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + dt.timedelta(days=days[0]))
            .not_valid_after(now + dt.timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        )
        if names:
            listed: list[x509.GeneralName] = [
                x509.UniformResourceIdentifier(one) if one.startswith("instep:") else x509.DNSName(one)
                for one in names
            ]
            builder = builder.add_extension(x509.SubjectAlternativeName(listed), critical=False)
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage(list(usages)), critical=False)
        return builder.sign(issuer_key, hashes.SHA256())
