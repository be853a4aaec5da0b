"""Small values of the model, for tests that need some and do not care which."""

from __future__ import annotations

from blake3 import blake3

from instep.model.ids import Digest, HeadRef

__all__ = ["digest_of", "head_ref"]


def digest_of(text: object) -> Digest:
    return Digest(blake3(str(text).encode()).digest())


def head_ref(number: int, epoch: int = 1) -> HeadRef:
    return HeadRef(epoch, number, digest_of((epoch, number)), digest_of(f"root {number}"))
