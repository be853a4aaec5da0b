"""A file of a tree that a person edits as a copy: read and written through its held directory, never over a link."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from pathlib import Path
from typing import Self

from instep.errors import RefusedError
from instep.model.paths import shown, validated
from instep.tree.root.beneath import Root

_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class EditedFile:
    """``RefusedError`` for a path that leads over a link, is no plain file, or that this user may not write."""

    def __init__(self, root: Path, path: bytes) -> None:
        self._path = validated(path)
        self._root = Root(root)
        self._at = -1
        self._before: bytes | None = None

    def __enter__(self) -> Self:
        try:
            self._at, self._name = self._root.open_parent(self._path)
        except OSError as error:
            self._root.close()
            raise self._refused(error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._root.close()

    def copy_to(self, copy: Path) -> None:
        """Lay the present bytes there; nothing where the file is not there yet."""
        try:
            fd = os.open(self._name, _READ, dir_fd=self._at)
        except FileNotFoundError:
            if not os.access(".", os.W_OK, dir_fd=self._at, effective_ids=True):
                raise self._refused(PermissionError(errno.EACCES, os.strerror(errno.EACCES))) from None
            return
        except OSError as error:
            raise self._refused(error) from error
        with os.fdopen(fd, "rb") as file:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise self._refused(OSError(errno.ELOOP, "it is no plain file"))
            if not os.access(f"/proc/self/fd/{fd}", os.W_OK, effective_ids=True):
                raise self._refused(PermissionError(errno.EACCES, os.strerror(errno.EACCES)))
            with copy.open("xb") as target:
                shutil.copyfileobj(file, target)
        self._before = copy.read_bytes()

    def take_back(self, copy: Path) -> None:
        """Write the edited bytes into the file, where they differ. The file keeps its mode and owner."""
        if not copy.is_file() or (after := copy.read_bytes()) == self._before:
            return
        flags = os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
        flags |= os.O_CREAT | os.O_EXCL if self._before is None else os.O_TRUNC
        try:
            fd = os.open(self._name, flags, 0o666, dir_fd=self._at)
        except OSError as error:
            raise self._refused(error) from error
        with os.fdopen(fd, "wb") as file:
            file.write(after)

    def _refused(self, error: OSError) -> RefusedError:
        if error.errno in (errno.EACCES, errno.EPERM):
            why, hint = "this user may not write it", "repeat the command with sudo"
        elif error.errno in (errno.ELOOP, errno.EXDEV):
            why, hint = (
                "a link lies on the way, or it is no plain file",
                "edit what the link leads to, at its own path",
            )
        else:
            why, hint = error.strerror or str(error), "look at the path and its rights"
        return RefusedError(
            f"{shown(self._path)} cannot be edited: {why}",
            hint=hint,
            code="file_not_allowed",
            path=shown(self._path),
        )
