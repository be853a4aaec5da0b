"""Removing data that nothing needs any more: archive batches beyond their retention, old generations, pages
that no kept manifest names, and history of contents that no kept generation has.

The order is the reverse of naming: generations first, then pages, then contents. A fetcher is never cut off
from the head, the live generation or the one that a partner last reported (design, section 6).
"""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
from collections.abc import Iterable, Sequence
from typing import Protocol

from instep.core.retention import (
    FREE_MIN_SHARE,
    Batch,
    RetentionPolicy,
    at_most_bytes,
    kept_generations,
    plan_prune,
    plan_thinning,
)
from instep.errors import InstepError
from instep.model.counts import counted, sized, which
from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName, HeadRef
from instep.model.manifest.chunklist import decode_runs
from instep.model.manifest.leaves import forget_leaves
from instep.model.manifest.pages import level_of
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.owners import Foreign, foreign_in, of_written
from instep.node.following.lingering import end_due
from instep.node.lines.line_service import LineService
from instep.node.node import Node
from instep.node.trees.keeping.own_history import HistoryRoster
from instep.node.trees.keeping.page_walk import items_of, new_leaves, new_pages
from instep.node.upkeep.history_from_partners import HistoryFromPartners
from instep.node.upkeep.mending import Mending
from instep.store.port import NodeStore
from instep.tree.archive.archive import Archive

FIRST_S = 60.0
EVERY_S = 900.0
LOOK_S = 10.0
OWNERS_EVERY_S = 30.0
WARNED_BYTES = 1 << 20
"""An archive that is over by less is not what fills a disk."""
SHORT_EVERY_S = 60.0
"""So often an archive is tidied at most because its disk runs short."""
GENERATIONS_MAX = 2_000
"""So many generations of a line are kept at most, however young."""
log = logging.getLogger(__name__)


class PageUser(Protocol):
    """A service that keeps manifests which no generation names."""

    @property
    def is_at_work(self) -> bool:
        """Whether it has pages that nothing names yet."""
        ...

    def page_roots(self) -> list[Digest]: ...


class Housekeeping:
    """One task of the daemon. Nothing waits for it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.page_users: list[PageUser] = []
        self.mending = Mending(node.runtime)
        self._from_partners = HistoryFromPartners(node, self.mending)
        self._short_at: dict[FilesetName, float] = {}
        self._damage: dict[FilesetName, int] = {}
        """How much damage of a writer's history was known when it was mended last."""
        self.over_share: dict[FilesetName, str] = {}
        """The archives that took more than they may when they were tidied last, in words with what helps."""
        self.foreign: dict[FilesetName, Foreign] = {}
        """The owners of each tree that is written here, besides the daemon's own account."""
        self._owners_at: dict[FilesetName, float] = {}
        self.thinned: dict[FilesetName, str] = {}
        """The archives that were thinned when they were tidied last, in words."""

    async def look(self) -> None:
        """Mend rotten contents soon after a reader finds them, and thin an archive soon after its disk runs short: not
        with the next tidying. Its own task."""
        try:
            while True:
                await asyncio.sleep(LOOK_S)
                for service in list(self._node.services.values()):
                    if service.root.trouble is not None:
                        continue  # a hanging mount answers no call
                    if service.is_written_here and service.machine.phase is None:
                        await self._look_at(service)
                    await self._look_at_room(service)
        finally:
            await self._from_partners.close()

    async def _look_at(self, service: LineService) -> None:
        name, now = service.fileset.name, asyncio.get_running_loop().time()
        if now - self._owners_at.get(name, -OWNERS_EVERY_S) >= OWNERS_EVERY_S:
            self._owners_at[name] = now
            await asyncio.to_thread(self._look_at_owners, service)
        try:
            known = await asyncio.to_thread(_damage_of, service)
        except (InstepError, OSError):
            return  # the tree is not there: its standing says so
        if known > self._damage.get(name, 0):
            self._damage[name] = known
            await self._mend(service)
        self._from_partners.begin(service)

    def _look_at_owners(self, service: LineService) -> None:
        """Owners change after the first day, and where they do not travel no publish says so."""
        fileset = service.fileset
        before, now = self.foreign.get(fileset.name), foreign_in(fileset.path, os.geteuid())
        self.foreign[fileset.name] = now
        trouble = of_written(fileset, now)
        if trouble is not None and before is not None and not set(now.names) <= set(before.names):
            self._node.runtime.note(
                "owners_not_carried", trouble.words, service.line, owners=list(now.names), hint=trouble.hint
            )

    async def _look_at_room(self, service: LineService) -> None:
        name, now = service.fileset.name, asyncio.get_running_loop().time()
        try:
            usage = await asyncio.to_thread(shutil.disk_usage, service.fileset.path)
            before = self._short_at.get(name)
            if usage.free >= usage.total * FREE_MIN_SHARE:
                if self._short_at.pop(name, None) is None:
                    return  # else the words in status about the shortage go
            elif before is not None and now - before < SHORT_EVERY_S:
                return
            else:
                self._short_at[name] = now
            await service.worker.run(self._prune_archive, service)
        except (InstepError, OSError) as error:
            log.info("%s: the archive was not thinned: %s", service.line, error)

    async def run(self) -> None:
        for service in list(self._node.services.values()):
            await self._mend(service)
        await asyncio.sleep(FIRST_S)
        while True:
            for service in list(self._node.services.values()):
                try:
                    await self._tidy(service)
                except (InstepError, OSError) as error:
                    log.warning("%s was not tidied: %s", service.line, error)
            try:
                await self.sweep()
            except (InstepError, OSError) as error:
                log.warning("pages were not swept: %s", error)
            forget_leaves()
            await asyncio.sleep(EVERY_S)

    async def _mend(self, service: LineService) -> None:
        try:
            if await service.worker.run(self.mending.mend, service):
                kept = await asyncio.to_thread(self.forget_generations, service)
                await service.worker.run(self._collect_history, service, kept)
            if service.is_written_here:
                self._damage[service.fileset.name] = await asyncio.to_thread(_damage_of, service)
                self._from_partners.begin(service)
        except (InstepError, OSError) as error:
            log.warning("damage by the disk in %s was not mended: %s", service.line, error)

    async def _tidy(self, service: LineService) -> None:
        await self._mend(service)
        await service.worker.run(self._prune_archive, service)
        kept = await asyncio.to_thread(self.forget_generations, service)
        if service.is_written_here:
            await service.worker.run(self._collect_history, service, kept)
        for other in service.beside:
            await asyncio.to_thread(self.forget_generations, other)

    def _prune_archive(self, service: LineService) -> None:
        place = service.tree.place()
        end_due(service.tree, place)
        archive = Archive(place)
        batches = archive.batches()
        held = sum(batch.size_bytes for batch in batches)
        policy = retention_of(service.fileset, held_bytes=held, definition=service.known_definition())
        now_ms = self._now_ms(service, batches)
        plan = plan_prune(batches, policy, now_ms)
        if plan.names:
            freed = archive.prune(plan.names)
            many = len(plan.names)
            older = f"{counted(many, 'batch', 'batches')} of the archive {which(many, 'is', 'are')} older"
            text = f"{older} than its retention and {which(many, 'was', 'were')} removed"
            self._node.runtime.note("archive_pruned", text, service.line, bytes=freed)
        name = service.fileset.name
        self.over_share.pop(name, None)
        self.thinned.pop(name, None)
        over = plan.over_share_bytes
        if over:
            kept = [batch for batch in batches if batch.name not in plan.names]
            over = max(0, over - self._thin(service, archive, kept, policy, now_ms))
        if over >= WARNED_BYTES:
            share = f"{service.fileset.archive.max_share_percent:g}%"
            self.over_share[name] = words = (
                f"the archive of {name} holds {sized(over)} more than max_share, {share} of its disk, or "
                f"than leaves {FREE_MIN_SHARE:.0%} of it free, within its retention; see what would go: "
                f"instep archive prune {name} --keep-last 1 --keep-within 1d --dry-run"
            )
            log.warning("%s", words)

    def _thin(
        self,
        service: LineService,
        archive: Archive,
        batches: Sequence[Batch],
        policy: RetentionPolicy,
        now_ms: int,
    ) -> int:
        """Remove older versions until the archive is within its share; the bytes that this frees."""
        names = plan_thinning(batches, archive.versions(), policy, now_ms)
        if not names:
            return 0
        freed = archive.prune(names)
        many, name = len(names), service.fileset.name
        text = (
            f"the archive of {name} was thinned to keep within max_share, or its disk from running full: "
            f"{counted(many, 'batch', 'batches')} "
            f"{which(many, 'was', 'were')} removed, each with a newer version of the same files beside it"
        )
        self.thinned[name] = text
        self._node.runtime.note("archive_pruned", text, service.line, bytes=freed)
        return freed

    def _now_ms(self, service: LineService, batches: Sequence[Batch]) -> int:
        """By the clock of the retention."""
        store, fileset = self._node.runtime.store, service.fileset
        return self._node.runtime.retention.now_ms(
            store, fileset.name, batches, fileset.archive.keep_within_ms
        )

    def forget_generations(self, service: LineService) -> tuple[HeadRef, ...]:
        """Drop generations that no node needs; return those that stay."""
        store = self._node.runtime.store
        known = [signed.ref() for signed in store.generations(service.line, 1_000_000)]
        in_use = [head.id for head in service.in_use()]
        in_use += [r.live.id for r in service.reports().values() if r.live is not None]
        policy = service.fileset.archive
        since = self._now_ms(service, ()) - policy.keep_within_ms
        recent = 0
        for ref in known[:GENERATIONS_MAX]:
            signed = store.generation(ref.id)
            if signed is None or signed.body().time_ms < since:
                break
            recent += 1
        kept = kept_generations(known, service.head, in_use, max(policy.keep_last, recent))
        ids = {ref.id for ref in kept}
        gone = [ref.id for ref in known if ref.id not in ids]
        if gone:
            store.delete_generations(gone)
            log.info("%s: %d generations were let go, %d are kept", service.line, len(gone), len(kept))
        return kept

    def _collect_history(self, service: LineService, kept: tuple[HeadRef, ...]) -> None:
        if service.machine.phase is not None:
            return  # nothing names a survey's contents before its commit
        store = self._node.runtime.store
        history = service.tree.history
        live: set[Digest] = set()
        seen: set[Digest] = set()
        for ref in kept:
            for entries in new_leaves(store, [ref.root], seen):
                live.update(entry.digest for entry in entries if history.has(entry.digest))
        roster = HistoryRoster(store, service.fileset.name)
        lost = roster.removed(history).large
        freed = history.collect(live.__contains__)
        roster.record(history, lost)
        if freed:
            log.info("%s: history let go of %s", service.line, sized(freed))

    async def sweep(self) -> int | None:
        """Drop pages that no known generation of any line names; how many. None while some line is at work: its
        pages are named by nothing yet. Work that begins after the ticket was taken is spared by the ticket."""
        if any(service.is_at_work for service in self._node.services.values()):
            return None
        if any(user.is_at_work for user in self.page_users):
            return None
        ticket = self._node.runtime.store.begin_sweep()
        for service in self._node.services.values():
            if not service.is_written_here and await service.worker.run(service.keeps_stage):
                return None
        return await asyncio.to_thread(self._sweep, ticket)

    def _sweep(self, ticket: int) -> int:
        store = self._node.runtime.store
        seen: set[Digest] = set()
        chunk_roots: set[Digest] = set()
        for row in store.lines():
            roots = [signed.body().root for signed in store.generations(row.line, 1_000_000)]
            for entries in new_leaves(store, roots, seen):
                for entry in entries:
                    if entry.extra is not None and entry.extra.chunks is not None:
                        chunk_roots.add(entry.extra.chunks)
        for service in list(self._node.services.values()):
            for _ in new_pages(store, service.page_roots(), seen):
                pass
        for user in self.page_users:
            for _ in new_pages(store, user.page_roots(), seen):
                pass
        _mark_chunk_pages(store, chunk_roots, seen)
        return store.sweep_pages(seen, ticket)


def _damage_of(service: LineService) -> int:
    return len(service.tree.history.damage_now())


def _mark_chunk_pages(store: NodeStore, roots: Iterable[Digest], seen: set[Digest]) -> None:
    pending = list(roots)
    while pending:
        digest = pending.pop()
        if digest in seen:
            continue
        seen.add(digest)
        raw = store.get_page(digest)
        if raw is None:
            continue
        runs = items_of(digest, raw, lambda raw: decode_runs(raw, level_of(raw)) if level_of(raw) else [])
        pending += [run.digest for run in runs]


def retention_of(
    fileset: FilesetSettings,
    keep_last: int | None = None,
    keep_within_ms: int | None = None,
    held_bytes: int = 0,
    *,
    definition: Definition | None = None,
) -> RetentionPolicy:
    """How long the archive of a fileset, which takes ``held_bytes``, is kept, with an operator's own numbers instead of
    the settings'."""
    if definition is not None and definition.is_secret:
        return RetentionPolicy(keep_last=min(1, 1 if keep_last is None else keep_last), keep_within_ms=0)
    settings = fileset.archive
    usage = shutil.disk_usage(fileset.path)
    return RetentionPolicy(
        keep_last=keep_last if keep_last is not None else settings.keep_last,
        keep_within_ms=keep_within_ms if keep_within_ms is not None else settings.keep_within_ms,
        max_bytes=at_most_bytes(usage.total, usage.free, held_bytes, settings.max_share_percent),
        keep_hourly=settings.keep_hourly,
        keep_daily=settings.keep_daily,
    )
