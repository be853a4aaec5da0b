"""``rollback`` and ``restore``: bringing a writer's tree back to what a generation says."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from instep.core import restore_vocabulary as s
from instep.errors import UnavailableError, UsageError
from instep.model.counts import counted, which
from instep.model.entry import Kind
from instep.model.ids import NodeName, node_name
from instep.node.commands.outcomes import author, outcome_document, writer_of
from instep.node.commands.parameters import generation_of, running_service_of
from instep.node.control import Command, Params, Speaker
from instep.node.partner_contents import PartnerContents
from instep.node.restoring_out import RestoringOut
from instep.node.writer import WriterService

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["commands"]

RESTORE_S = 3_600.0
SHOWN_S = 1.0
"""So often progress is told."""


def commands(daemon: Daemon) -> Mapping[str, Command]:
    restores = Restores(daemon)
    return {"rollback": restores.rollback, "restore": restores.restore}


class Restores:
    def __init__(self, daemon: Daemon) -> None:
        self._daemon = daemon

    async def rollback(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """The tree of an older generation, whatever lies there now, as a new generation."""
        service = writer_of(self._daemon, params)
        target = generation_of(self._daemon.runtime.store, service, int(params["generation"]))
        message = str(params.get("message") or f"rolled back to generation {target.number}")
        asked = s.RestoreAsked(
            0,
            target,
            author=author(),
            message=message,
            accept_deletions=bool(params.get("accept_deletions")),
            is_dry_run=bool(params.get("dry_run")),
        )
        return await self._done(service, asked, speaker)

    async def restore(self, params: Params, speaker: Speaker) -> Mapping[str, Any]:
        """Paths of the tree, or all of it, as a generation has them; the head's where none is named."""
        if params.get("to") is not None:
            return await self._restore_out(params)
        service = writer_of(self._daemon, params)
        head = service.facts.head
        number = params.get("generation")
        if number is None and head is None:
            raise UsageError(
                f"{service.fileset.name} has no generation yet: there is nothing to restore",
                hint=f"instep publish {service.fileset.name}",
                code="no_generation",
            )
        target = head if number is None else generation_of(self._daemon.runtime.store, service, int(number))
        assert target is not None
        asked = s.RestoreAsked(
            0,
            target,
            paths=paths_of(params),
            author=author(),
            message=str(params.get("message") or f"restored from generation {target.number}"),
            accept_deletions=bool(params.get("accept_deletions")),
            is_dry_run=bool(params.get("dry_run")),
            publishes=False,
            source=self._source(params),
        )
        return await self._done(service, asked, speaker)

    async def _restore_out(self, params: Params) -> Mapping[str, Any]:
        """Into a directory, on any node."""
        service = running_service_of(self._daemon, params)
        name, to = service.fileset.name, os.fsencode(str(params["to"]))
        if not os.path.isabs(to):
            raise UsageError(f"{params['to']} is not an absolute path", code="no_directory")
        number, head = params.get("generation"), service.facts.head
        if number is None and head is None:
            raise UsageError(
                f"{name} has no generation yet", hint=f"instep status {name}", code="no_generation"
            )
        target = head if number is None else generation_of(self._daemon.runtime.store, service, int(number))
        assert target is not None
        source = self._source(params)
        partners: PartnerContents | None = None
        senders: tuple[NodeName, ...] = ()
        if isinstance(service, WriterService):
            lenders = self._daemon.peers.lenders(service.line)
            partners = PartnerContents(
                service.line, tuple(each for each in lenders if source in (None, each.who))
            )
        else:
            senders = tuple(each for each in sorted(service.sources) if source in (None, each))
        work = RestoringOut(service, target, partners, senders)
        changes = await work.changes(paths_of(params))
        await work.require_contents(changes)
        is_dry = bool(params.get("dry_run"))
        if not is_dry:
            await work.write(changes, to)
            were = which(len(changes), "was", "were")
            paths = counted(len(changes), "path")
            text = f"{paths} of generation {target.number} {were} written to {params['to']}"
            self._daemon.runtime.note("restored", text, service.line, generation=target.number)
        return {
            "fileset": name,
            "changed": bool(changes) and not is_dry,
            "dry_run": is_dry,
            "to": str(params["to"]),
            "generation": target.as_json(),
            "added": len(changes),
            "changed_paths": 0,
            "removed": 0,
            "bytes": sum(c.new.size for c in changes if c.new is not None and c.new.kind is Kind.FILE),
        }

    def _source(self, params: Params) -> NodeName | None:
        """The only partner that is asked for contents, where one is named: it has to be connected."""
        if params.get("from") is None:
            return None
        name = node_name(str(params["from"]))
        if name not in self._daemon.peers.sessions and name not in self._daemon.peers.uplinks:
            raise UnavailableError(
                f"{name} is not connected",
                hint="instep partner list shows who is; without --from every connected partner is asked",
                code="not_connected",
                node=name,
            )
        return name

    async def _done(
        self, service: WriterService, asked: s.RestoreAsked, speaker: Speaker
    ) -> Mapping[str, Any]:
        def make(number: int) -> s.RestoreAsked:
            return s.RestoreAsked(
                number,
                asked.target,
                asked.paths,
                asked.author,
                asked.message,
                asked.accept_deletions,
                asked.is_dry_run,
                asked.publishes,
                asked.source,
            )

        working = asyncio.get_running_loop().create_task(service.ask(make, RESTORE_S))
        try:
            while not (await asyncio.wait({working}, timeout=SHOWN_S))[0]:
                done, total = service.restoring.progress
                if total:
                    await speaker.progress("fetched from partners", done, total, "bytes")
            return outcome_document(service, working.result())
        except TimeoutError as error:
            raise UnavailableError(
                f"the restore of {service.fileset.name} did not end within {RESTORE_S:.0f} s",
                hint=f"it goes on; see: instep status {service.fileset.name}",
                code="timed_out",
            ) from error
        finally:
            working.cancel()


def paths_of(params: Params) -> tuple[bytes, ...]:
    """The paths of a command, exact bytes."""
    found = []
    for coded in params.get("paths_b64") or ():
        try:
            found.append(base64.b64decode(str(coded), validate=True).strip(b"/"))
        except binascii.Error as error:
            raise UsageError(f"paths_b64 is not base64: {error}") from error
    return tuple(path for path in found if path)
