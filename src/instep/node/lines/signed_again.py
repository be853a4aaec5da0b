"""Heads under the certificate that the writer has now: the one that it signed them with may have ended since."""

from __future__ import annotations

import datetime as dt

from cryptography.hazmat.primitives.serialization import Encoding

from instep.model.generation import SignedGeneration
from instep.net.messages.messages import Head
from instep.net.trust.certs import Purpose
from instep.node.runtime.runtime import Runtime


def own_chain(runtime: Runtime) -> tuple[bytes, ...]:
    """The chain that this node's signatures bring now."""
    return (runtime.pki.certificate(Purpose.SIGN).public_bytes(Encoding.DER),)


def signed_again(runtime: Runtime, signed: SignedGeneration) -> SignedGeneration:
    """A generation that this node signed, under its present certificate: the id stays, and so does the key."""
    if signed.signature.signer != runtime.name or signed.signature.chain == own_chain(runtime):
        return signed
    again = SignedGeneration(signed.raw, runtime.pki.sign(signed.id))
    runtime.store.add_generation(again)
    return again


def is_signed_since(runtime: Runtime, head: Head) -> bool:
    """Whether this node's certificate is newer than a head of its own: a partner may have it with an older one."""
    made = dt.datetime.fromtimestamp(head.generation.body().time_ms / 1000, dt.UTC)
    begins = runtime.pki.certificate(Purpose.SIGN).not_valid_before_utc
    return head.generation.signature.signer == runtime.name and made < begins


def keep_newer_signature(runtime: Runtime, signed: SignedGeneration) -> None:
    """A verified head that is known here came under another certificate: partners behind this node get that one."""
    known = runtime.store.generation(signed.id)
    if known is not None and known.signature.chain != signed.signature.chain:
        runtime.store.add_generation(signed)
