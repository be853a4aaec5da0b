"""The label of a backup, and which backups retention removes. Pure."""

from __future__ import annotations

import enum
from collections.abc import Collection, Sequence

ATTEMPTS = 3
"""So often the files are captured around a dump before a backup stays fuzzy."""


class BackupLabel(enum.Enum):
    """How files and database belong together."""

    FROZEN = "frozen"
    """The application did not write meanwhile."""
    BRACKETED = "bracketed"
    """No file that the database may name was lost or changed around the moment of the dump."""
    FUZZY = "fuzzy"
    """Some were; the backup names them."""


def label_of(*, is_frozen: bool, in_doubt: Collection[bytes]) -> BackupLabel:
    if in_doubt:
        return BackupLabel.FUZZY
    return BackupLabel.FROZEN if is_frozen else BackupLabel.BRACKETED


def to_remove(ids: Sequence[str], keep_last: int) -> tuple[str, ...]:
    """The oldest backups beyond the ``keep_last`` newest; ids sort by time."""
    return tuple(sorted(ids)[:-keep_last])
