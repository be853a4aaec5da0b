"""Records of a daemon's machines, for a person who looks for a fault."""

from __future__ import annotations

from instep.api.command import Document, FilesetCommand, Role, command
from instep.errors import ResourceError


class RecordDocument(Document, frozen=True):
    """One machine's record: its file, the number of events in it, and the invariant that the machine broke."""

    machine: str
    file: str
    events: int
    broken: str | None


class RecordsDocument(Document, frozen=True):
    """The records that were written."""

    fileset: str
    records: tuple[RecordDocument, ...]


@command("debug_record", Role.ADMIN, ResourceError)
class DebugRecordCommand(FilesetCommand[RecordsDocument], frozen=True):
    """Write the last events of a fileset's machines to files in the node directory."""
