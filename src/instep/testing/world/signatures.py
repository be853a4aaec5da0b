"""Signatures of the simulated world: only the named signer makes one."""

from __future__ import annotations

from typing import TypeVar

from instep.core.vocabulary import SignerVerdict
from instep.model.generation import EpochBody, GenerationBody, Signature, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, NodeName
from instep.testing.world.disk import content_digest

RecordT = TypeVar("RecordT", SignedEpoch, SignedGeneration)


def sign(signer: str, record_id: Digest) -> Signature:
    """A toy signature: only the named signer makes it, in this world."""
    return Signature(NodeName(signer), signer.encode(), content_digest(signer.encode() + record_id))


def signed_by(signer: str, kind: type[RecordT], body: EpochBody | GenerationBody) -> RecordT:
    """The record of this body."""
    unsigned = kind(body.encoded(), sign("", EMPTY_DIGEST))
    return kind(unsigned.raw, sign(signer, unsigned.id))


def verdict_of(record: SignedEpoch | SignedGeneration) -> SignerVerdict:
    signature = record.signature
    is_valid = signature == sign(signature.signer, record.id)
    return SignerVerdict(
        is_valid, signature.signer, signature.signer == "ca", "" if is_valid else "bad_signature"
    )
