"""Times of certificates: in the words of errors, and whether the cluster's CA may sign now."""

from __future__ import annotations

import datetime as dt

from cryptography import x509

from instep.errors import RefusedError

_APART = dt.timedelta(minutes=5)


def minute_of(at: dt.datetime) -> str:
    """A moment in the words of errors about certificates."""
    return at.strftime("%Y-%m-%d %H:%M UTC")


def require_current_ca(ca: x509.Certificate, now: dt.datetime) -> None:
    """``RefusedError`` when the clock is outside the years of the CA: what it signed would hold nowhere."""
    if ca.not_valid_before_utc - _APART <= now < ca.not_valid_after_utc:
        return
    begins, ends = minute_of(ca.not_valid_before_utc), minute_of(ca.not_valid_after_utc)
    raise RefusedError(
        f"the cluster's CA signs from {begins} to {ends}, and the clock of its node shows {minute_of(now)}",
        hint="set the clock of the CA's node (date -u); a CA that has ended needs a new cluster: instep init",
        code="ca_not_current",
        not_before=begins,
        not_after=ends,
        now=minute_of(now),
    )
