"""Times of certificates: in the words of errors, and whether the cluster's CA may sign now."""

from __future__ import annotations

import datetime as dt

from cryptography import x509

from instep.errors import RefusedError

_APART = dt.timedelta(minutes=5)


def minute_of(at: dt.datetime) -> str:
    """A moment in the words of errors about certificates."""
    return at.strftime("%Y-%m-%d %H:%M UTC")


def minute_at(at_ms: int) -> str:
    """The same of a wall clock's milliseconds."""
    return minute_of(dt.datetime.fromtimestamp(at_ms / 1000, dt.UTC))


def require_current_ca(ca: x509.Certificate, now: dt.datetime) -> None:
    """``RefusedError`` when the clock is outside the years of the CA: what it signed would hold nowhere."""
    if ca.not_valid_before_utc - _APART <= now < ca.not_valid_after_utc:
        return
    begins, ends = minute_of(ca.not_valid_before_utc), minute_of(ca.not_valid_after_utc)
    raise RefusedError(
        f"the cluster's CA signs from {begins} to {ends}, and the clock of its node shows {minute_of(now)}",
        hint="compare date -u of that node with others; when it is right, there: instep pki renew",
        code="ca_not_current",
        not_before=begins,
        not_after=ends,
        now=minute_of(now),
    )
