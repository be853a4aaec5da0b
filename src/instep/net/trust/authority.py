"""The cluster's CA certificate: made, renewed under its key, and taken from peers by name and key."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from instep.net.trust.certs import (
    BACKDATE,
    CA_LIFE_S,
    facts_of,
    key_usage,
    moment_of,
    spki_of,
    was_issued_by,
)


def make_ca(cluster: str, key: ec.EllipticCurvePrivateKey, now_ms: int, life_s: float) -> x509.Certificate:
    """The cluster's own authority: P-256, path length 0."""
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "instep"),
            x509.NameAttribute(NameOID.COMMON_NAME, f"{cluster[:48]} cluster CA"),
        ]
    )
    return _authority(
        name, key, moment_of(now_ms) - BACKDATE, moment_of(now_ms) + dt.timedelta(seconds=life_s)
    )


def renewed_ca(
    old: x509.Certificate, key: ec.EllipticCurvePrivateKey, now_ms: int, life_s: float
) -> x509.Certificate:
    """The same authority with a later end: what it signed holds under either. It begins when the old one began, so that
    a clock that was ahead makes none that is not valid yet."""
    end = moment_of(now_ms) + dt.timedelta(seconds=life_s)
    return _authority(old.subject, key, old.not_valid_before_utc, end)


def _is_newer(certificate: x509.Certificate, known: x509.Certificate) -> bool:
    """Whether this is an authority that is known, with a later end: the same name and key, signed by that key."""
    return (
        certificate.subject == known.subject
        and spki_of(certificate.public_key()) == spki_of(known.public_key())
        and certificate.not_valid_after_utc > known.not_valid_after_utc
        and was_issued_by(certificate, [known])
    )


def _authority(
    name: x509.Name, key: ec.EllipticCurvePrivateKey, begin: dt.datetime, end: dt.datetime
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(key_usage(is_ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )


def newest_of(
    known: Sequence[x509.Certificate], offered: Sequence[x509.Certificate]
) -> list[x509.Certificate]:
    """The authorities that are known, each with the latest end that it is offered with."""
    return [max((each for each in offered if _is_newer(each, one)), key=end_of, default=one) for one in known]


def end_of(certificate: x509.Certificate) -> int:
    """Its last moment, in ms since 1970."""
    return facts_of(certificate).not_after_ms


def is_ending(ca: x509.Certificate, now_ms: int) -> bool:
    """Whether less than a third of a CA's life is left: each node asks for certificates in that time, and takes the
    new one along. A CA that another one signed is not renewed here."""
    return ca.issuer == ca.subject and now_ms > end_of(ca) - int(CA_LIFE_S * 1000 / 3)
