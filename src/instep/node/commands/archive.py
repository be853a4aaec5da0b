"""The archive of a fileset: objects that a switch replaced or removed, given back or let go."""

from __future__ import annotations

from collections import deque
from pathlib import Path

from msgspec import UNSET

from instep.api import archive as api
from instep.core.retention import plan_prune
from instep.errors import UsageError
from instep.model.counts import counted, which
from instep.model.manifest.entry import Entry
from instep.model.paths import path_fields, shown
from instep.node.commands.context import CommandHandlers
from instep.node.commands.control import Speaker
from instep.node.commands.targets import outside, path_of, service_of
from instep.node.lines.snapshot import moment
from instep.node.runtime.driver import wall_ms
from instep.node.upkeep.housekeeping import retention_of
from instep.tree.archive.archive import SET_ASIDE, Archive, Item
from instep.tree.journal.journal import ItemRecord

ITEMS_MAX = 100_000


class Archives(CommandHandlers):
    async def list(self, asked: api.ArchiveListCommand, speaker: Speaker) -> api.ArchiveListDocument:
        service = service_of(self._node, asked.fileset)

        def look() -> api.ArchiveListDocument:
            archive = Archive(service.tree.place())
            items: deque[api.ArchiveItemDocument] = deque(maxlen=ITEMS_MAX)
            for item in archive.list_items():
                if not asked.set_aside or item.why in SET_ASIDE:
                    items.appendleft(_document(item))
            return api.ArchiveListDocument(service.fileset.name, tuple(items), archive.total_bytes())

        return await service.worker.run(look)

    async def restore(self, asked: api.ArchiveRestoreCommand, speaker: Speaker) -> api.ArchiveRestoreDocument:
        service = service_of(self._node, asked.fileset)
        path = path_of(asked.path, asked.path_b64)
        if not path:
            raise UsageError(
                "archive restore needs a PATH", hint=f"instep archive list {service.fileset.name}"
            )
        to = Path(outside(self._node, asked.to, (path,)))

        changed: list[ItemRecord] = []

        def contents(entry: Entry) -> int | None:
            held = service.tree.contents()
            held.expect((entry,))
            return held.open(entry)

        def restore() -> bytes:
            archive, found = Archive(service.tree.place()), (path, to, asked.generation)
            return archive.restore(*found, changed.append, contents, set_aside=asked.set_aside)

        restored = await service.worker.run(restore)
        warnings = tuple(_warning(item) for item in changed)
        text = "; ".join((f"restored to {to}", *warnings))
        self._node.runtime.note("restored", text, service.line, **path_fields(path))
        at = restored.decode("utf-8", "replace")
        return api.ArchiveRestoreDocument(
            fileset=service.fileset.name, to=at, changed=True, warnings=warnings or UNSET, **path_fields(path)
        )

    async def prune(self, asked: api.ArchivePruneCommand, speaker: Speaker) -> api.ArchivePruneDocument:
        service = service_of(self._node, asked.fileset)
        definition = service.known_definition()

        def prune() -> api.ArchivePruneDocument:
            policy = retention_of(
                service.fileset, asked.keep_last, asked.keep_within_ms, definition=definition
            )
            archive = Archive(service.tree.place())
            batches = archive.batches()
            if asked.keep_within_ms is not None:  # an operator's own word about time
                names = plan_prune(batches, policy, wall_ms(), from_newest=False).names
            else:
                runtime, fileset = self._node.runtime, service.fileset
                now = runtime.retention.now_ms(runtime.store, fileset.name, batches, policy.keep_within_ms)
                names = plan_prune(batches, policy, now).names
            counts = sum(1 for item in archive.list_items() if item.batch in names)
            freed = archive.prune(names, dry_run=asked.dry_run)
            changed = bool(names) and not asked.dry_run
            return api.ArchivePruneDocument(
                service.fileset.name, changed, asked.dry_run, tuple(names), counts, freed
            )

        result = await service.worker.run(prune)
        if result.changed:
            many = len(result.batches)
            said = f"{counted(many, 'batch', 'batches')} of the archive {which(many, 'was', 'were')} pruned"
            self._node.runtime.note("archive_pruned", said, service.line, bytes=result.bytes)
        return result


def _document(item: Item) -> api.ArchiveItemDocument:
    return api.ArchiveItemDocument(
        generation=item.generation or None, at=moment(item.at_ms), why=item.why.value, bytes=item.size_bytes,
        entries=item.entries, batch=item.batch, **path_fields(item.path),
    )  # fmt: skip


def _warning(item: ItemRecord) -> str:
    return (
        f"it has other bytes than {shown(item.path)} had in generation {item.generation}: the disk or a program "
        "changed them without a new time and size"
    )
