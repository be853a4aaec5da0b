"""The tree of a fileset of many homes, as its union sees it: another view of the root that the own line scans."""

from __future__ import annotations

import os
from collections.abc import Callable
from shlex import quote

from instep.core.union.packages import PACKAGE_BYTES_MAX, names_any
from instep.errors import UnavailableError
from instep.model.counts import counted
from instep.model.definition import Definition, decode_definition
from instep.model.ids import Digest, FilesetName, HeadRef, NodeName
from instep.model.manifest.check import missing
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import diff
from instep.model.paths import sort_key
from instep.model.replication.union import Withheld
from instep.node.config.filesets import FilesetSettings
from instep.node.replica.laid import Laid, Unions
from instep.node.replica.stand import paths_named
from instep.node.trees.fileset_tree import FilesetTree
from instep.tree.root.beneath import Root
from instep.tree.root.tree_generation import path_of_record, union_held_by_tree
from instep.tree.scan.subtree import walk_below
from instep.tree.stage.package_order import packages_of
from instep.tree.stage.stages import staged_slot


class UnionTree(FilesetTree):
    """Its generations are unions. It has no watch: the own line looks at the tree."""

    def __init__(self, own: FilesetTree, fileset: FilesetSettings, unions: Unions) -> None:
        super().__init__(own.runtime, fileset, own.worker)
        self._unions = unions
        self.hook_writes = own.hook_writes
        unions.note_held = lambda union: self.hold(self.taken(), union, is_synced=True)

    def definition_of(self, head: HeadRef) -> Definition | None:
        record = self._unions.record(head.id)
        raw = self.store.get_blob(record.definition) if record is not None else None
        return decode_definition(raw) if raw is not None else None

    def is_known_whole(self, target: HeadRef) -> bool:
        return self._unions.record(target.id) is not None and not missing(target.root, self.store.get_page)

    def union_record(self, target: HeadRef) -> bytes:
        record = self._unions.record(target.id)
        return record.encoded() if record is not None else b""

    def found_paths(self) -> list[bytes]:
        """All paths that lie in the tree, in order."""
        with Root(self.place().root) as root:
            return sorted((each.path for each in walk_below(root, b"")), key=sort_key)

    def held_record(self) -> bytes:
        """The record of the union that the tree says it holds; empty where it says nothing."""
        taken = self.taken()
        self._unions.held_at = quote(str(path_of_record(taken.place)))
        return (
            b"" if taken.marker is None else union_held_by_tree(taken.place, self.line, taken.marker.random)
        )


def waiting_packages(
    stage: bytes | None,
    me: NodeName,
    target: Laid,
    now: Laid,
    definition: Definition,
    get_page: Callable[[Digest], bytes],
) -> tuple[Withheld, ...]:
    """The new and changed packages of other homes in ``target``, staged there, that name a file which it withholds. In
    the worker thread."""
    packages, held = packages_of(definition), [each.wanted.path for each in target.withheld]
    if packages is None or not held or stage is None:
        return ()
    found = []
    with Root(stage) as tree:
        for change in diff(now.united.root, target.united.root, get_page):
            if change.new is None or change.new.kind is not Kind.FILE:
                continue
            for source in target.ownership.of(change.path):
                if source.origin == me or not packages.ignored(source.path, is_dir=False):
                    continue
                slot = staged_slot(tree, change.path)
                if slot is None or not names_any(_contents(tree, slot), held):
                    continue
                line = now.lines.by_origin.get(source.origin)
                kept = line.lookup(source.path) if line is not None else None
                kept = None if kept is None or kept.kind is Kind.DIR or kept == source.entry else kept
                found.append(Withheld(source.origin, source.entry, kept))
    return tuple(found)


def _contents(tree: Root, slot: bytes) -> bytes:
    """Of a staged file as much as shows whether it is too large."""
    with open(tree.open(slot, os.O_RDONLY), "rb") as file:
        return file.read(PACKAGE_BYTES_MAX + 1)


def packages_wait(name: FilesetName, held: tuple[Withheld, ...]) -> UnavailableError:
    return UnavailableError(
        f"{counted(len(held), 'package')} of {name} wait for files that cannot be had: {paths_named(held)}",
        hint=f"instep retry {name}",
        code="package_waits",
    )
