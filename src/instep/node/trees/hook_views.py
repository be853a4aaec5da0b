"""The directories that a ``validate`` hook sees for the length of its call: the staged files of a generation, and where
a hook must see it whole (``nginx -t``, a drawn map) the tree as it will be."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence

from instep.core.vocabulary import HookKind, RunHook
from instep.errors import ResourceError
from instep.fleet.scratch import scratch_folder
from instep.model.ids import Digest
from instep.model.manifest.entry import Kind
from instep.model.manifest.manifest import Change
from instep.model.paths import shown
from instep.node.config.filesets import FilesetSettings
from instep.tree.root.beneath import Root
from instep.tree.stage.stages import staged_slot


@contextlib.contextmanager
def staged_view(stage: bytes, changed: Sequence[bytes]) -> Iterator[str]:
    """A directory for the length of a call in which ``changed`` paths that are staged have their own names.

    A staged file appears as a symbolic link to it, a symbolic link as itself, a directory as a directory. Paths
    without staged contents are absent: removed ones, moved directories, and those whose bytes stay the same.
    """
    with scratch_folder() as folder:
        view = os.fsencode(folder)
        with Root(stage) as tree:
            for path in changed:
                slot = staged_slot(tree, path)
                if slot is not None:
                    _show(tree, stage + b"/" + slot, slot, view + b"/" + path)
        yield str(folder)


def _show(tree: Root, staged: bytes, slot: bytes, name: bytes) -> None:
    mode = tree.stat(slot).st_mode
    if stat.S_ISDIR(mode):
        os.makedirs(name, exist_ok=True)
        return
    os.makedirs(os.path.dirname(name), exist_ok=True)
    os.symlink(tree.readlink(slot) if stat.S_ISLNK(mode) else staged, name)


VIEW_MAX = 100_000
"""Names in a view: it is made anew for every apply."""


@contextlib.contextmanager
def tree_view(root: bytes, stage: bytes, changes: Iterable[Change]) -> Iterator[str]:
    """A directory for the length of a call that holds the whole tree as it will be: ``root`` as it is live, with
    ignored paths, and ``changes`` on top. Files are symbolic links to staged or live ones. Symbolic links and
    directories are their own; a link to an absolute path below ``root`` leads into the view instead.
    ``ResourceError`` above ``VIEW_MAX`` names.
    """
    with scratch_folder() as folder:
        with Root(stage) as staged:
            _View(os.fsencode(folder), root, stage, staged).fill(changes)
        yield str(folder)


class _View:
    """Lays the view, never through a symbolic link: a tree may hold links to anywhere."""

    def __init__(self, folder: bytes, root: bytes, stage: bytes, staged: Root) -> None:
        self._folder = folder
        self._root = root
        self._stage = stage
        self._staged = staged
        self._names = 0

    def fill(self, changes: Iterable[Change]) -> None:
        self._link_live(b"")
        kept: list[Change] = []
        for change in changes:
            self._count()
            kept.append(change)
        live_paths = {c.old.digest: c.path for c in kept if c.old is not None and c.old.kind is not Kind.DIR}
        for change in kept:
            if change.new is not None:
                self._lay(change, live_paths)
        for change in reversed(kept):
            if change.new is None:
                self._remove(change.path)

    def _count(self) -> None:
        self._names += 1
        if self._names > VIEW_MAX:
            raise ResourceError(
                f"the tree has more than {VIEW_MAX} names, too many to show a validate hook whole",
                hint="take `tree = true` from the hook and look at INSTEP_STAGED, which holds the changed files",
                code="view_too_large",
                limit=VIEW_MAX,
            )

    def _link_live(self, folder: bytes) -> None:
        with os.scandir(self._root + b"/" + folder) as listing:
            for entry in listing:
                if not folder and entry.name.lower().startswith(b".instep"):
                    continue
                self._count()
                path = folder + b"/" + entry.name if folder else entry.name
                if entry.is_dir(follow_symlinks=False):
                    os.mkdir(self._name(path))
                    self._link_live(path)
                else:
                    self._link(path, os.readlink(entry.path) if entry.is_symlink() else None, entry.path)

    def _name(self, path: bytes) -> bytes:
        return self._folder + b"/" + path

    def _link(self, path: bytes, target: bytes | None, file: bytes) -> None:
        """A symbolic link of the tree with its ``target``, or one to a ``file``."""
        if target is not None and target.startswith(self._root + b"/"):
            target = self._folder + target[len(self._root) :]
        os.symlink(file if target is None else target, self._name(path))

    def _lay(self, change: Change, live_paths: dict[Digest, bytes]) -> None:
        new, old, path = change.new, change.old, change.path
        assert new is not None
        if new.kind is Kind.DIR:
            self._make(path)
            return
        slot = staged_slot(self._staged, path)
        if slot is None and old is not None and (old.kind, old.digest) == (new.kind, new.digest):
            return  # only its mode, owner or time changes
        self._make(os.path.dirname(path))
        if slot is not None:
            self._drop(path)
            is_link = stat.S_ISLNK(self._staged.stat(slot).st_mode)
            self._link(path, self._staged.readlink(slot) if is_link else None, self._stage + b"/" + slot)
            return
        live = self._root + b"/" + live_paths.get(new.digest, path)
        if not os.path.lexists(live):
            told = shown(path)
            raise ResourceError(f"{told} is neither staged nor live", code="view_incomplete", path=told)
        self._drop(path)
        self._link(path, os.readlink(live) if new.kind is Kind.SYMLINK else None, live)

    def _make(self, folder: bytes) -> None:
        """Directories down to ``folder``; other objects on the way give way."""
        end = 0
        while folder and end >= 0:
            end = folder.find(b"/", end + 1)
            part = folder if end < 0 else folder[:end]
            if not self._is_directory(part):
                self._drop(part)
                os.mkdir(self._name(part))

    def _is_directory(self, path: bytes) -> bool:
        try:
            return stat.S_ISDIR(os.lstat(self._name(path)).st_mode)
        except (FileNotFoundError, NotADirectoryError):
            return False

    def _drop(self, path: bytes) -> None:
        """Make room at ``path``, whose directory is one of the view's own."""
        if self._is_directory(path):
            shutil.rmtree(self._name(path))
            return
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._name(path))

    def _remove(self, path: bytes) -> None:
        """Remove a path that the generation removes; a directory stays while something ignored lies in it, as it will
        in the tree."""
        end = path.find(b"/")
        while end >= 0:
            if not self._is_directory(path[:end]):
                return
            end = path.find(b"/", end + 1)
        with contextlib.suppress(OSError):
            (os.rmdir if self._is_directory(path) else os.unlink)(self._name(path))


@contextlib.asynccontextmanager
async def validate_views(
    fileset: FilesetSettings,
    effect: RunHook,
    stage: bytes | None,
    changed: Sequence[bytes],
    changes: Iterable[Change],
) -> AsyncIterator[Mapping[str, str]]:
    """Variables and the directories that they name; none for other hooks. The whole tree only where a hook asks:
    ``stage`` is where the new files lie, ``changes`` are all that the generation changes."""
    if stage is None or effect.kind is not HookKind.VALIDATE:
        yield {}
        return
    with contextlib.ExitStack() as stack:
        views = {"INSTEP_STAGED": await asyncio.to_thread(stack.enter_context, staged_view(stage, changed))}
        if any(hook.tree for hook in fileset.hooks.validate):
            view = tree_view(os.fsencode(fileset.path), stage, changes)
            views["INSTEP_TREE"] = await asyncio.to_thread(stack.enter_context, view)
        yield views
