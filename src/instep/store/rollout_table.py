"""Rollouts in SQLite: the state of each written line's, and a bounded past of finished ones."""

from __future__ import annotations

import apsw

from instep.model.ids import LineId
from instep.store.port import ROLLOUTS_KEPT

LOAD = "SELECT state FROM rollout_state WHERE fileset = ? AND origin = ?"
SAVE = (
    "INSERT INTO rollout_state VALUES (?, ?, ?)"
    " ON CONFLICT (fileset, origin) DO UPDATE SET state = excluded.state"
)
NEWEST = "SELECT record FROM rollout WHERE fileset = ? AND origin = ? ORDER BY number DESC LIMIT ?"
_PRUNE = (
    "DELETE FROM rollout WHERE fileset = ? AND origin = ? AND number NOT IN"
    " (SELECT number FROM rollout WHERE fileset = ? AND origin = ? ORDER BY number DESC LIMIT ?)"
)


def keep(connection: apsw.Connection, line: LineId, record: bytes) -> None:
    """Append a finished rollout and drop what is older than the newest ``ROLLOUTS_KEPT`` of the line."""
    of = (line.fileset, line.origin)
    connection.execute("INSERT INTO rollout (fileset, origin, record) VALUES (?, ?, ?)", (*of, record))
    connection.execute(_PRUNE, (*of, *of, ROLLOUTS_KEPT))
