"""``debug record``: the last events of a fileset's machines, as files."""

from __future__ import annotations

from instep.api import debugging as api
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.targets import service_of
from instep.node.runtime.driver import own_error
from instep.node.runtime.records import write_record


class Debugging(CommandHandlers):
    async def record(self, asked: api.DebugRecordCommand, speaker: Speaker) -> api.RecordsDocument:
        """Also where the line has stopped: its record is the one that is wanted most."""
        service = service_of(self._node, asked.fileset)
        found = []
        for one in (driver.recorder for driver in service.drivers):
            try:
                path = write_record(self._node.runtime.directory.records, one, "asked")
            except OSError as error:
                raise own_error(error) from error
            found.append(api.RecordDocument(one.name, str(path), len(one.last), one.broken))
        return api.RecordsDocument(service.fileset.name, tuple(found))
