"""The signer of a record, as a value for the machines; and the standing of a line whose machine broke."""

from __future__ import annotations

from instep.core.vocabulary import SignerVerdict, Trouble
from instep.errors import InstepError, NotAllowedError, RefusedError
from instep.model.generation import Signature
from instep.model.ids import Digest, NodeName
from instep.model.standing import Standing, StandingRecord
from instep.net.trust.signing import verify_ca_signature, verify_signature
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime

BROKEN = "broken_invariant"


def verdict_on(runtime: Runtime, signature: Signature, record_id: Digest) -> SignerVerdict:
    """The result of checking a record's signature."""
    pki = runtime.pki
    try:
        authorities = pki.authorities()
        if not signature.chain:
            verify_ca_signature(signature, record_id, authorities)
            return SignerVerdict(True, signature.signer, is_ca=True)
        signer = _verified(runtime, signature, record_id)
    except InstepError as error:
        return SignerVerdict(False, signature.signer, code=error.error_code, reason=error.reason)
    return SignerVerdict(True, signer)


def _verified(runtime: Runtime, signature: Signature, record_id: Digest) -> NodeName:
    """The signer of a record, by its pinned key, by a certificate of this cluster, or by an introduction. A name that a
    node of this cluster has is never an introduced one."""
    pki, signer = runtime.pki, signature.signer
    pinned = pki.pins.sign_key(signer) if signer in pki.pins.certificates() else None
    by_key = {} if pinned is None else {signer: pinned}
    authorities, now_ms = pki.authorities(), wall_ms()
    try:
        return verify_signature(signature, record_id, authorities, pki.crl(), now_ms, by_key)
    except NotAllowedError as error:
        if error.error_code != "signer_unknown":
            raise
        if runtime.is_ours(signer):
            raise
        known = pki.pins.introduced().get(signer)
        if known is None:
            error.reason += (
                "; when a hub of another cluster passes it on: instep partner set NAME --introduces"
            )
            raise
        return verify_signature(signature, record_id, authorities, pki.crl(), now_ms, {signer: known.raw})


def stuck_standing(trouble: Trouble) -> StandingRecord:
    """The standing of a line that this machine cannot carry on now; it goes on by itself."""
    steps = (trouble.hint,) if trouble.hint else ("it goes on by itself; see: instep check",)
    standing = Standing.BLOCKED if trouble.exit_code == RefusedError.exit_code else Standing.FAILING
    return StandingRecord(standing, wall_ms(), trouble.reason, trouble.code, steps)


def broken_standing(error: Exception) -> StandingRecord:
    """The standing of a line that stopped on a broken invariant."""
    return StandingRecord(
        Standing.FAILING,
        wall_ms(),
        f"instep stopped this line on an error of its own: {type(error).__name__}: {error}",
        BROKEN,
        ("look at the log of the daemon; instep stop, then: instep start",),
    )
