"""A file with a certificate of another CA, as ``pki use`` takes it: read and checked before anything is changed.

Implements the checks of "Certificates of another CA" in ``docs/spec/wire.md``; each has a code of its own.
"""

from __future__ import annotations

import ipaddress
import os
import re
import select
import shlex
import ssl
import time
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID

from instep.errors import ConfigError, PeerError, RefusedError, ResourceError, UsageError
from instep.net.trust.certs import facts_of, pin_of_key, spki_of, was_issued_by
from instep.net.trust.decoding import UNREADABLE, certificates_of_pem
from instep.net.trust.shown import ShownChain
from instep.net.trust.validity import minute_at
from instep.net.trust.vouching import CHAIN_MAX

BYTES_MAX = 1 << 20
_ROOM = CHAIN_MAX - 3
"""Certificates of another CA in a chain, beside which voucher, own certificate and the cluster's CA find room."""
_RSA_BITS_MIN = 2048
_PIPE_S = 10.0
"""So long it may take until all of a pipe was read: a named one may have no writer."""
_KEY = re.compile(rb"-----BEGIN ([A-Z0-9 ]*PRIVATE KEY)-----.+?-----END \1-----\s*", re.DOTALL)
_ShownKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


def read_shown(
    file: Path, key_file: Path | None, passphrase: bytes | None, own: x509.Certificate
) -> ShownChain:
    """The certificate of a PEM file with its issuers in order, and its key: from that file, from ``key_file``, or none
    where it is the node's own. What else the file holds is left out."""
    raw = _bytes_of(file)
    try:
        certificates = certificates_of_pem(raw)
    except PeerError as error:
        raise ConfigError(
            f"{file} holds no certificate in PEM: {error.reason}",
            hint="name the file that the CA sent, in PEM; of PKCS #12: openssl pkcs12 -in FILE -out NEW.pem",
            code="bad_certificate",
        ) from error
    chain = _ordered(file, certificates)
    found = _KEY.search(raw if key_file is None else _bytes_of(key_file))
    leaf = chain[0]
    if found is None:
        if key_file is not None:
            raise ConfigError(f"{key_file} holds no private key in PEM", hint=_key_hint(file), code="bad_key")
        if spki_of(leaf.public_key()) != spki_of(own.public_key()):
            raise ConfigError(
                f"{file} holds no private key, and its certificate is for another key than this node's",
                hint=f"instep pki use {shlex.quote(str(file))} --key KEYFILE",
                code="key_missing",
                shown=pin_of_key(leaf.public_key()),
            )
        return ShownChain(chain)
    key = _key_of(key_file or file, found.group(), passphrase, file)
    if spki_of(key.public_key()) != spki_of(leaf.public_key()):
        raise ConfigError(
            f"the key in {key_file or file} is not the key of the certificate of {names_in(leaf)}",
            hint=_key_hint(file),
            code="key_mismatch",
            certificate=pin_of_key(leaf.public_key()),
            key=pin_of_key(key.public_key()),
        )
    if spki_of(leaf.public_key()) == spki_of(own.public_key()):
        return ShownChain(chain)
    return ShownChain(
        chain,
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def require_usable(chain: ShownChain, hosts: Iterable[str], now_ms: int) -> None:
    """Refuse a certificate that programs which check it would refuse, at the first fault."""
    leaf, facts = chain.leaf, facts_of(chain.leaf)
    if facts.is_ca:
        raise RefusedError(
            f"the first certificate ({facts.subject}) is an authority's, and not a server's",
            hint="put the server's own certificate first in the file",
            code="is_authority",
        )
    _require_strong(leaf)
    why = _why_no_server(leaf)
    if why is not None:
        raise RefusedError(
            f"the certificate of {names_in(leaf)} is not for servers: {why}",
            hint="ask its CA for one with the usage serverAuth",
            code="wrong_usage",
        )
    wanted = [host for host in dict.fromkeys(hosts) if host]
    if not any(_names_host(leaf, host) for host in wanted):
        raise RefusedError(
            f"the certificate names {names_in(leaf)}, and this node is {', '.join(wanted)}",
            hint="ask its CA for one with such a subjectAltName; or, when another name leads here: "
            "instep pki use FILE --host HOST",
            code="wrong_host",
            names=list(facts.names),
            hosts=wanted,
        )
    if not facts.not_before_ms <= now_ms <= facts.not_after_ms:
        is_over = now_ms > facts.not_after_ms
        state = (
            f"expired on {minute_at(facts.not_after_ms)}"
            if is_over
            else f"is not valid before {minute_at(facts.not_before_ms)}"
        )
        raise RefusedError(
            f"the certificate of {names_in(leaf)} {state}, and the clock here shows {minute_at(now_ms)}",
            hint="compare date -u with other machines; when it is right, ask the CA for a new certificate",
            code="certificate_expired" if is_over else "certificate_early",
        )


def missing_issuer(chain: ShownChain) -> str | None:
    """The issuer that is neither in the file nor among the authorities of this machine; None where the chain ends."""
    last = chain.certificates[-1]
    name = last.issuer.public_bytes()
    for der in ssl.create_default_context().get_ca_certs(binary_form=True):
        try:
            if name in der and was_issued_by(last, [x509.load_der_x509_certificate(der)]):
                return None
        except UNREADABLE:
            continue
    return last.issuer.rfc4514_string() or "an issuer without a name"


def names_in(certificate: x509.Certificate) -> str:
    return ", ".join(facts_of(certificate).names) or "no server (it has no subjectAltName)"


def _bytes_of(file: Path) -> bytes:
    """All of a file, or of a pipe such as ``/dev/stdin`` while its writer goes on writing."""
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with closing(os.fdopen(fd, "rb", buffering=0)) as opened:
            raw, end = b"", time.monotonic() + _PIPE_S
            while len(raw) <= BYTES_MAX:
                if not select.select([opened], [], [], max(0.0, end - time.monotonic()))[0]:
                    raise ResourceError(
                        f"{file} is a pipe that did not end within {_PIPE_S:g} s",
                        hint="name a PEM file, or end the program that writes into it",
                        code="unreadable",
                    )
                piece = opened.read(BYTES_MAX + 1 - len(raw))
                if not piece:
                    break
                raw += piece
    except OSError as error:
        raise ResourceError(f"cannot read {file}: {error.strerror}", code="unreadable") from error
    if len(raw) > BYTES_MAX:
        raise UsageError(
            f"{file} is larger than {BYTES_MAX >> 10} KiB, and no certificate is",
            hint="name a PEM file with the certificate of this server and its issuers",
            code="too_many_certificates",
        )
    return raw


def _ordered(file: Path, found: Sequence[x509.Certificate]) -> tuple[x509.Certificate, ...]:
    """The first certificate and its issuers, each after the one that it signed, without the root. Roots and doubles
    may stand anywhere in the file."""
    if len(found) > 4 * CHAIN_MAX:
        raise UsageError(
            f"{file} holds {len(found)} certificates: it is a bundle of authorities",
            hint="name a PEM file with the certificate of this server and its issuers",
            code="too_many_certificates",
        )
    chain = [found[0]]
    rest = [one for one in dict.fromkeys(found[1:]) if one != found[0]]
    while (issuer := next((one for one in rest if was_issued_by(chain[-1], [one])), None)) is not None:
        rest.remove(issuer)
        chain.append(issuer)
    if rest:
        raise RefusedError(
            f"{facts_of(rest[0]).subject} in {file} is no issuer of the certificate before it",
            hint="put the server's certificate first, then its issuers, and nothing else",
            code="chain_broken",
        )
    if len(chain) > 1 and _is_root(chain[-1]):
        chain.pop()
    if len(chain) > _ROOM:
        raise UsageError(
            f"the chain in {file} has {len(chain)} certificates, more than {_ROOM}",
            hint="ask its CA for a shorter one",
            code="too_many_certificates",
        )
    return tuple(chain)


def _is_root(certificate: x509.Certificate) -> bool:
    return certificate.subject == certificate.issuer


def _key_of(file: Path, pem: bytes, passphrase: bytes | None, shown: Path) -> _ShownKey:
    try:
        key = serialization.load_pem_private_key(pem, passphrase if _is_encrypted(pem) else None)
    except TypeError as error:
        raise ConfigError(
            f"the key in {file} is encrypted",
            hint="instep pki use FILE --passphrase-file PASSFILE",
            code="key_encrypted",
        ) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        why = "; or the passphrase is wrong" if _is_encrypted(pem) else ""
        more = ", and --passphrase-file PASSFILE" if _is_encrypted(pem) else ""
        raise ConfigError(
            f"the key in {file} cannot be read: {error}{why}", hint=_key_hint(shown) + more, code="bad_key"
        ) from error
    if not isinstance(key, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey):
        raise _weak("it is none of RSA, ECDSA and Ed25519")
    return key


def _is_encrypted(pem: bytes) -> bool:
    return b"ENCRYPTED" in pem


def _key_hint(file: Path) -> str:
    return f"instep pki use {shlex.quote(str(file))} --key KEYFILE, with the key that the certificate is for"


def _require_strong(leaf: x509.Certificate) -> None:
    key = leaf.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if key.key_size < _RSA_BITS_MIN:
            raise _weak(f"it is RSA with {key.key_size} bits")
    elif isinstance(key, ec.EllipticCurvePublicKey):
        if key.curve.name not in ("secp256r1", "secp384r1", "secp521r1"):
            raise _weak(f"it is on the curve {key.curve.name}")
    elif not isinstance(key, ed25519.Ed25519PublicKey):
        raise _weak("it is none of RSA, ECDSA and Ed25519")


def _weak(why: str) -> RefusedError:
    return RefusedError(
        f"the key of this certificate is not good enough: {why}",
        hint="ask its CA for one with a key of RSA 2048 or P-256",
        code="weak_key",
    )


def _why_no_server(leaf: x509.Certificate) -> str | None:
    """Absent usages allow everything (RFC 5280 4.2.1)."""
    try:
        usages = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        if not {ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE} & set(usages):
            return "its extended key usage lacks serverAuth"
    except x509.ExtensionNotFound:
        pass
    except UNREADABLE as error:
        return str(error)
    try:
        usage = leaf.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        return None
    return None if usage.digital_signature else "its key usage lacks digitalSignature"


def _names_host(leaf: x509.Certificate, host: str) -> bool:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except UNREADABLE:
        return False
    try:
        return ipaddress.ip_address(host) in names.get_values_for_type(x509.IPAddress)
    except ValueError:
        pass
    host = host.lower().rstrip(".")
    for pattern in names.get_values_for_type(x509.DNSName):
        pattern = pattern.lower()
        if pattern == host or pattern.startswith(
            f"{host}."
        ):  # s1.example.org is the server that is called s1 here
            return True
        if pattern.startswith("*.") and "." in host and host.partition(".")[2] == pattern[2:]:
            return True
    return False
