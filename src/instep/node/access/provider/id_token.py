"""Whether an ID token is one that the provider made for this panel and this browser, and the claims in it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from instep.api.access import NAME_MAX, PERSON_NAME
from instep.errors import NotAllowedError, PeerError

ALGORITHMS = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519",
)  # fmt: skip
"""Signatures by a private key that the provider alone has: never ``none``, and no secret that this node holds, too."""
LEEWAY_S = 60
SUBJECT_MAX = 255
GROUPS_MAX = 1_000
GROUP_MAX = 500


def bad_answer(why: str) -> PeerError:
    """An answer of the provider that this node does not believe."""
    return PeerError(
        f"the sign-in provider gave an answer that cannot be used: {why}",
        hint="compare [oidc] in instep.toml with the provider's settings",
        code="bad_provider_answer",
    )


def claims_of(
    id_token: str,
    keys: Mapping[str, Any],
    *,
    issuer: str,
    client_id: str,
    nonce: str,
    access_token: str,
    now_s: int,
) -> Mapping[str, Any]:
    """The claims of a token whose signature, issuer, audience, times and nonce are right; ``PeerError``
    ``bad_provider_answer`` else, and ``KeyError`` where none of ``keys`` (a JWK set) is the one that signed it."""
    from authlib.oidc.core.claims import CodeIDToken
    from joserfc import jws, jwt
    from joserfc.errors import InvalidKeyIdError, JoseError
    from joserfc.jwk import KeySet

    published: Any = dict(keys)
    try:
        registry = jws.JWSRegistry(algorithms=list(ALGORITHMS))
        token = jwt.decode(
            id_token, KeySet.import_key_set(published), algorithms=list(ALGORITHMS), registry=registry
        )
        options: Any = {"iss": {"essential": True, "value": issuer}, "sub": {"essential": True}}
        params = {"nonce": nonce, "client_id": client_id, "access_token": access_token}
        claims = CodeIDToken(token.claims, token.header, options, params)
        claims.validate(now=now_s, leeway=LEEWAY_S)
    except InvalidKeyIdError as error:
        raise KeyError("no key with the id that the token names") from error
    except (JoseError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise bad_answer(f"its ID token is refused ({type(error).__name__})") from error
    audience = claims["aud"]
    if client_id not in (audience if isinstance(audience, list) else [audience]):
        raise bad_answer("its ID token is for another client")
    subject = claims["sub"]
    if not isinstance(subject, str) or not 0 < len(subject) <= SUBJECT_MAX:
        raise bad_answer("its ID token names no subject")
    return dict(claims)


def name_of(claims: Mapping[str, Any], claim: str) -> str:
    """The person's name. ``NotAllowedError`` ``bad_person_name`` where it cannot be one here."""
    name = claims.get(claim)
    if not isinstance(name, str) or len(name) > NAME_MAX or not re.fullmatch(PERSON_NAME, name):
        raise NotAllowedError(
            f"the provider names this person in {claim} in no way that a name can have here",
            hint=f"name another claim as name_claim in [oidc]: letters, digits and _.@-, at most {NAME_MAX}",
            code="bad_person_name",
        )
    return name


def groups_of(claims: Mapping[str, Any], claim: str) -> tuple[str, ...] | None:
    """The person's groups; None where the claims do not say. Anything but texts counts as no group."""
    found = claims.get(claim)
    if found is None:
        return None
    rows = found if isinstance(found, list) else [found]
    return tuple(row for row in rows[:GROUPS_MAX] if isinstance(row, str) and len(row) <= GROUP_MAX)
