"""The way of one browser to the provider and back, kept in the browser: nothing here grows with visitors.

A cookie holds the state, the nonce and the PKCE verifier under a keyed digest; the key ends with this process.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
from collections.abc import Callable

import msgspec
from blake3 import blake3

from instep.errors import NotAllowedError

FLOW_MS = 10 * 60_000
COOKIE_MAX = 1_024
_DIGEST_BYTES = 32


class SignInFlow(msgspec.Struct, frozen=True, array_like=True):
    """What the answer of the provider must match."""

    state: str
    nonce: str
    verifier: str
    until_ms: int


class Flows:
    """Begins flows, and recognises them when the browser comes back."""

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._key = secrets.token_bytes(32)

    def begin(self) -> tuple[str, SignInFlow]:
        """A new flow, and its cookie."""
        state, nonce, verifier = (secrets.token_urlsafe(32) for _ in range(3))
        flow = SignInFlow(state, nonce, verifier, self._now_ms() + FLOW_MS)
        raw = msgspec.msgpack.encode(flow)
        return base64.urlsafe_b64encode(self._digest(raw) + raw).decode(), flow

    def of_cookie(self, cookie: str, state: str) -> SignInFlow:
        """The flow of this browser. ``NotAllowedError`` ``not_our_flow`` where it began none, or another one."""
        flow = self._decoded(cookie)
        is_ours = flow is not None and hmac.compare_digest(
            flow.state.encode(), state.encode("utf-8", "replace")
        )
        if flow is None or not is_ours or flow.until_ms <= self._now_ms():
            raise NotAllowedError(
                "this browser did not begin this sign-in, or its ten minutes have passed",
                hint="open the panel and sign in again",
                code="not_our_flow",
            )
        return flow

    def _decoded(self, cookie: str) -> SignInFlow | None:
        if not cookie.isascii() or len(cookie) > COOKIE_MAX:
            return None
        try:
            told = base64.b64decode(cookie, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            return None
        digest, raw = told[:_DIGEST_BYTES], told[_DIGEST_BYTES:]
        if not hmac.compare_digest(digest, self._digest(raw)):
            return None
        return msgspec.msgpack.decode(raw, type=SignInFlow)

    def _digest(self, raw: bytes) -> bytes:
        return blake3(raw, key=self._key).digest()
