"""The findings of a scan of the simulated writer's tree."""

from __future__ import annotations

from msgspec.structs import replace

from instep.core.guards.held import HeldPaths, ScanProblem, is_held
from instep.core.guards.losses import Lost, losses_since
from instep.core.publish import vocabulary as p
from instep.core.vocabulary import HookWrite
from instep.model.ids import Digest, HeadRef
from instep.model.manifest.diff import diff
from instep.model.manifest.edit import edit
from instep.model.manifest.manifest import build
from instep.model.manifest.walk import iterate, lookup
from instep.model.paths import sort_key
from instep.testing.world.disk import SMALL, content_digest, entry_of
from instep.testing.writers.writer_base import WriterBase

HOT = b"hot"
"""The path. Its contents come to the history by a copy only, as for large files."""


def scanned(writer: WriterBase, effect: p.Scan, *, definition_changed: bool) -> p.ScanSummary:
    """The tree against the base of the scan; paths that cannot be read keep the entries that the base has."""
    get, base = writer.store.get_page, effect.base
    problems = _problems(writer, effect)
    is_full = effect.is_full or effect.is_whole
    looked = is_full or HOT in {*effect.paths, *(each.path for each in effect.again)}
    if looked and (problem := hot_problem(writer, effect)) is not None:
        problems.append(problem)
    held = [each for each in problems if is_held(each)]
    skipped = {each.path for each in problems}
    if not is_full:
        assert base is not None
        changes = []
        for path in sorted({*effect.paths, *(each.path for each in effect.again)} - skipped, key=sort_key):
            data = writer.place.tree.get(path)
            old = lookup(base.root, path, get)
            new = None if data is None else entry_of(path, data, old.born_ms if old else 1)
            if old != new:
                changes.append((path, new))
        root = edit(base.root, changes, get, writer.store.put_page, SMALL)
    else:
        is_kept = base is not None and writer.world.plant != "removes_held"
        kept = (
            {}
            if base is None or not is_kept
            else {e.path: e for e in iterate(base.root, get) if e.path in skipped}
        )
        entries = {
            path: entry_of(path, data) for path, data in writer.place.tree.items() if path not in skipped
        }
        ordered = sorted((entries | kept).items())
        root = build((entry for _, entry in ordered), writer.store.put_page, SMALL)
    copied = HOT in effect.hot and looked and HOT not in skipped and HOT in writer.place.tree
    if copied:
        writer.hot_copies[content_digest(writer.place.tree[HOT])] = writer.place.tree[HOT]
    return replace(
        compared(writer, None if base is None else base.root, root),
        definition_changed=definition_changed,
        held=HeldPaths(tuple(held), len(held), len(held), 0),
        is_full=is_full,
        losses=_losses(writer, effect, root),
        copied=(HOT,) if copied else (),
        hook_writes=_by_the_hook(writer, base, root),
    )


def _by_the_hook(writer: WriterBase, base: HeadRef | None, root: Digest) -> tuple[HookWrite, ...]:
    """The change, where the hook's is the only one."""
    paths = [] if base is None else [c.path for c in diff(base.root, root, writer.store.get_page)]
    return writer.hook_writes.among(paths) if len(paths) == 1 else ()


def compared(writer: WriterBase, base: Digest | None, root: Digest) -> p.ScanSummary:
    """A manifest against its base, in numbers of paths."""
    get = writer.store.get_page
    found = list(diff(base, root, get))
    return p.ScanSummary(
        root=root,
        entries=len(writer.store.entries(root)),
        size_bytes=0,
        entries_before=0 if base is None else len(writer.store.entries(base)),
        added=sum(1 for c in found if c.old is None),
        changed=sum(1 for c in found if c.old is not None and c.new is not None),
        removed=sum(1 for c in found if c.new is None),
        changed_bytes=0,
        at_ms=writer.world.now,
    )


def _losses(writer: WriterBase, effect: p.Scan, root: Digest) -> tuple[Lost, ...]:
    get, now = writer.store.get_page, writer.world.now
    if effect.base is None:
        return ()
    return losses_since(effect.base.root, root, get, effect.since, now)


def _problems(writer: WriterBase, effect: p.Scan) -> list[ScanProblem]:
    """The paths that this scan cannot read, with the entry that each had."""
    base, get = effect.base, writer.store.get_page
    looked = None if effect.is_full or effect.is_whole else {*effect.paths, *(e.path for e in effect.again)}
    return [
        ScanProblem(
            path, "unreadable", "", int(base is not None and lookup(base.root, path, get) is not None)
        )
        for path in sorted(writer.unreadable)
        if path in writer.place.tree and (looked is None or path in looked)
    ]


def hot_problem(writer: WriterBase, effect: p.Scan) -> ScanProblem | None:
    """The hot file keeps its last entry while it cools, unless it is quiet."""
    quiet_ms = next((each.quiet_ms for each in effect.cooling if each.path == HOT), 0)
    if writer.world.now - writer.hot_at_ms >= quiet_ms or HOT not in writer.place.tree:
        return None
    base = effect.base
    has_entry = base is not None and lookup(base.root, HOT, writer.store.get_page) is not None
    return ScanProblem(HOT, "hot", "", int(has_entry))
