"""Certificates as values: keys, signing requests, issuing, identities, revocation lists.

Implements the section "Certificates" of ``docs/spec/wire.md``. Nothing here reads files or the clock:
``now_ms`` is wall clock, handed in. A node has two certificates of the same CA, which cannot stand in for
each other: one for TLS (ECDSA P-256) and one for signing records (Ed25519).
"""

from __future__ import annotations

import datetime as dt
import enum
import hashlib
import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.types import CertificatePublicKeyTypes
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

from instep.errors import NotAllowedError, PeerError, UsageError
from instep.model.ids import NodeName, node_name
from instep.net.trust.decoding import UNREADABLE
from instep.net.trust.validity import require_current_ca

NODE_LIFE_S = 397 * 86_400
CA_LIFE_S = 3_652 * 86_400
BACKDATE = dt.timedelta(minutes=5)
"""Clocks of a cluster differ; a fresh certificate must not be *not yet valid* next door."""

_SIGN_EKU = ObjectIdentifier("2.25.109486219304275811163914730572913260547")
"""A UUID-derived identifier of our own: no TLS stack takes a certificate with only this usage."""

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey
_X = TypeVar("_X", bound=x509.ExtensionType)


class Purpose(enum.Enum):
    """The purpose of a node's certificate; the value is the word in its SAN URI."""

    TLS = "node"
    SIGN = "sign"

    def uri(self, name: NodeName) -> str:
        return f"instep:{self.value}:{name}"


def make_key(purpose: Purpose) -> PrivateKey:
    return (
        ec.generate_private_key(ec.SECP256R1())
        if purpose is Purpose.TLS
        else ed25519.Ed25519PrivateKey.generate()
    )


def pem_of(thing: x509.Certificate | x509.CertificateRevocationList | PrivateKey) -> bytes:
    """PEM of a certificate or list; of a key, unencrypted PKCS #8: for files of mode 0600 only."""
    if isinstance(thing, (x509.Certificate, x509.CertificateRevocationList)):
        return thing.public_bytes(serialization.Encoding.PEM)
    return thing.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def der_of(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.DER)


def spki_of(key: CertificatePublicKeyTypes) -> bytes:
    """A public key as SubjectPublicKeyInfo."""
    return key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def pin_of_key(key: CertificatePublicKeyTypes) -> str:
    """Hex SHA-256 of the public key as SubjectPublicKeyInfo; survives renewal under the same key."""
    return hashlib.sha256(spki_of(key)).hexdigest()


def pin_of(certificate: x509.Certificate) -> str:
    return pin_of_key(certificate.public_key())


def fingerprint_bytes(certificate: x509.Certificate) -> bytes:
    """SHA-256 of the whole certificate; of the CA's, what a token carries."""
    return certificate.fingerprint(hashes.SHA256())


def raw_key_of(certificate: x509.Certificate) -> bytes:
    """The 32 bytes of the Ed25519 key of a signing certificate, or ``PeerError``."""
    return raw_of_key(certificate.public_key())


def raw_of_key(key: CertificatePublicKeyTypes) -> bytes:
    """The 32 bytes of an Ed25519 key, or ``PeerError``."""
    if not isinstance(key, ed25519.Ed25519PublicKey):
        raise PeerError("a signing certificate must hold an Ed25519 key", code="bad_certificate")
    return key.public_bytes_raw()


# Reading ----------------------------------------------------------------------------------------------------


def was_issued_by(certificate: x509.Certificate, authorities: Iterable[x509.Certificate]) -> bool:
    """Whether one of these authorities signed this certificate, and may."""
    for authority in authorities:
        try:
            certificate.verify_directly_issued_by(authority)
            if authority.extensions.get_extension_for_class(x509.BasicConstraints).value.ca:
                return True
        except (*UNREADABLE, InvalidSignature):
            continue
    return False


def name_of(certificate: x509.Certificate, purpose: Purpose) -> NodeName:
    """The node that this certificate is for, exactly: one URI ``instep:node:NAME`` (or ``instep:sign:NAME``),
    for TLS also exactly one DNS name, the same; the usage of this purpose and no other.
    ``NotAllowedError`` with code ``bad_identity`` otherwise."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = set(certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value)
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
        dns = names.get_values_for_type(x509.DNSName)
    except UNREADABLE as error:
        raise _bad_identity(f"it is not a node's certificate ({error})") from error
    if constraints.ca:
        raise _bad_identity("it is an authority's certificate")
    prefix = f"instep:{purpose.value}:"
    if len(uris) != 1 or not uris[0].startswith(prefix) or len(list(names)) != 1 + len(dns):
        raise _bad_identity(f"it does not name exactly one {prefix}NAME")
    text = uris[0].removeprefix(prefix)
    if purpose is Purpose.TLS:
        if dns != [text]:
            raise _bad_identity("its DNS name and its node name differ")
        wanted = {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH}
    else:
        if dns:
            raise _bad_identity("a signing certificate has no DNS name")
        wanted = {_SIGN_EKU}
    if usages != wanted:
        raise _bad_identity(f"its usage does not fit a {purpose.value} certificate")
    try:
        return node_name(text)
    except UsageError as error:
        raise _bad_identity(error.reason) from error


def _bad_identity(why: str) -> NotAllowedError:
    return NotAllowedError(f"the certificate was refused: {why}", code="bad_identity", why=why)


@dataclass(frozen=True, slots=True)
class CertificateFacts:
    """What ``pki list`` and ``trust import`` show."""

    subject: str
    names: tuple[str, ...]
    pin: str
    fingerprint: str
    serial: str
    not_before_ms: int
    not_after_ms: int
    is_ca: bool


def facts_of(certificate: x509.Certificate) -> CertificateFacts:
    alternative = _extension(certificate, x509.SubjectAlternativeName)
    constraints = _extension(certificate, x509.BasicConstraints)
    return CertificateFacts(
        subject=certificate.subject.rfc4514_string(),
        names=() if alternative is None else tuple(str(name.value) for name in alternative),
        pin=pin_of(certificate),
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
        serial=format(certificate.serial_number, "x"),
        not_before_ms=_ms(certificate.not_valid_before_utc),
        not_after_ms=_ms(certificate.not_valid_after_utc),
        is_ca=constraints is not None and constraints.ca,
    )


def _extension(of: x509.Certificate | SomeRevocations, kind: type[_X]) -> _X | None:
    try:
        return of.extensions.get_extension_for_class(kind).value
    except UNREADABLE:
        return None


# Requests and issuing ---------------------------------------------------------------------------------------


def make_request(key: PrivateKey, name: NodeName, purpose: Purpose) -> bytes:
    """A signing request, DER; its signature proves possession of the key."""
    builder = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(_subject(name))
        .add_extension(_names(name, purpose), critical=False)
    )
    return builder.sign(key, _algorithm(key)).public_bytes(serialization.Encoding.DER)


def name_in_request(raw: bytes) -> NodeName:
    """The name that a TLS signing request asks for; ``check_request`` looks at the rest of it. ``PeerError``."""
    try:
        names = (
            x509.load_der_x509_csr(raw).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        )
        (name,) = names.get_values_for_type(x509.DNSName)
        return node_name(name)
    except (*UNREADABLE, UsageError) as error:
        raise PeerError(f"signing request cannot be decoded: {error}", code="bad_request") from error


def check_request(raw: bytes, name: NodeName, purpose: Purpose) -> PublicKey:
    """The key of a request that is for this node and purpose and proves possession, else ``PeerError``."""
    try:
        request = x509.load_der_x509_csr(raw)
        is_proven = request.is_signature_valid
        names = request.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        key = request.public_key()
    except UNREADABLE as error:
        raise PeerError(f"signing request cannot be decoded: {error}", code="bad_request") from error
    if not is_proven:
        raise PeerError("the signing request does not prove possession of its key", code="bad_request")
    if names != _names(name, purpose):
        raise PeerError(f"the signing request is not for {purpose.uri(name)}", code="bad_request", name=name)
    if (
        purpose is Purpose.TLS
        and isinstance(key, ec.EllipticCurvePublicKey)
        and key.curve.name == "secp256r1"
    ):
        return key
    if purpose is Purpose.SIGN and isinstance(key, ed25519.Ed25519PublicKey):
        return key
    raise PeerError("the signing request has a key of the wrong kind", code="bad_request")


def issue(
    ca: x509.Certificate,
    ca_key: PrivateKey,
    key: PublicKey,
    name: NodeName,
    purpose: Purpose,
    now_ms: int,
    life_s: float = NODE_LIFE_S,
) -> x509.Certificate:
    """A certificate for this node, never outliving the authority."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        pass
    else:
        raise UsageError(f"{name} is an address, not a node name", code="bad_node_name", name=name)
    now = moment_of(now_ms)
    require_current_ca(ca, now)
    usages = (
        [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
        if purpose is Purpose.TLS
        else [_SIGN_EKU]
    )
    return (
        x509.CertificateBuilder()
        .subject_name(_subject(name))
        .issuer_name(ca.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(max(now - BACKDATE, ca.not_valid_before_utc))
        .not_valid_after(min(now + dt.timedelta(seconds=life_s), ca.not_valid_after_utc))
        .add_extension(_names(name, purpose), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=purpose is Purpose.SIGN)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(_authority_id(ca), critical=False)
        .sign(ca_key, _algorithm(ca_key))
    )


def make_crl(
    ca: x509.Certificate,
    ca_key: PrivateKey,
    serials: Sequence[int],
    now_ms: int,
    previous: SomeRevocations | None = None,
    names: Sequence[x509.UnrecognizedExtension] = (),
) -> x509.CertificateRevocationList:
    """The list of revoked serials. It is valid as long as the CA, so that a CA that is switched off stops
    no node; newer lists win by their number and their strictly later time."""
    at = moment_of(now_ms) - BACKDATE
    number = 1
    if previous is not None:
        number = crl_number(previous) + 1
        at = max(at, previous.last_update_utc + dt.timedelta(seconds=1))
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.subject)
        .last_update(at)
        .next_update(max(ca.not_valid_after_utc, at + dt.timedelta(seconds=1)))
        .add_extension(x509.CRLNumber(number), critical=False)
        .add_extension(_authority_id(ca), critical=False)
    )
    for extension in names:
        builder = builder.add_extension(extension, critical=False)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(at).build()
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(ca_key, _algorithm(ca_key))


class SomeRevocations(Protocol):
    """A revocation list, or the union of several."""

    def __iter__(self) -> Iterator[x509.RevokedCertificate]: ...

    @property
    def extensions(self) -> x509.Extensions: ...

    @property
    def last_update_utc(self) -> dt.datetime: ...


def crl_number(crl: SomeRevocations) -> int:
    number = _extension(crl, x509.CRLNumber)
    return 0 if number is None else number.crl_number


def _authority_id(ca: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    subject = _extension(ca, x509.SubjectKeyIdentifier)
    if subject is None:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(ca.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(subject)


def _subject(name: NodeName) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _names(name: NodeName, purpose: Purpose) -> x509.SubjectAlternativeName:
    uri = x509.UniformResourceIdentifier(purpose.uri(name))
    return x509.SubjectAlternativeName([x509.DNSName(name), uri] if purpose is Purpose.TLS else [uri])


def key_usage(*, is_ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=is_ca,
        crl_sign=is_ca,
        encipher_only=False,
        decipher_only=False,
    )


def _algorithm(key: PrivateKey) -> hashes.SHA256 | None:
    return None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()


def moment_of(now_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC).replace(microsecond=0)


def _ms(moment: dt.datetime) -> int:
    return int(moment.timestamp() * 1000)
