"""The tree of a fileset of many homes, as its union sees it: another view of the root that the own line scans."""

from __future__ import annotations

from shlex import quote

from instep.model.definition import Definition, decode_definition
from instep.model.ids import HeadRef
from instep.model.manifest.check import missing
from instep.model.paths import sort_key
from instep.node.config.filesets import FilesetSettings
from instep.node.replica.laid import Unions
from instep.node.trees.fileset_tree import FilesetTree
from instep.tree.root.beneath import Root
from instep.tree.root.tree_generation import path_of_record, union_held_by_tree
from instep.tree.scan.subtree import walk_below


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
