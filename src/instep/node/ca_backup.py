"""``pki backup``: the cluster's certificate authority in one encrypted PEM file.

The file holds the CA certificate, its key as encrypted PKCS #8 and the revocation list; ``openssl pkey``
reads it. Who has the file and the passphrase can issue certificates, so they belong into two places.
"""

from __future__ import annotations

import secrets
from pathlib import Path

from cryptography.hazmat.primitives import serialization

from instep.errors import NotAllowedError, UsageError
from instep.net.pki import Pki, write_file

__all__ = ["PASSPHRASE_MIN", "back_up", "new_passphrase"]

PASSPHRASE_MIN = 12
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"


def new_passphrase() -> str:
    """120 random bits in groups that can be copied by hand."""
    return "-".join("".join(secrets.choice(_ALPHABET) for _ in range(6)) for _ in range(4))


def back_up(pki: Pki, target: Path, passphrase: str, now_ms: int) -> None:
    """Write the file (mode 0600) and remember that it was done. ``NotAllowedError`` where the CA is not."""
    if not pki.is_ca:
        raise NotAllowedError(
            "this node does not hold the cluster's CA key",
            hint="run this on the node where instep init ran",
            code="no_ca_key",
        )
    if len(passphrase) < PASSPHRASE_MIN:
        raise UsageError(
            f"the passphrase is shorter than {PASSPHRASE_MIN} characters", code="weak_passphrase"
        )
    key = serialization.load_pem_private_key((pki.directory / "ca.key").read_bytes(), password=None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(passphrase.encode()),
    )
    write_file(target, pki.authorities_pem() + sealed + pki.crl_pem(), mode=0o600)
    pki.mark_backed_up(now_ms)
