"""The node behind a certificate of another CA: a voucher says whose key it is, and is signed by the node's own TLS key.

Implements "Certificates of another CA" of ``docs/spec/wire.md``. The CA of a shown certificate is trusted by no node:
what it says of names counts for nothing here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID, ObjectIdentifier

from instep.errors import ConfigError, InstepError, PeerError
from instep.model.ids import NodeName
from instep.net.trust.certs import BACKDATE, Purpose, key_usage, moment_of, name_of, spki_of
from instep.net.trust.decoding import UNREADABLE, certificate_of_der
from instep.net.trust.validity import minute_of

CHAIN_MAX = 10
"""Certificates of a presented chain that are looked at."""
VOUCHER_LIFE = dt.timedelta(days=30)
"""Short: a thief of the key of a shown certificate can use a voucher for it no longer than that."""
_EKU = ObjectIdentifier("2.25.109486219304275811163914730572913260548")


@dataclass(frozen=True, slots=True)
class Proven:
    """What a presented chain proves: the node's own certificate with what follows it, and the certificates before it
    that have to be current, too. Whether the own certificate counts is for ``Trust`` to say."""

    chain: tuple[x509.Certificate, ...]
    beside: tuple[x509.Certificate, ...] = ()

    @property
    def own(self) -> x509.Certificate:
        return self.chain[0]

    @property
    def not_before(self) -> dt.datetime:
        return max(one.not_valid_before_utc for one in (self.own, *self.beside))

    @property
    def not_after(self) -> dt.datetime:
        return min(one.not_valid_after_utc for one in (self.own, *self.beside))


def proven_by(presented: Sequence[bytes]) -> Proven:
    """The node's own certificate in a chain whose first key was proven in the handshake. A chain in which no node
    stands for that key comes back as it is: its first certificate is then no node's. ``PeerError``
    ``bad_certificate``, ``voucher_too_long``."""
    first = certificate_of_der(presented[0])
    if _is_of_node(first) or len(presented) == 1:
        return Proven((first, *map(certificate_of_der, presented[1:CHAIN_MAX])))
    return proven_of([first, *map(certificate_of_der, presented[1:CHAIN_MAX])])


def proven_of(presented: Sequence[x509.Certificate]) -> Proven:
    """The same of certificates that are read. ``PeerError`` ``voucher_too_long``."""
    first, *others = presented
    if not _is_of_node(first):
        for at, own in enumerate(others):
            if not _is_of_node(own):
                continue
            if spki_of(own.public_key()) == spki_of(first.public_key()):
                return Proven(tuple(others[at:]), (first,))
            for voucher in others:
                if _vouches(voucher, own, first):
                    _require_short(voucher, own)
                    return Proven(tuple(others[at:]), (first, voucher))
    return Proven(tuple(presented))


def make_voucher(
    key: ec.EllipticCurvePrivateKey, own: x509.Certificate, shown: x509.Certificate, now_ms: int
) -> x509.Certificate:
    """The node's word, by its own TLS key, that it holds the key of the shown certificate. ``ConfigError``
    ``certificate_ended`` where one of both is over, or not begun."""
    now, name = moment_of(now_ms), name_of(own, Purpose.TLS)
    begin = max(now - BACKDATE, own.not_valid_before_utc, shown.not_valid_before_utc)
    end = min(now + VOUCHER_LIFE, own.not_valid_after_utc, shown.not_valid_after_utc)
    if end <= begin:
        raise ConfigError(
            f"the certificate of {name} vouches for no other one: they hold until {minute_of(end)}, "
            f"and the clock here shows {minute_of(now)}",
            hint="compare date -u with the partners; when the clock here is right: instep pki renew",
            code="certificate_ended",
        )
    public = shown.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"shown by {name}"[:64])]))
        .issuer_name(own.subject)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(begin)
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([_uri(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(key_usage(is_ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([_EKU]), critical=True)
        .add_extension(_id_of(own), critical=False)
        .sign(key, hashes.SHA256())
    )


def is_fresh(voucher: x509.Certificate, now_ms: int) -> bool:
    """Whether a voucher of this node's is in the first half of its life."""
    now, begin = moment_of(now_ms), voucher.not_valid_before_utc
    return begin <= now < begin + (voucher.not_valid_after_utc - begin) / 2


def vouches(voucher: x509.Certificate, own: x509.Certificate, shown: x509.Certificate) -> bool:
    """Whether the node of ``own`` says by this voucher that the key of ``shown`` is its; times are not looked at."""
    return _is_of_node(own) and _vouches(voucher, own, shown)


def _vouches(voucher: x509.Certificate, own: x509.Certificate, shown: x509.Certificate) -> bool:
    try:
        extensions = voucher.extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        usages = extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        by = extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value
        is_ca = extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        if (
            list(names) != [_uri(name_of(own, Purpose.TLS))]
            or list(usages) != [_EKU]
            or by != _id_of(own)
            or is_ca
            or spki_of(voucher.public_key()) != spki_of(shown.public_key())
        ):
            return False
        voucher.verify_directly_issued_by(own)
    except (*UNREADABLE, InvalidSignature):
        return False
    return True


def _require_short(voucher: x509.Certificate, own: x509.Certificate) -> None:
    """Its life alone is looked at, so no clock that differs refuses a voucher that ``make_voucher`` made."""
    life = voucher.not_valid_after_utc - voucher.not_valid_before_utc
    if life > VOUCHER_LIFE + BACKDATE:
        raise PeerError(
            f"the voucher of {name_of(own, Purpose.TLS)} for another certificate holds {life.days} days, "
            f"more than {VOUCHER_LIFE.days}",
            hint="on that node: instep pki use --cluster",
            code="voucher_too_long",
        )


def _is_of_node(certificate: x509.Certificate) -> bool:
    try:
        name_of(certificate, Purpose.TLS)
    except InstepError:
        return False
    return True


def _uri(name: NodeName) -> x509.UniformResourceIdentifier:
    return x509.UniformResourceIdentifier(f"instep:shown:{name}")


def _id_of(own: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    """The own certificate itself, not only its key: its vouchers end with it."""
    digest = x509.SubjectKeyIdentifier.from_public_key(own.public_key()).digest
    return x509.AuthorityKeyIdentifier(digest, [x509.DirectoryName(own.issuer)], own.serial_number)
