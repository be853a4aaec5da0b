"""Bringing a writer's own tree back to an earlier generation: an apply from history and archive. Synchronous."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from instep.errors import UnavailableError
from instep.model.definition import Definition, decode_definition
from instep.model.entry import Kind, same_but_for_times_of_directories
from instep.model.ids import Digest, HeadRef
from instep.model.manifest import diff
from instep.model.paths import shown
from instep.node.chunk_lists import recut
from instep.node.driver import wall_ms
from instep.node.recording import record_rows
from instep.tree.archive import Archive
from instep.tree.fidelity import Local
from instep.tree.recover import recover
from instep.tree.stage import Stage, Want
from instep.tree.stages import clear_stages
from instep.tree.switch import switch

if TYPE_CHECKING:
    from instep.node.survey import Surveyed
    from instep.node.writer import WriterService

__all__ = ["can_restore", "named_as", "recover_writer", "restore_tree"]

MISSING_NAMED_MAX = 20


def _get(service: WriterService) -> Callable[[Digest], bytes]:
    def get(digest: Digest) -> bytes:
        raw = service.runtime.store.get_page(digest)
        if raw is None:
            raise KeyError(digest)
        return raw

    return get


def recover_writer(service: WriterService) -> None:
    """Finish a rollback that a crash interrupted, before the tree is scanned."""
    place = service.tree.taken().place
    local = Local(preserve=frozenset(service.definition.preserve), is_own=True)
    recover(place, local=local, get_page=_get(service), now_ms=wall_ms())
    record_rows(service, place)
    clear_stages(place)


def restore_tree(service: WriterService, target: HeadRef, base: HeadRef | None) -> None:
    """Make the tree hold ``target``; what it replaces goes to the archive. ``UnavailableError``
    ``contents_missing`` names what neither history nor archive has; then nothing moved."""
    store = service.runtime.store
    signed = store.generation(target.id)
    raw = store.get_blob(signed.body().definition) if signed is not None else None
    definition = decode_definition(raw) if raw is not None else Definition()
    place = service.tree.taken().place
    archive = Archive(place).source()
    kept = service.tree.history
    local = Local(preserve=frozenset(definition.preserve), is_own=True)
    stage = Stage.open(
        place,
        target,
        base.root if base is not None else None,
        _get(service),
        definition,
        previous=base,
        local=local,
        live_row=lambda path: store.stat_row(service.fileset.name, path),
        sources=(kept, archive),
        recut=recut,
    )
    try:
        missing: list[Want] = []
        while wants := stage.wants():
            for want in wants:
                data = kept.get(want.digest) if not want.is_large else None
                if data is None and not want.is_large:
                    data = archive.readlink(want.entry)
                if data is None:
                    missing.append(want)
                else:
                    stage.lay(want, data)
            if missing:
                _refuse(target, missing)
        journal = stage.seal(time.time_ns())
    finally:
        stage.close()
    switch(place, journal, local=local, get_page=_get(service), now_ms=wall_ms())
    record_rows(service, place)
    clear_stages(place)


def named_as(service: WriterService, surveyed: Surveyed, target: HeadRef) -> Surveyed:
    """What was surveyed after a rollback, with the very root of ``target`` when the tree holds just that: paths that
    were gone meanwhile keep the moment when they were first published."""
    try:
        for change in diff(target.root, surveyed.summary.root, _get(service)):
            if change.old is None or change.new is None:
                return surveyed
            if not same_but_for_times_of_directories(change.old, change.new):
                return surveyed
    except KeyError:
        return surveyed
    summary = dataclasses.replace(surveyed.summary, root=target.root)
    return dataclasses.replace(surveyed, summary=summary, pages=None)


def can_restore(service: WriterService, target: HeadRef) -> bool:
    """Whether every content of ``target`` is in the live manifest, the history or the archive."""
    get = _get(service)
    head = service.head
    if head is None:
        return False
    here: set[Digest] = set()
    archive = Archive(service.tree.taken().place).source()
    kept = service.tree.history
    try:
        for change in diff(head.root, target.root, get):
            entry = change.new
            if entry is None or entry.kind is Kind.DIR or entry.digest in here:
                continue
            if change.old is not None and change.old.digest == entry.digest:
                continue
            if not kept.has(entry.digest):
                fd = archive(entry)
                if fd is None:
                    return False
                os.close(fd)
            here.add(entry.digest)
    except KeyError:
        return False
    return True


def _refuse(target: HeadRef, missing: list[Want]) -> None:
    paths = [shown(want.entry.path) for want in missing[:MISSING_NAMED_MAX]]
    raise UnavailableError(
        f"the contents of {paths[0]} and {len(missing) - 1} more are not kept here any more"
        if len(missing) > 1
        else f"the contents of {paths[0]} are not kept here any more",
        hint="instep log shows which generations can be restored, and from where",
        code="contents_missing",
        generation=target.number,
        paths=paths,
    )
