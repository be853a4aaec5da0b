"""Mends damage by the disk in the archive and in a writer's history, and names the rest.

A history gets lost contents back from the tree and from the archive, by digest; contents that neither has are left to
the partners (``history_from_partners``). An archive index gets its lines back from the objects themselves, whose
names are made of their paths.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from instep.errors import DamagedError
from instep.model.counts import counted, which
from instep.model.ids import Digest, FilesetName
from instep.model.manifest.entry import Entry, Kind
from instep.model.paths import shown
from instep.node.lines.line_service import LineService
from instep.node.runtime.runtime import Runtime
from instep.node.trees.keeping.own_history import HistoryRoster, Removed, history_keeps
from instep.node.trees.keeping.page_walk import new_leaves
from instep.tree.archive.contents import Contents
from instep.tree.archive.history import History
from instep.tree.archive.index import damaged_batches, mend_index
from instep.tree.journal.plan import object_key
from instep.tree.root.control_folder import opened
from instep.tree.root.place import Place

NAMED_MAX = 20
LOST_MAX = 100_000
LOOK_HINT = (
    "the disk changes what it was given: look at the kernel log and replace it; the node retries by itself"
)


@dataclass(slots=True)
class Mended:
    """The known damage of one fileset's own records. ``lost`` are entries whose contents are nowhere on this node, each
    content once, at most ``LOST_MAX``."""

    damage: list[str] = field(default_factory=list)
    lost: list[Entry] = field(default_factory=list)
    kept_aside: list[str] = field(default_factory=list)


class RecordsRow(NamedTuple):
    """One row of ``check``."""

    name: str
    is_ok: bool
    ours: str
    theirs: str | None
    hint: str | None


class Mending:
    """Synchronous, in the fileset's worker thread. ``found`` is what ``check`` shows."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._told: set[tuple[FilesetName, str]] = set()
        self.found: dict[FilesetName, Mended] = {}

    def mend(self, service: LineService) -> bool:
        """Look, name, mend. True when the history's damaged packs should be written anew."""
        mended = Mended()
        place = service.tree.place()
        self._mend_archive(service, place, mended)
        history = service.history
        is_due = history is not None and self._mend_history(service, history, place, mended)
        self.found[service.fileset.name] = mended
        return is_due

    def rows(self, fileset: FilesetName) -> Iterator[RecordsRow]:
        """What ``check`` says of the fileset's own files."""
        mended = self.found.get(fileset)
        if mended is None:
            return
        name = f"records of {fileset}"
        for text in mended.damage:
            yield RecordsRow(name, False, text, "whole records", LOOK_HINT)
        if mended.lost:
            shown_paths = ", ".join(shown(entry.path) for entry in mended.lost[:3])
            text = f"{_lost(mended)}: {shown_paths}"
            hint = (
                f"see which generations can be restored, and from where: instep log {fileset}; partners that are "
                "connected are asked for them again and again"
            )
            yield RecordsRow(name, False, text, "all contents of the generations that are kept", hint)
        if mended.kept_aside:
            text = (
                f"{len(mended.kept_aside)} damaged or torn files are kept for a look: {mended.kept_aside[0]}"
            )
            yield RecordsRow(name, True, text, None, None)

    # the archive

    def _mend_archive(self, service: LineService, place: Place, mended: Mended) -> None:
        with opened(place) as there:
            for path, index in damaged_batches(there.archive):
                file = os.fsdecode(there.by_name(path) + b"/index")
                if index.gone:
                    paths = ", ".join(shown(item.path) for item in index.gone[:3])
                    text = f"{len(index.gone)} archived objects were removed, and not by instep: {paths}"
                    self._name(service, mended, "archive_objects_gone", os.path.dirname(file), text)
                if not index.is_damaged:
                    continue
                lost = (
                    "its end"
                    if not index.damage
                    else counted(len(index.damage), "stretch of bytes", "stretches of bytes")
                )
                self._name(service, mended, "archive_index_damaged", file, f"{lost} cannot be read")
                found = mend_index(path, lambda keys: self._paths_of(service, keys))
                mended.damage.pop()
                self._runtime.note(
                    "archive_index_mended",
                    f"{file} was written anew from the objects that it names; the old one is kept beside it",
                    service.line,
                    file=file,
                    items=len(found.items),
                )
            aside = there.archive.glob("*/index.*-*")
            kept = sorted(os.fsencode(each) for each in aside if not each.name.endswith(".new"))
            mended.kept_aside += [os.fsdecode(there.by_name(each)) for each in kept]

    def _paths_of(self, service: LineService, keys: frozenset[bytes]) -> Mapping[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        for entry in self._entries(service):
            key = object_key(entry.path)
            if key in keys:
                found[key] = entry.path
        return found

    def _entries(self, service: LineService) -> Iterator[Entry]:
        """Entries of all generations that are known here; equal pages once."""
        store = self._runtime.store
        seen: set[Digest] = set()
        for signed in store.generations(service.line, 1_000_000):
            for entries in new_leaves(store, [signed.body().root], seen):
                yield from entries

    # the history

    def _mend_history(self, service: LineService, history: History, place: Place, mended: Mended) -> bool:
        damage = history.damage_now()
        for each in damage:
            file = str(place.history / each.file)
            what = "is torn" if each.is_tail else "was changed by the disk"
            text = f"{each.length} bytes at {each.offset}: the file {what}, or removed"
            self._name(service, mended, "history_damaged", file, text)
        mended.kept_aside += [str(place.history / name) for name in history.kept_aside()]
        roster = HistoryRoster(self._runtime.store, service.fileset.name)
        removed = roster.removed(history)
        is_known = bool(damage or mended.kept_aside)
        if not is_known and not removed.packs and not removed.large:
            roster.record(history, ())
            return False
        put = self._put_back(service, history, mended, removed if not is_known else None)
        history.sync()
        if put or mended.lost:
            self._name_removed(service, place, mended, removed)
        roster.record(history, (entry.digest for entry in mended.lost))
        if put:
            were = which(put, "was", "were")
            text = (
                f"{counted(put, 'content')} that the history had lost {were} put back from tree and archive"
            )
            self._runtime.note("history_mended", text, service.line, contents=put)
        known = self.found.get(service.fileset.name, Mended())
        if mended.lost and damage and known.lost != mended.lost:
            paths = [shown(entry.path) for entry in mended.lost[:NAMED_MAX]]
            text = f"{_lost(mended)}: {paths[0]}; partners are asked"
            self._runtime.note("history_lost", text, service.line, contents=len(mended.lost), paths=paths)
        mended.damage = []  # the rest is in ``lost``
        return any(not each.is_tail for each in damage)

    def _name_removed(self, service: LineService, place: Place, mended: Mended, removed: Removed) -> None:
        large = sorted(digest.hex() for digest in removed.large)
        for name in [*map(os.fsdecode, removed.packs), *(f"{each[:2]}/{each}" for each in large[:NAMED_MAX])]:
            text = "the file was removed, and not by instep"
            self._name(service, mended, "history_damaged", str(place.history / name), text)

    def _put_back(
        self, service: LineService, history: History, mended: Mended, removed: Removed | None
    ) -> int:
        """Put what the history has not from elsewhere on this node; how many. The rest is ``mended.lost``. Where files
        were ``removed`` and nothing else happened, only what they may have held."""
        needed = {
            entry.digest: entry
            for entry in self._entries(service)
            if entry.kind is not Kind.DIR
            and (removed is None or removed.may_have_held(entry.digest))
            and not history.has(entry.digest)
            and history_keeps(service.fileset, entry.size)
        }
        contents = service.tree.contents()
        contents.expect(needed.values())
        put = 0
        for entry in needed.values():
            if _put(history, entry, contents):
                put += 1
            elif len(mended.lost) < LOST_MAX:
                mended.lost.append(entry)
        return put

    def _name(self, service: LineService, mended: Mended, kind: str, file: str, what: str) -> None:
        text = f"{file}: {what}"
        mended.damage.append(text)
        if (service.fileset.name, text) not in self._told:
            self._told.add((service.fileset.name, text))
            self._runtime.note(kind, text, service.line, file=file)


def _lost(mended: Mended) -> str:
    many = len(mended.lost)
    return f"{counted(many, 'content')} of older generations {which(many, 'is', 'are')} lost here"


def _put(history: History, entry: Entry, contents: Contents) -> bool:
    """Whether the content is on this node; one that changes under the copy is not taken."""
    if entry.kind is Kind.SYMLINK:
        target = contents.target(entry)
        if target is not None:
            history.put(entry.digest, target)
        return target is not None
    fd = contents.open(entry)
    if fd is None:
        return False
    try:
        history.put_file(entry.digest, fd, entry.size)
    except DamagedError:
        return False
    finally:
        os.close(fd)
    return True
