"""What a lease gives its holder: the fence that every guarded write presents."""

from __future__ import annotations

import re

import msgspec

from instep.errors import UsageError
from instep.model.ids import Count

_LEASE = re.compile(r"[a-z0-9]([a-z0-9._:-]{0,126}[a-z0-9])?")


class LeaseFence(msgspec.Struct, frozen=True, array_like=True, order=True):
    """Grants of one lease in order: the era of the database, then the count of changes of hands. A write under an older
    fence is refused where it lands."""

    era: Count
    counter: Count

    def __str__(self) -> str:
        return f"{self.era}.{self.counter}"


def lease_name(text: str) -> str:
    """A lease name: 1 to 128 of ``a-z 0-9 . _ : -``."""
    if not _LEASE.fullmatch(text):
        raise UsageError(
            f"{text!r} is not a lease name",
            hint="use 1 to 128 of a-z, 0-9, '.', '_', ':' and '-', starting and ending with a letter or digit",
            code="bad_lease_name",
            name=text,
        )
    return text
