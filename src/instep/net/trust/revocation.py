"""The revoked certificates: the union of every list that the cluster's CA signed, however often it was restored from
a backup.

A CA that comes back from a backup signs lists that know nothing of later ones, under numbers that were used. So a node
keeps every list that has something which no other has, newest first, and a revocation never goes away. Names can be
revoked, too, as of a moment: for a node of which a restored CA has no certificate. Implements ``docs/spec/wire.md``,
"Revocation".
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Iterator, Sequence

import msgspec
from cryptography import x509

from instep.errors import InstepError, PeerError
from instep.model.decoding import DECODE_ERRORS
from instep.net.trust.certs import BACKDATE, Purpose, crl_number, name_of, pem_of
from instep.net.trust.decoding import crl_of_pem

LISTS_MAX = 64
NAMES_OID = x509.ObjectIdentifier("2.25.187143095146112.2")
REMOVED_OID = x509.ObjectIdentifier("2.25.187143095146112.3")
_PEM = re.compile(rb"-----BEGIN X509 CRL-----.+?-----END X509 CRL-----\s*", re.DOTALL)
_decode_names = msgspec.msgpack.Decoder(dict[str, int]).decode


class Revoked:
    """The lists, the one with the highest number first; as a whole it reads like one list."""

    def __init__(self, lists: Sequence[x509.CertificateRevocationList]) -> None:
        self.lists = _without_subsets(lists)
        self._newest = self.lists[0]
        self.serials = frozenset(entry.serial_number for each in self.lists for entry in each)
        self.names: dict[str, int] = {}
        """Names whose certificates from before this moment (s since 1970) are revoked."""
        for each in self.lists:
            for name, before_s in _names(each).items():
                self.names[name] = max(before_s, self.names.get(name, 0))
        self.removed: dict[str, int] = {}
        """Those of the names whose nodes were taken out of the cluster, for good."""
        for each in self.lists:
            for name, before_s in _removed(each).items():
                self.removed[name] = max(before_s, self.removed.get(name, 0))

    def __iter__(self) -> Iterator[x509.RevokedCertificate]:
        for each in self.lists:
            yield from each

    @property
    def extensions(self) -> x509.Extensions:
        return self._newest.extensions

    @property
    def last_update_utc(self) -> dt.datetime:
        return max(each.last_update_utc for each in self.lists)

    def covers(self, certificate: x509.Certificate) -> bool:
        """Whether this certificate is revoked, by serial or by name."""
        if certificate.serial_number in self.serials:
            return True
        for purpose in Purpose if self.names else ():
            try:
                before_s = self.names.get(name_of(certificate, purpose))
            except InstepError:
                continue
            return before_s is not None and issued_s(certificate) < before_s
        return False

    def is_signed_by(self, authorities: Sequence[x509.Certificate]) -> bool:
        """Whether each of the lists is one of these authorities'."""
        return all(_is_signed(each, authorities) for each in self.lists)

    def pem(self) -> bytes:
        """All lists; a node that knows of one only takes the first."""
        return b"".join(pem_of(each) for each in self.lists)


def _is_signed(crl: x509.CertificateRevocationList, authorities: Sequence[x509.Certificate]) -> bool:
    for authority in authorities:
        key = authority.public_key()
        try:
            if crl.issuer == authority.subject and crl.is_signature_valid(key):  # type: ignore[arg-type]
                return True
        except TypeError:
            continue
    return False


def issued_s(certificate: x509.Certificate) -> int:
    """When the CA made it, by its own clock."""
    return int((certificate.not_valid_before_utc + BACKDATE).timestamp())


def union_of_pem(raw: bytes) -> Revoked:
    """The lists of a file or a message; ``PeerError`` when there is none, or one cannot be read."""
    found = _PEM.findall(raw)
    if len(found) > LISTS_MAX:
        raise PeerError(f"{len(found)} revocation lists are more than {LISTS_MAX}", code="bad_crl")
    return Revoked([crl_of_pem(each) for each in found] or [crl_of_pem(raw)])


def name_extensions(names: dict[str, int], removed: dict[str, int]) -> list[x509.UnrecognizedExtension]:
    """What a list says of names; nothing where it says nothing."""
    maps = ((NAMES_OID, names), (REMOVED_OID, removed)) if names or removed else ()
    return [
        x509.UnrecognizedExtension(oid, msgspec.msgpack.encode(dict(sorted(each.items()))))
        for oid, each in maps
    ]


def _names(crl: x509.CertificateRevocationList) -> dict[str, int]:
    return _map_of(crl, NAMES_OID) or {}


def _removed(crl: x509.CertificateRevocationList) -> dict[str, int]:
    found = _map_of(crl, REMOVED_OID)
    return _names(crl) if found is None else found


def _map_of(crl: x509.CertificateRevocationList, oid: x509.ObjectIdentifier) -> dict[str, int] | None:
    """What an extension says; nothing where it cannot be read, None where the list lacks it."""
    try:
        value = crl.extensions.get_extension_for_oid(oid).value
        return _decode_names(value.value) if isinstance(value, x509.UnrecognizedExtension) else {}
    except x509.ExtensionNotFound:
        return None
    except (ValueError, *DECODE_ERRORS):
        return {}


def _says(crl: x509.CertificateRevocationList) -> tuple[bytes, frozenset[object]]:
    """The issuer, and all that the list says."""
    said: set[object] = {entry.serial_number for entry in crl}
    said |= {(NAMES_OID, *each) for each in _names(crl).items()}
    said |= {(REMOVED_OID, *each) for each in _removed(crl).items()}
    return crl.issuer.public_bytes(), frozenset(said)


def _without_subsets(
    lists: Sequence[x509.CertificateRevocationList],
) -> tuple[x509.CertificateRevocationList, ...]:
    """The lists that have a revocation which no other has, the highest number first."""
    kept: list[tuple[x509.CertificateRevocationList, tuple[bytes, frozenset[object]]]] = []
    for each in sorted(lists, key=lambda crl: (crl_number(crl), len(list(crl))), reverse=True):
        issuer, said = _says(each)
        if not any(other[0] == issuer and said <= other[1] for _, other in kept):
            kept = [(k, o) for k, o in kept if not (o[0] == issuer and o[1] <= said)] + [
                (each, (issuer, said))
            ]
    return tuple(crl for crl, _ in kept)
