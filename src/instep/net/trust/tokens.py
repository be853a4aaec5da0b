"""Invitations: one printable token, good once. Implements the section "Tokens" of ``docs/spec/wire.md``.

The token carries what the new node needs to find and recognise the cluster, and a secret. The inviting side
keeps only a keyed hash of the secret. No clock and no randomness here: both are handed in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping
from typing import Annotated

import msgspec

from instep.errors import NotAllowedError, UsageError
from instep.model.ids import NodeName, node_name
from instep.model.link import Link

SECRET_BYTES = 24
_PREFIX = "instep1-"
_TEXT_MAX = 4_096
_KEPT_AFTER_EXPIRY_MS = 7 * 86_400_000
"""Spent and expired invites are kept this long, so that a late joiner learns which of the two it was."""

_Short = Annotated[bytes, msgspec.Meta(min_length=8, max_length=64)]


class Invitation(msgspec.Struct, frozen=True, array_like=True):
    """The content of a token. ``ca`` is the SHA-256 of the CA certificate; ``addresses`` are ``host:port``. ``pin`` is
    the SHA-256 of the inviting node's TLS key, ``sign_key`` its Ed25519 key: a node of another cluster trusts these.
    ``is_federation``: the token is good for such a node alone."""

    token_id: _Short
    secret: _Short
    name: NodeName
    inviter: NodeName
    addresses: Annotated[tuple[str, ...], msgspec.Meta(min_length=1, max_length=8)]
    ca: Annotated[bytes, msgspec.Meta(min_length=32, max_length=32)]
    expires_at_ms: int
    pin: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    sign_key: Annotated[bytes, msgspec.Meta(max_length=32)] = b""
    is_federation: bool = False


def token_text(invitation: Invitation) -> str:
    """The token as it is printed: URL-safe, with a checksum that catches a cut or mistyped copy."""
    body = msgspec.msgpack.encode(invitation)
    return _PREFIX + base64.urlsafe_b64encode(body + _checksum(body)).rstrip(b"=").decode("ascii")


def parse_token(text: str) -> Invitation:
    """The content of a token, or ``UsageError`` ``token_malformed``. Does not check whether it is still good."""
    text = "".join(text.split())
    if not text.startswith(_PREFIX) or len(text) > _TEXT_MAX:
        raise _malformed("it does not begin like one")
    coded = text.removeprefix(_PREFIX)
    try:
        raw = base64.b64decode(coded + "=" * (-len(coded) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as error:
        raise _malformed("it has characters that no token has") from error
    body, check = raw[:-4], raw[-4:]
    if not hmac.compare_digest(check, _checksum(body)):
        raise _malformed("a part is missing or mistyped")
    try:
        invitation = msgspec.msgpack.decode(body, type=Invitation)
        node_name(invitation.name)
        node_name(invitation.inviter)
    except (msgspec.DecodeError, UnicodeDecodeError, UsageError) as error:
        raise _malformed("this version does not understand it") from error
    return invitation


def _checksum(body: bytes) -> bytes:
    return hashlib.sha256(b"instep token 1\0" + body).digest()[:4]


def _malformed(why: str) -> UsageError:
    return UsageError(
        f"this is not a whole token: {why}",
        hint="copy the whole line that the inviting node printed, or make a new one there: instep invite NAME",
        code="token_malformed",
        why=why,
    )


class PendingInvite(msgspec.Struct, frozen=True):
    """The inviting side's record; JSON-ready."""

    name: NodeName
    secret_hash: str
    expires_at_ms: int
    link: Link
    used_at_ms: int | None = None
    used_by_pin: str | None = None
    is_federation: bool = False


class TokenBook:
    """The open invitations of a node: pure, the caller saves ``state()`` in the same transaction that makes
    use of an answer. ``key`` is a secret of this node that keeps the hashes from being guessed at."""

    def __init__(self, key: bytes, state: Mapping[str, PendingInvite] | None = None) -> None:
        assert len(key) >= 16
        self._key = key
        self._invites: dict[str, PendingInvite] = dict(state or {})

    def state(self) -> dict[str, PendingInvite]:
        """Token id (hex) to invite, for the store."""
        return dict(self._invites)

    def add(self, invitation: Invitation, link: Link) -> None:
        """Record an invitation; an earlier open one for the same name stops working."""
        self._invites = {
            key: invite
            for key, invite in self._invites.items()
            if invite.name != invitation.name or invite.used_at_ms is not None
        }
        self._invites[invitation.token_id.hex()] = PendingInvite(
            name=invitation.name,
            secret_hash=self._hash(invitation.token_id, invitation.secret),
            expires_at_ms=invitation.expires_at_ms,
            link=link,
            is_federation=invitation.is_federation,
        )

    def check(
        self, token_id: bytes, secret: bytes, name: NodeName, now_ms: int, *, pin: str = ""
    ) -> PendingInvite:
        """The invite that this secret opens, or ``NotAllowedError`` ``token_unknown``, ``token_used``,
        ``token_expired``. The same key (``pin``) may repeat its join: an answer that was lost is no used token."""
        invite = self._invites.get(token_id.hex())
        expected = invite.secret_hash if invite is not None else self._hash(b"", b"")
        is_right = hmac.compare_digest(expected, self._hash(token_id, secret))
        if invite is None or not is_right or invite.name != name:
            raise _refused("token_unknown", "this node did not give out this token for this name", name)
        if invite.used_at_ms is not None and (not pin or invite.used_by_pin != pin):
            raise _refused("token_used", "this token was used already", name)
        if now_ms > invite.expires_at_ms:
            raise _refused("token_expired", "this token is too old", name)
        return invite

    def use(self, token_id: bytes, now_ms: int, *, pin: str) -> None:
        """Spend the token, after ``check`` and before the answer leaves."""
        key = token_id.hex()
        invite = self._invites[key]
        if invite.used_at_ms is None:
            self._invites[key] = msgspec.structs.replace(invite, used_at_ms=now_ms, used_by_pin=pin)

    def forget_old(self, now_ms: int) -> None:
        """Drop invites that no joiner will ask about any more."""
        limit = now_ms - _KEPT_AFTER_EXPIRY_MS
        self._invites = {k: v for k, v in self._invites.items() if v.expires_at_ms > limit}

    def _hash(self, token_id: bytes, secret: bytes) -> str:
        return hmac.new(self._key, token_id + b"\0" + secret, hashlib.sha256).hexdigest()


def _refused(code: str, why: str, name: NodeName) -> NotAllowedError:
    return NotAllowedError(
        why, hint=f"make a new one on the inviting node: instep invite {name}", code=code, name=name
    )
