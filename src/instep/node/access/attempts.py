"""Wrong sign-ins, counted by account and by address before any password is hashed.

Counts lie in a fixed number of buckets in the database: many made-up names fill buckets and evict none, and a restart
forgets none. Which name falls into which bucket depends on a secret of this node, so no other name can be chosen to
block an account.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

from blake3 import blake3

from instep.errors import NotAllowedError
from instep.store.access_store import AccessStore

BUCKETS = 4_096
WINDOW_MS = 15 * 60_000
ACCOUNT_MAX = 5
ADDRESS_MAX = 20
_SECRET = ("secret", "buckets")


class AttemptLimits:
    """``take`` before each attempt, ``succeeded`` after a right one."""

    def __init__(self, store: Callable[[], AccessStore], now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms

    def take(self, account: str, address: str) -> None:
        """Count an attempt before it is tried; ``NotAllowedError`` ``too_many_attempts`` without looking at anything
        else when the account or the address had too many. A refused attempt counts no further: the wait ends."""
        store, now = self._store(), self._now_ms()
        counted: list[tuple[str, int, int]] = []
        for kind, name, most in (("account", account, ACCOUNT_MAX), ("address", address, ADDRESS_MAX)):
            bucket = self._bucket(kind, name)
            found = store.attempts(bucket)
            count, since_ms = (0, now) if found is None else found
            if not 0 <= now - since_ms < WINDOW_MS:
                count, since_ms = 0, now
            if count >= most:
                wait_s = (since_ms + WINDOW_MS - now + 999) // 1000
                raise NotAllowedError(
                    f"too many wrong sign-ins; the next is looked at in {wait_s} s",
                    hint="wait, or sign in with a link: instep panel login",
                    code="too_many_attempts",
                    retry_after_s=wait_s,
                ).later()
            counted.append((bucket, count + 1, since_ms))
        for bucket, count, since_ms in counted:
            store.set_attempts(bucket, count, since_ms)

    def succeeded(self, account: str) -> None:
        """A right password forgives the account; the address keeps its count, or one account could cover guesses at
        others."""
        self._store().forget_attempts(self._bucket("account", account))

    def _bucket(self, kind: str, name: str) -> str:
        store = self._store()
        key = store.get(*_SECRET)
        if key is None:
            key = secrets.token_bytes(32)
            store.put(*_SECRET, self._now_ms(), key)
        digest = blake3(name.encode(errors="surrogatepass"), key=key).digest(length=4)
        return f"{kind} {int.from_bytes(digest, 'big') % BUCKETS}"
