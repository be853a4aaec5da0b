"""The signer of a record, and whether it may sign. Implements the section "Signatures" of ``docs/spec/wire.md``."""

from __future__ import annotations

import datetime as dt
import functools
import hashlib
import hmac
from collections.abc import Mapping, Sequence

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from instep.errors import NotAllowedError, PeerError
from instep.model.generation import Signature
from instep.model.ids import Digest, NodeName
from instep.net.trust.certs import Purpose, name_of, raw_key_of, spki_of, was_issued_by
from instep.net.trust.decoding import certificate_of_der
from instep.net.trust.revocation import Revoked
from instep.net.trust.validity import minute_of

_CERTIFICATES_KNOWN = 256


def sign(
    key: ed25519.Ed25519PrivateKey, certificate: x509.Certificate, signer: NodeName, record_id: Digest
) -> Signature:
    """A node's signature over a record's id, with its certificate."""
    return Signature(
        signer=signer,
        key=key.public_key().public_bytes_raw(),
        value=key.sign(record_id),
        chain=(certificate.public_bytes(serialization.Encoding.DER),),
    )


def sign_as_ca(
    key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate, signer: NodeName, record_id: Digest
) -> Signature:
    """The cluster CA's signature (ECDSA with SHA-256), which a promotion needs; ``key`` is its public key as
    SubjectPublicKeyInfo, ``signer`` the node where the operator ran it."""
    value = key.sign(record_id, ec.ECDSA(hashes.SHA256()))
    return Signature(signer, spki_of(certificate.public_key()), value, ())


def verify_signature(
    signature: Signature,
    record_id: Digest,
    ca: Sequence[x509.Certificate],
    crl: Revoked | None,
    now_ms: int,
    pinned: Mapping[NodeName, bytes] | None = None,
) -> NodeName:
    """The node that made this signature. It holds when the signing certificate was issued by ``ca``, is valid
    now and not revoked, or when ``pinned`` has the signer's raw key.

    ``PeerError`` ``bad_signature``; ``NotAllowedError`` ``key_changed``, ``signer_unknown``, ``signer_expired``,
    ``signer_early``, ``signer_revoked``.
    """
    signer = signature.signer
    raw = (pinned or {}).get(signer)
    if raw is not None:
        if not hmac.compare_digest(raw, signature.key):
            raise key_changed(signer, raw, signature.key)
    else:
        _check_certificate(signature, ca, crl, now_ms)
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(signature.key).verify(signature.value, record_id)
    except (InvalidSignature, ValueError) as error:
        raise PeerError(
            f"the signature of {signer!r} does not fit its record", code="bad_signature"
        ) from error
    return signer


def _check_certificate(
    signature: Signature,
    ca: Sequence[x509.Certificate],
    crl: Revoked | None,
    now_ms: int,
) -> None:
    signer = signature.signer
    if not signature.chain:
        raise _refused(
            "signer_unknown", signer, "the signature brings no certificate and no key is pinned here"
        )
    certificate, is_ours = _issued(signature.chain[0], tuple(ca))
    if not is_ours:
        raise _refused("signer_unknown", signer, "its certificate is not of this cluster")
    try:
        named = name_of(certificate, Purpose.SIGN)
    except NotAllowedError as error:
        raise _refused("signer_unknown", signer, error.reason) from error
    if named != signer:
        raise _refused("signer_unknown", signer, f"its certificate belongs to {named}")
    if raw_key_of(certificate) != signature.key:
        raise PeerError(
            f"the signature of {signer!r} names a key that is not its certificate's", code="bad_signature"
        )
    if crl is not None and crl.covers(certificate):
        raise _refused("signer_revoked", signer, "its certificate was revoked")
    now = dt.datetime.fromtimestamp(now_ms / 1000, dt.UTC)
    clock = f"the clock here shows {minute_of(now)}: compare the clocks; when they agree, on {signer}: instep pki renew"
    if now < certificate.not_valid_before_utc:
        since = minute_of(certificate.not_valid_before_utc)
        raise _refused("signer_early", signer, f"its certificate is not valid before {since}, and {clock}")
    if now > certificate.not_valid_after_utc:
        until = minute_of(certificate.not_valid_after_utc)
        raise _refused("signer_expired", signer, f"its certificate expired on {until}, and {clock}")


@functools.lru_cache(_CERTIFICATES_KNOWN)
def _issued(der: bytes, ca: tuple[x509.Certificate, ...]) -> tuple[x509.Certificate, bool]:
    """A certificate and whether one of these authorities issued it: the same few come with every record. Validity
    and revocation are for the caller, for they change."""
    certificate = certificate_of_der(der)
    return certificate, was_issued_by(certificate, ca)


def verify_ca_signature(signature: Signature, record_id: Digest, ca: Sequence[x509.Certificate]) -> None:
    """Whether the cluster's CA key made this signature; ``PeerError`` or ``NotAllowedError`` when not."""
    for authority in ca:
        key = authority.public_key()
        is_it = hmac.compare_digest(spki_of(key), signature.key)
        if not is_it or not isinstance(key, ec.EllipticCurvePublicKey):
            continue
        try:
            key.verify(signature.value, record_id, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise PeerError("the CA's signature does not fit its record", code="bad_signature") from error
        return
    raise _refused("signer_unknown", signature.signer, "it is not signed by this cluster's CA")


def key_changed(signer: str, known: bytes, shown: bytes) -> NotAllowedError:
    """The refusal of a record under another key than the one that is known for its signer."""
    pinned, other = (hashlib.sha256(key).hexdigest() for key in (known, shown))
    return NotAllowedError(
        f"{signer} signs with another key than the one that is known here: known {pinned}, shown {other}",
        code="key_changed",
        signer=signer,
        pinned=pinned,
        shown=other,
    )


def _refused(code: str, signer: str, why: str) -> NotAllowedError:
    return NotAllowedError(
        f"the signature of {signer!r} is refused: {why}", code=code, signer=signer, why=why
    )
