"""The view of a ``validate`` hook: the staged files of a generation, each below its own path."""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Sequence

from instep.tree.root.beneath import Root
from instep.tree.stage.stages import staged_slot


@contextlib.contextmanager
def staged_view(stage: bytes, changed: Sequence[bytes]) -> Iterator[str]:
    """A directory for the length of a call in which ``changed`` paths that are staged have their own names.

    A staged file appears as a symbolic link to it, a symbolic link as itself, a directory as a directory. Paths
    without staged contents are absent: removed ones, moved directories, and those whose bytes stay the same.
    """
    view = os.fsencode(tempfile.mkdtemp(prefix="instep-staged-"))
    try:
        with Root(stage) as tree:
            for path in changed:
                slot = staged_slot(tree, path)
                if slot is not None:
                    _show(tree, stage + b"/" + slot, slot, view + b"/" + path)
        yield os.fsdecode(view)
    finally:
        shutil.rmtree(view, ignore_errors=True)


def _show(tree: Root, staged: bytes, slot: bytes, name: bytes) -> None:
    mode = tree.stat(slot).st_mode
    if stat.S_ISDIR(mode):
        os.makedirs(name, exist_ok=True)
        return
    os.makedirs(os.path.dirname(name), exist_ok=True)
    os.symlink(tree.readlink(slot) if stat.S_ISLNK(mode) else staged, name)
