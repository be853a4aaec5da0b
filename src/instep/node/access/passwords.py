"""Passwords as Argon2id hashes (RFC 9106, the second recommended parameters), in the PHC text form."""

from __future__ import annotations

import os

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

_ITERATIONS = 3
_LANES = 4
_MEMORY_KIB = 64 << 10
_SALT_BYTES = 16
_HASH_BYTES = 32


def hash_of(password: str) -> str:
    """A new hash with a salt of its own. Takes a tenth of a second and 64 MiB: call it in a thread, few at once."""
    derivation = Argon2id(
        salt=os.urandom(_SALT_BYTES),
        length=_HASH_BYTES,
        iterations=_ITERATIONS,
        lanes=_LANES,
        memory_cost=_MEMORY_KIB,
    )
    return derivation.derive_phc_encoded(password.encode())


def is_password(password: str, phc: str) -> bool:
    """Whether the hash is one of this password; as slow as ``hash_of``."""
    try:
        Argon2id.verify_phc_encoded(password.encode(), phc)
    except InvalidKey:
        return False
    return True
