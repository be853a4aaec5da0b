"""``debug record``: the last events of a fileset's machines, as files."""

from __future__ import annotations

from instep.api import debugging as api
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.targets import service_of
from instep.node.runtime.driver import from_os_error
from instep.node.runtime.records import write_record
from instep.node.writing.writer import WriterService


class Debugging(CommandHandlers):
    async def record(self, asked: api.DebugRecordCommand, speaker: Speaker) -> api.RecordsDocument:
        """Also where the line has stopped: its record is the one that is wanted most."""
        service = service_of(self._node, asked.fileset)
        recorders = [service.driver.recorder]
        if isinstance(service, WriterService):
            recorders.append(service.rollout.driver.recorder)
        found = []
        for one in recorders:
            try:
                path = write_record(self._node.runtime.directory.records, one, "asked")
            except OSError as error:
                raise from_os_error(error) from error
            found.append(api.RecordDocument(one.name, str(path), len(one.last), one.broken))
        return api.RecordsDocument(service.fileset.name, tuple(found))
