"""Errors of a move of files: the kernel's, with the step that helps, and paths that lead out of the source."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from instep.errors import RefusedError, ResourceError
from instep.model.paths import shown
from instep.tree.root.os_errors import help_for

_OUTSIDE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EXDEV})


@contextlib.contextmanager
def named_errors(top: Path, path: bytes, doing: str) -> Iterator[None]:
    """An ``OSError`` of the block as an error that names ``path`` below ``top`` and the operation, as in "copied"."""
    at = top / os.fsdecode(path)
    try:
        yield
    except OSError as error:
        number = error.errno or 0
        if number in _OUTSIDE:
            raise outside(top, path) from error
        code, step = help_for(number, at)
        raise ResourceError(
            f"{shown(os.fsencode(at))} cannot be {doing}: {error.strerror or error}",
            hint=f"{step}; then repeat the command",
            code=code,
            path=str(at),
            operation=doing,
            errno=number,
        ) from error


def outside(top: Path, path: bytes) -> RefusedError:
    """An item is, or lies behind, a symbolic link or another mount."""
    return RefusedError(
        f"{shown(path)} leads out of {top}: a symbolic link or another mount is on its way",
        hint=f"look with: namei -l {top}/{shown(path)}; move the files by hand, or write a layout without this item",
        code="outside_source",
        path=shown(path),
        source=str(top),
    )
