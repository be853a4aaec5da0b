"""Lines of homes that left for ever, let go on an operator's word."""

from __future__ import annotations

from instep.api.filesets import ForgetLineCommand, ForgottenDocument
from instep.errors import ContentionError, RefusedError
from instep.model.ids import NodeName
from instep.node.commands.changes.collisions import of_many_homes
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.targets import running_service_of
from instep.node.replica.forgetting import LineTotals
from instep.node.replica.own_line import OwnLine

WAIT_S = 60.0


class Forgetting(CommandHandlers):
    async def fileset_forget_line(self, asked: ForgetLineCommand, speaker: Speaker) -> ForgottenDocument:
        line = of_many_homes(running_service_of(self._node, asked.fileset))
        origin, forgotten = NodeName(asked.origin), line.replica.forgotten
        if origin == line.line.origin:
            raise _own(line)
        if asked.take_back:
            is_taken = origin in forgotten
            if is_taken and not asked.dry_run:
                line.replica.take_back(origin)
            return _document(line, asked, is_taken, None, 0)
        within_s = WAIT_S if asked.timeout_s is None else asked.timeout_s
        is_here = origin in self._node.peers.sessions or self._is_dialled(origin)
        if not asked.dry_run and line.replica.unions.now is None:
            if is_here:
                raise _here(origin)
            await line.replica.give_up(origin, within_s)
        found = await line.worker.run(forgotten.totals_of, origin)
        kept = line.replica.kept.get(origin)
        if found is None and kept is None and origin not in forgotten:
            raise _unknown(line, origin)
        edits = len(kept.offered_edits()[0]) if kept is not None else 0
        if asked.dry_run:
            return _document(line, asked, found is not None or kept is not None, found, edits)
        if is_here:
            raise _here(origin)
        is_new = origin not in forgotten
        if is_new:
            await line.replica.forget(origin)
            self._node.runtime.note(
                "line_forgotten", f"the line of {origin} is forgotten: its files go to the archive", line.line
            )
        await forgotten.gone(origin, within_s, lambda: line.replica.union.standing.reason or "it goes on")
        return _document(line, asked, is_new, found, edits)

    def _is_dialled(self, origin: NodeName) -> bool:
        link = self._node.peers.uplinks.get(origin)
        return link is not None and link.is_up


def _document(
    line: OwnLine, asked: ForgetLineCommand, changed: bool, found: LineTotals | None, edits: int
) -> ForgottenDocument:
    return ForgottenDocument(
        fileset=line.fileset.name,
        origin=asked.origin,
        changed=changed,
        dry_run=asked.dry_run,
        generation=found.head.number if found is not None else None,
        paths=found.entries if found is not None else 0,
        bytes=found.size_bytes if found is not None else 0,
        edits=edits,
    )


def _own(line: OwnLine) -> RefusedError:
    name = line.fileset.name
    return RefusedError(
        f"{line.line.origin} is this node, and its own line of {name} stays",
        hint=f"instep fileset remove {name}",
        code="own_line",
    )


def _unknown(line: OwnLine, origin: NodeName) -> RefusedError:
    name = line.fileset.name
    known = ", ".join(sorted(line.replica.kept)) or "none"
    return RefusedError(
        f"{name} has no line of {origin} here; other homes: {known}",
        hint=f"instep status {name}",
        code="unknown_line",
        node=origin,
    )


def _here(origin: NodeName) -> ContentionError:
    return ContentionError(
        f"{origin} is connected, and would go on writing: it has not left",
        hint=f"instep partner remove {origin}",
        code="home_is_here",
        node=origin,
    )
