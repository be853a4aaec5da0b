"""The tree of a fileset that is written here: scanned, served, verified, restored from. Synchronous.

Everything runs in the fileset's worker thread but for ``serving``, whose contents are read by requests of peers.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import msgspec

from instep.core.authors import AUTO_AUTHOR
from instep.core.publish import vocabulary as v
from instep.core.publish.hold import HOLD, MOST
from instep.errors import ContentionError
from instep.model.definition import Definition
from instep.model.ids import Digest, HeadRef
from instep.model.paths import shown
from instep.net.messages.messages import BUNDLE_BYTES_MAX
from instep.node.runtime.driver import wall_ms
from instep.node.trees.drift_look import CostWatch
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.keeping.hot_copies import HotCopies
from instep.node.trees.keeping.own_history import history_keeps
from instep.node.trees.scanning.hold_paths import first_there
from instep.node.trees.scanning.tree_stamps import TreeStamps
from instep.node.trees.scanning.writer_scan import WriterScan, WriterScanned
from instep.node.trees.served_tree import ServedTree
from instep.node.trees.switch_outcome import refuse_open_journal
from instep.node.trees.tree_comparison import Numbers
from instep.tree.journal.journal import Journal
from instep.tree.objects.owners import Owners
from instep.tree.root.beneath import Root
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.writable import require_writable_folder
from instep.tree.scan.compare import Difference
from instep.tree.scan.settling import Settling

BUNDLE_CONTENT_MAX = 128 << 10
OWNERS_OF_MAX = 256
"""Of a publish with more changed paths no owner is named."""
COMMIT_BEFORE = register("publish.commit.before")


class WriterTree:
    """The acts of an own line on its tree. ``contents`` are the small files that the last survey read. ``post`` hands
    an event to the line's machine."""

    def __init__(self, tree: FilesetTree, post: Callable[[v.TreeChanged | v.ContentMissed], None]) -> None:
        self._tree = tree
        self._post = post
        self.hot = HotCopies(tree.store, tree.name, lambda size: history_keeps(tree.fileset, size))
        self.serving = ServedTree(tree, self._suspect, lambda path: post(v.ContentMissed(path)), self._shown)
        self.contents: dict[Digest, bytes] = {}
        self._contents_bytes = 0
        self._owners = Owners()
        self._stamps = TreeStamps()

    @property
    def definition(self) -> Definition:
        definition = self._tree.fileset.definition
        assert definition is not None, "a fileset that is written here has its definition in instep.toml"
        return definition

    def _shown(self, path: bytes) -> bytes:
        """The path in the tree of a path of the line."""
        return path

    def before_commit(self, effect: v.Commit, scanned: WriterScanned | None) -> v.Commit:
        """Make the history durable. Where no operator asked for the publish, the author is the user who owns all files
        that changed, where it is one; a directory and a removed path say nothing."""
        failpoint(COMMIT_BEFORE)
        self._tree.history.sync()
        if effect.author:
            return effect
        owners = self._owners_of(scanned.paths) if scanned is not None else set()
        of = f", files of {self._owners.user_of(owners.pop())}" if len(owners) == 1 else ""
        return msgspec.structs.replace(effect, author=AUTO_AUTHOR + of)

    def _owners_of(self, paths: Sequence[bytes]) -> set[int]:
        if len(paths) > OWNERS_OF_MAX:
            return set()
        try:
            with Root(self._tree.fileset.path) as root:
                found = [root.stat_or_none(path) for path in paths]
        except OSError:
            return set()  # the root went after the scan: the next one reports it
        return {one.st_uid for one in found if one is not None and stat.S_ISREG(one.st_mode)}

    def _suspect(self, path: bytes) -> None:
        """On the event loop. The next scan reads the file whatever its stat says, and finds it damaged."""
        self._keep_suspects(self.suspects() | {path})
        self._post(v.TreeChanged((path,)))

    def _hold(self, effect: v.Scan) -> bytes | None:
        """A path of ``hold_while`` that exists; ``ContentionError`` ``hold_while`` where the scan shall wait for it."""
        fileset = self._tree.fileset
        if not fileset.hold_while:
            return None
        with Root(fileset.path) as root:
            found = first_there(root, fileset.hold_while)
        if found is None or not effect.holds:
            return found
        raise ContentionError(
            f"publishing waits while {shown(found)} exists, at most {MOST}",
            hint=f"it goes on by itself once that is gone; at once with: instep publish {fileset.name}",
            code=HOLD,
            path=shown(found),
        )

    def survey(
        self, effect: v.Scan, is_full: bool, trees: list[bytes], touched: list[bytes]
    ) -> WriterScanned:
        taken = self._tree.taken()
        require_writable_folder(taken.place.control)
        refuse_open_journal(Journal.load(taken.place), self._tree.name)
        self._hold(effect)
        self.contents = {}
        self._contents_bytes = 0
        suspects = self.suspects()
        marker = taken.marker
        assert marker is not None, "a writer does not observe"
        survey = WriterScan(
            taken.place,
            self._tree.name,
            self.definition,
            lambda: marker,
            self._sink,
            suspects,
            self._settling(effect),
            effect.since,
            effect.lets_go,
            effect.accepted,
        )
        self.hot.begin(self._tree.history)
        store = self._tree.store
        base = effect.base.root if effect.base is not None else None
        definition, root = self.definition.digest, taken.place.root
        known = self._stamps.of(base, definition, root) if base is not None else None
        if is_full or base is None or (effect.is_whole and known is None):
            watch = CostWatch()
            surveyed = survey.everything(store, base, wall_ms(), deep=effect.is_deep)
            summary = msgspec.structs.replace(surveyed.summary, cost=watch.cost())
        else:
            parents = {p.rpartition(b"/")[0] for p in (*trees, *touched)} - {b""}
            parents |= {p.path.rpartition(b"/")[0] for p in effect.again} - {b""}
            alone = [*touched, *parents, *sorted(suspects)]
            seen = partial(survey.whole, store, base, known) if effect.is_whole and known else None
            surveyed = (seen or partial(survey.some, store, base))(
                trees, alone, wall_ms(), effect.again, reads_open=effect.reads_open
            )
            summary = surveyed.summary
        self._stamps.looked(known, definition, root, surveyed)
        self._keep_suspects(surveyed.damaged)
        is_changed = self._definition_changed(effect.base)
        summary = msgspec.structs.replace(
            summary, copied=self.hot.made, definition_changed=is_changed, hold_path=self._hold(effect)
        )
        return replace(surveyed, summary=summary)

    def _settling(self, effect: v.Scan) -> Settling:
        fileset, watch, history = self._tree.fileset, self._tree.watch, self._tree.history
        return Settling(
            fileset.settle_ms * 1_000_000,
            fileset.settle_max_ms * 1_000_000,
            written=watch.written if watch is not None else frozenset(),
            hot=frozenset(effect.hot),
            cooling={each.path: each.quiet_ms * 1_000_000 for each in effect.cooling},
            copy=lambda path, digest, fd: self.hot.copy(history, path, digest, fd),
        )

    def suspects(self) -> frozenset[bytes]:
        """Files found damaged: recorded until their stat says that they were written anew (P10)."""
        raw = self._tree.store.get(f"damaged/{self._tree.name}")
        return frozenset(msgspec.msgpack.decode(raw, type=list[bytes])) if raw is not None else frozenset()

    def _keep_suspects(self, suspects: frozenset[bytes]) -> None:
        if suspects != self.suspects():
            store = self._tree.store
            store.put(f"damaged/{self._tree.name}", msgspec.msgpack.encode(sorted(suspects)))

    def _definition_changed(self, base: HeadRef | None) -> bool:
        signed = self._tree.store.generation(base.id) if base is not None else None
        return signed is not None and signed.body().definition != self.definition.digest

    def _sink(self, digest: Digest, data: bytes | None, fd: int) -> None:
        """Receives every file as it is read: history keeps it, and small ones go along with the head."""
        if data is not None:
            if history_keeps(self._tree.fileset, len(data)):
                self._tree.history.put(digest, data, is_hashed=True)
            if len(data) <= BUNDLE_CONTENT_MAX and self._contents_bytes + len(data) <= BUNDLE_BYTES_MAX // 2:
                self.contents[digest] = data
                self._contents_bytes += len(data) + 32
        elif fd >= 0:
            size = os.fstat(fd).st_size
            if history_keeps(self._tree.fileset, size):
                self._tree.history.put_file(digest, fd, size)

    def found_root(self, like: HeadRef) -> Digest:
        """The root of the tree as it lies there, before a restore to ``like``."""
        comparison = self._tree.comparison(like)
        return comparison.whole_root(like.root, wall_ms(), suspects=self.suspects(), distrusts=True)

    def verify(self, head: HeadRef, is_deep: bool) -> Numbers:
        """Files that are found damaged are suspects from now on."""
        damaged: set[bytes] = set()

        def noting(each: Difference) -> None:
            if each.problem is not None and each.problem.what == "damaged":
                damaged.add(each.path)

        numbers = self._tree.verify(head, is_deep, noting)
        if damaged:
            self._keep_suspects(self.suspects() | damaged)
        return numbers
