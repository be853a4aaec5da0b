"""One fileset's tree on this node: its thread, its root, its watch. Lines come and go on it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName, HeadRef, LineId
from instep.model.statrow import StatRow
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.mounts import require_mount
from instep.node.runtime.runtime import Runtime, Worker
from instep.node.trees.definitions import definition_of
from instep.node.trees.keeping.page_walk import must_have
from instep.node.trees.keeping.shared_history import SharedHistory, contents_in
from instep.node.trees.placing import Taken, find_root
from instep.node.trees.scanning.watching import TreeWatch
from instep.node.trees.tree_comparison import TreeComparison
from instep.store.port import NodeStore
from instep.tree.archive.contents import Contents
from instep.tree.objects.fidelity import Local
from instep.tree.root.place import Place

__all__ = ["FilesetTree"]


class FilesetTree:
    """The tree that a line writes or follows, as the line needs it. Work on files runs in ``worker``."""

    def __init__(self, runtime: Runtime, fileset: FilesetSettings) -> None:
        self.runtime = runtime
        self.fileset = fileset
        self.worker = Worker(f"tree-{fileset.name}")
        self.watch: TreeWatch | None = None
        self.verifying: TreeComparison | None = None
        """The last verify that was begun."""

    @property
    def name(self) -> FilesetName:
        return self.fileset.name

    @property
    def line(self) -> LineId:
        return self.fileset.line

    @property
    def store(self) -> NodeStore:
        return self.runtime.store

    def taken(self) -> Taken:
        """The root with its marker, looked at again each time; raises when it is not ours or not there (P10).
        A tree that is only observed has no marker."""
        fileset = self.fileset
        if fileset.observe:
            require_mount(fileset.name, Path(os.path.realpath(fileset.path)), fileset.expect_mount)
            return Taken(Place(fileset.path, fileset.path / ".instep", fileset.name), None)
        runtime = self.runtime
        return find_root(
            runtime.store, runtime.settings, fileset.name, fileset.path, runtime.directory.path, fileset.stage
        )

    def place(self) -> Place:
        return self.taken().place

    def get_page(self, digest: Digest) -> bytes:
        """A page of a manifest or a chunk list. ``KeyError`` when it is not here."""
        return must_have(self.store.get_page)(digest)

    def definition_of(self, head: HeadRef) -> Definition | None:
        """The definition that a known generation names, once it is here."""
        return definition_of(self.store, head)

    def stat_row(self, path: bytes) -> StatRow | None:
        """The row of one file in the stat cache."""
        return self.store.stat_row(self.name, path)

    def stat_rows(self) -> Iterator[StatRow]:
        """Every row of the stat cache, read by whichever thread asks."""
        return self.store.stat_rows(self.name)

    def contents(self, history: SharedHistory | None = None) -> tuple[Contents, Path]:
        """Every content of the fileset on this node, and the archive that it was indexed from."""
        return contents_in(self.place(), self.stat_rows, history)

    def inspection(self, definition: Definition, local: Local, taken: Taken) -> TreeComparison:
        """A look at the tree as it lies there, by the rules of ``definition``."""
        return TreeComparison(self.store, taken.place, self.name, definition, local, taken.marker)

    def verified_bytes(self) -> int:
        """How far the verify under way has read."""
        return self.verifying.read_bytes if self.verifying is not None else 0
