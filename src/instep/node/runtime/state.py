"""The node's state database when the daemon begins: checked, set aside when it is damaged, begun anew when it is lost.

Nothing in it is the only copy of anything (``docs/decisions/lost-state.md``): a writer learns its own heads from its
partners, a partner looks at its tree and its journal and asks its sources.
"""

from __future__ import annotations

import asyncio
import logging

from instep.errors import DamagedError, InstepError
from instep.node.config.settings import Settings
from instep.node.directory import NodeDirectory
from instep.store.database import set_aside
from instep.store.port import NodeStore
from instep.store.sqlite import SqliteStore

LOOK_S = 1.0
LOST = ("state_lost", "state_damaged")
log = logging.getLogger(__name__)


class StateLost(DamagedError):
    """The database went away or broke while the daemon ran: it starts anew, in this process."""

    code = "state_lost"


def make_state(directory: NodeDirectory) -> None:
    """A new node begins with an empty database: one that is missing later was lost."""
    SqliteStore(directory.database).close()


def open_state(directory: NodeDirectory, settings: Settings) -> str | None:
    """Check the database, and make it when there is none. Returns a note for the operator, None when all is well.

    ``RefusedError`` ``state_newer``, ``ResourceError`` when it can be neither read nor made.
    """
    path = directory.database
    was_there = path.exists()
    note: str | None = None
    try:
        SqliteStore(path).close()
    except DamagedError as error:
        aside = set_aside(path)
        note = f"{error.reason}; it was moved to {aside} for a look, and can be removed there"
        SqliteStore(path).close()
    if note is None and not was_there and settings.filesets:
        note = f"there was no state in {path}"
    if note is not None:
        note += "; the state is rebuilt from the tree, its journal and the partners"
        log.warning("%s", note)
    return note


async def watch_state(store: NodeStore) -> None:
    """Raise ``StateLost`` when the file is not there any more; SQLite would go on writing to a file without a name."""
    while True:
        await asyncio.sleep(LOOK_S)
        try:
            store.check()
        except DamagedError as error:
            raise lost(error) from error
        except InstepError as error:
            log.warning("the state could not be looked at: %s", error.reason)


def is_lost(error: BaseException) -> bool:
    """Whether going on with the open database makes no sense."""
    return isinstance(error, DamagedError) and error.error_code in LOST


def lost(error: DamagedError) -> StateLost:
    return StateLost(error.reason, hint=error.hint)
