"""``rollback`` and ``restore``: bringing a writer's tree back to a generation."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from functools import partial

from instep.api import lines as api
from instep.api.parts import generation
from instep.core.publish import restore_vocabulary as s
from instep.errors import RefusedError, UnavailableError, UsageError
from instep.model.counts import counted, lasting, which
from instep.model.ids import HeadRef, NodeName, node_name
from instep.model.manifest.entry import Kind
from instep.model.paths import shown
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.outcomes import author, outcome_document, writer_of
from instep.node.commands.patience import works_of
from instep.node.commands.targets import generation_of, outside, running_service_of
from instep.node.lines.line_service import LineService
from instep.node.lines.partner_contents import PartnerContents
from instep.node.retrieval.fetching_out import FetchingOut
from instep.node.retrieval.git_export import LEFT_OUT_MAX, GitExport
from instep.node.retrieval.restoring_out import RestoringOut
from instep.node.writing.writer import WriterService

RESTORE_S = 3_600.0
SHOWN_S = 1.0
"""So often progress is shown."""


class Restores(CommandHandlers):
    async def rollback(self, asked: api.RollbackCommand, speaker: Speaker) -> api.OutcomeDocument:
        """The tree of an older generation, whatever lies there now, as a new generation."""
        service = writer_of(self._node, asked.fileset)
        target = generation_of(service, asked.generation)
        ask = partial(
            s.RestoreAsked,
            target=target,
            author=author(),
            message=asked.message or f"rolled back to generation {target.number}",
            accept_deletions=asked.accept_deletions,
            is_dry_run=asked.dry_run,
        )
        return await self._done(service, ask, asked.timeout_s, speaker)

    async def restore(self, asked: api.RestoreCommand, speaker: Speaker) -> api.OutcomeDocument:
        """Paths of the tree, or all of it, as a generation has them; the head's where none is named."""
        if asked.to is not None:
            return await self._restore_out(asked, asked.to)
        service = writer_of(self._node, asked.fileset)
        target = self._target(service, asked.generation)
        ask = partial(
            s.RestoreAsked,
            target=target,
            paths=paths_of(asked),
            author=author(),
            message=asked.message or f"restored from generation {target.number}",
            accept_deletions=asked.accept_deletions,
            is_dry_run=asked.dry_run,
            publishes=False,
            source=self._source(asked.source),
        )
        return await self._done(service, ask, asked.timeout_s, speaker)

    async def _restore_out(self, asked: api.RestoreCommand, to: str) -> api.OutcomeDocument:
        """Into a directory, on any node."""
        service = running_service_of(self._node, asked.fileset)
        to = outside(self._node, to)
        target = self._target(service, asked.generation)
        source = self._source(asked.source)
        lenders = tuple(each for each in service.lenders() if source in (None, each.who))
        partners = PartnerContents(service.line, lenders)
        senders = tuple(each for each in sorted(service.sources) if source in (None, each))
        work = RestoringOut(FetchingOut(service, target, partners, senders))
        changes = await work.changes(paths_of(asked))
        outside(self._node, to, [change.path for change in changes])
        await work.require_contents(changes)
        if not asked.dry_run:
            await work.write(changes, os.fsencode(to))
            were = which(len(changes), "was", "were")
            text = f"{counted(len(changes), 'path')} of generation {target.number} {were} written to {to}"
            self._node.runtime.note("restored", text, service.line, generation=target.number)
        return api.OutcomeDocument(
            fileset=service.fileset.name,
            changed=bool(changes) and not asked.dry_run,
            dry_run=asked.dry_run,
            to=to,
            generation=generation(target),
            added=len(changes),
            bytes=sum(c.new.size for c in changes if c.new is not None and c.new.kind is Kind.FILE),
        )

    async def export_git(self, asked: api.ExportGitCommand, speaker: Speaker) -> api.ExportDocument:
        """On any node, with the contents that are here or at its partners."""
        service = running_service_of(self._node, asked.fileset)
        _refuse_secret(service)
        to = outside(self._node, asked.to)

        async def progress(done: int, total: int) -> None:
            await speaker.progress("generations", done, total, "generations")

        export = GitExport(service, service.lenders(), sorted(service.sources))
        done = await export.run(os.fsencode(to), progress)
        if done.numbers:
            text = f"{counted(len(done.numbers), 'generation')} were written to {to} as commits"
            self._node.runtime.note("exported", text, service.line)
        return api.ExportDocument(
            fileset=service.fileset.name,
            to=to,
            changed=bool(done.numbers),
            written=tuple(done.numbers),
            skipped=tuple(api.SkippedDocument(number, reason) for number, reason in done.skipped),
            left_out=tuple(shown(path) for path in list(done.left_out)[:LEFT_OUT_MAX]),
            left_out_total=len(done.left_out),
        )

    def _target(self, service: LineService, number: int | None) -> HeadRef:
        """The generation of that number, or the head."""
        if number is not None:
            return generation_of(service, number)
        if service.facts.head is None:
            name = service.fileset.name
            raise UsageError(
                f"{name} has no generation yet: there is nothing to restore",
                hint=f"instep publish {name}" if service.is_written_here else f"instep status {name}",
                code="no_generation",
            )
        return service.facts.head

    def _source(self, named: str | None) -> NodeName | None:
        """The only partner that is asked for contents, where one is named: it has to be connected."""
        if named is None:
            return None
        name = node_name(named)
        if name not in self._node.peers.sessions and name not in self._node.peers.uplinks:
            raise UnavailableError(
                f"{name} is not connected",
                hint="see which are connected: instep partner list; without --from every connected partner is asked",
                code="not_connected",
                node=name,
            )
        return name

    async def _done(
        self,
        service: WriterService,
        ask: Callable[[int], s.RestoreAsked],
        within_s: float | None,
        speaker: Speaker,
    ) -> api.OutcomeDocument:
        limit_s = within_s or RESTORE_S
        try:
            async with works_of(service.ask(ask, limit_s)) as works:
                while not (await asyncio.wait(works, timeout=SHOWN_S))[0]:
                    done, total = service.restoring.progress
                    if total:
                        await speaker.progress("fetched from partners", done, total, "bytes")
                return outcome_document(service, works[0].result())
        except TimeoutError as error:
            raise UnavailableError(
                f"the restore of {service.fileset.name} did not end within {lasting(limit_s * 1000)}",
                hint=f"it goes on; see: instep status {service.fileset.name}",
                code="timed_out",
            ) from error


def _refuse_secret(service: LineService) -> None:
    """A repository keeps all that it was given, and of a secret one old version is kept at most."""
    definition = service.known_definition()
    if definition is not None and definition.is_secret:
        raise RefusedError(
            f"{service.fileset.name} is of class secret, and a git repository would keep every key of it",
            hint=f"instep log {service.fileset.name}",
            code="is_secret",
        )


def paths_of(asked: api.RestoreCommand) -> tuple[bytes, ...]:
    """The paths of a command, without slashes around them."""
    return tuple(path for each in asked.paths_b64 if (path := each.strip(b"/")))
