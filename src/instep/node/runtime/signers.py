"""The signer of a record, as a value for the machines; and the standing of a line whose machine broke."""

from __future__ import annotations

from instep.core.vocabulary import SignerVerdict, Trouble
from instep.errors import InstepError, RefusedError
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
        pinned = _pinned_keys(runtime, signature.signer)
        signer = verify_signature(signature, record_id, authorities, pki.crl(), wall_ms(), pinned)
    except InstepError as error:
        return SignerVerdict(False, signature.signer, code=error.error_code, reason=error.reason)
    return SignerVerdict(True, signer)


def _pinned_keys(runtime: Runtime, signer: NodeName) -> dict[NodeName, bytes]:
    """The signing key of a partner of another cluster, as long as it is pinned here."""
    key = runtime.pki.pins.sign_key(signer)
    return {signer: key} if key is not None and signer in runtime.pki.pins.certificates() else {}


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
