"""Follows an accepted epoch record: this node's own ``instep.toml`` is edited for the change of writer.

The intent is stored with the facts that hold the record, so that a crash in between loses nothing; it is
looked at whenever something changed, and forgotten once the file names the writer.
"""

from __future__ import annotations

from instep.core.lines.accept import EpochBook
from instep.core.writer_change import base_of, writer_by
from instep.errors import InstepError
from instep.model.ids import FilesetName, NodeName
from instep.node.config.editing.writer_edit import change_writer
from instep.node.lines.line_service import LineService
from instep.node.lines.saved_facts import pending_key
from instep.node.node import Node
from instep.tree.root.failpoints import failpoint, register

NOTED = register("succession.noted")
WRITTEN = register("succession.written")


class Succession:
    """One per node."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._told: dict[FilesetName, str] = {}
        """Why an edit was refused, so that it is reported once."""

    async def run(self) -> None:
        """Look whenever something changed, until cancelled."""
        while True:
            changed = self._node.runtime.changed
            self.look()
            await changed.wait()

    def look(self) -> None:
        """Settle every change of writer that waits and can be settled now."""
        for service in list(self._node.services.values()):
            if self._node.runtime.store.get(pending_key(service.line)) is not None:
                self._settle(service)

    def _settle(self, service: LineService) -> None:
        node, runtime, line = self._node, self._node.runtime, service.line
        book = service.facts.epochs
        writer = writer_by(book)
        if writer is None:
            return
        if writer == service.fileset.writer and self._is_dialled(writer):
            runtime.store.delete(pending_key(line))
            return
        if writer == service.fileset.writer and self._address_of(writer) is None:
            return  # until a peer reports where it is
        is_ours = writer == runtime.name
        if is_ours and not _is_at_base(service, book):
            return
        definition = service.known_definition() if is_ours else None
        failpoint(NOTED)
        # A file that names the writer already waits for nothing but its address.
        is_direct = service.fileset.writer == writer or self._is_direct(service)
        address = self._address_of(writer) if is_direct else None
        try:
            # A handover was typed here, at the old writer. A promotion was not: no right comes from it.
            is_asked = book.current is not None and not book.current.is_promoted
            change_writer(node.directory, line, writer, definition, address, keeps_owners=is_asked)
            failpoint(WRITTEN)
            node.reload()
        except InstepError as error:
            if self._told.get(line.fileset) != error.reason:
                self._told[line.fileset] = error.reason
                text = f"instep.toml could not name the new writer {writer}: {error.reason}"
                runtime.note("writer_change_refused", text, line, writer=str(writer))
            return
        self._told.pop(line.fileset, None)
        now = runtime.settings.filesets.get(line.fileset)
        kept = now is not None and now.owners != service.fileset.owners
        text = "; files keep their owners here (owners = by_name)" if kept else ""
        runtime.note("writer_changed", f"{writer} writes {line.fileset} now{text}", line, writer=str(writer))
        if not is_direct or self._is_dialled(writer):
            runtime.store.delete(pending_key(line))
            return
        runtime.note(
            "writer_unknown",
            f"no peer reported an address of {writer}; here: instep node set-address {writer} HOST:PORT",
            line,
            writer=str(writer),
        )

    def _is_direct(self, service: LineService) -> bool:
        """Whether this node dials the line's writer itself; behind a hub it goes on asking the hub."""
        return service.fileset.writer == self._node.runtime.name or self._is_dialled(service.fileset.writer)

    def _is_dialled(self, node: NodeName) -> bool:
        row = self._node.runtime.settings.partners.get(node)
        return node == self._node.runtime.name or (row is not None and row.address is not None)

    def _address_of(self, writer: NodeName) -> str | None:
        """Where to dial a writer that is not dialled yet."""
        if writer == self._node.runtime.name:
            return None
        member = self._node.membership.members.get(writer)
        return member.address if member is not None and member.address else None


def _is_at_base(service: LineService, book: EpochBook) -> bool:
    """Whether this tree holds, in full, what the new epoch builds on."""
    current = book.current
    if current is None or service.fileset.observe or service.known_definition() is None:
        return False
    return base_of(service.live) == current.base
