"""The copy of a tree's file that a person edits: taken, kept where it was not submitted, and laid into the tree."""

from __future__ import annotations

import errno
import os
import pwd
import shutil
import tempfile
from pathlib import Path
from typing import Self

from instep.errors import ContentionError, InstepError, RefusedError, ResourceError
from instep.model.ids import Digest
from instep.model.paths import shown, validated
from instep.tree.objects.compared_write import ChangedMeanwhileError, ComparedWrite
from instep.tree.objects.digest import digest_fd
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.os_errors import help_for

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS)
_TURNS_MAX = 8


class EditedCopy:
    """A file of mode 0600 in a folder of this user's own. ``drop`` removes it; until then it outlives this program.

    ``RefusedError`` for a path that leads over a link, is no plain file, or that this user may not write;
    ``ResourceError`` for a disk that takes no more.
    """

    def __init__(self, root: Path, path: bytes) -> None:
        self._root, self._path = root, validated(path)
        self._folder = _made_folder()
        self.file = self._folder / os.fsdecode(self._path.rpartition(b"/")[2])
        self._base: Digest | None = None
        self.is_open = False
        """An editor still has it."""

    def take(self) -> Self:
        """Copy the present bytes; nothing where the file is not there yet. The tree is asked for all that laying the
        new version needs, before anything is typed."""
        try:
            with Root(self._root) as root, ComparedWrite(root, self._path) as present:
                if present.source is not None:
                    self._copy(present.source)
        except OSError as error:
            self.drop()
            raise self._error(error) from error
        except BaseException:
            self.drop()
            raise
        return self

    def _copy(self, source: int) -> None:
        try:
            with os.fdopen(os.dup(source), "rb") as present, self.file.open("xb") as target:
                os.fchmod(target.fileno(), 0o600)
                shutil.copyfileobj(present, target)
        except OSError as error:
            raise _no_copy(self._folder, error) from error
        with closing_fd(os.open(self.file, READ)) as copy:
            self._base = digest_fd(copy)[0]

    @property
    def is_edited(self) -> bool:
        """Whether the copy is another than the one that was taken. A copy that the editor removed is none."""
        if not self.file.is_file():
            return False
        with closing_fd(os.open(self.file, READ)) as copy:
            return digest_fd(copy)[0] != self._base

    @property
    def is_needed(self) -> bool:
        """Whether the copy is kept behind an error. An editor that was ended may have written its text beside it."""
        return self.is_open or self.is_edited or len(os.listdir(self._folder)) > self.file.exists()

    def lay(self) -> None:
        """Put the edited bytes into the tree, if the file there still is the one that was taken.

        ``ContentionError`` ``outdated`` where it is not. An exchange of the whole root meanwhile is no change of it.
        """
        try:
            for _ in range(_TURNS_MAX):
                with Root(self._root) as root:
                    with (
                        ComparedWrite(root, self._path) as write,
                        closing_fd(os.open(self.file, READ)) as copy,
                    ):
                        write.put(copy, self._base)
                    if _is_root(self._root, root):
                        return
            raise OSError(errno.EBUSY, "its root is exchanged again and again")
        except ChangedMeanwhileError as error:
            raise ContentionError(
                f"{shown(self._path)} was changed here while it was edited, and was left as it is now",
                code="outdated",
                path=shown(self._path),
            ) from error
        except OSError as error:
            raise self._error(error) from error

    def keep(self) -> Path:
        """The file that stays, for this user alone."""
        os.chmod(self.file, 0o600)
        return self.file

    def drop(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)

    def _error(self, error: OSError) -> InstepError:
        facts = {"path": shown(self._path)}
        if error.errno in _FULL:
            code, step = help_for(error.errno or 0, self._root / os.fsdecode(self._path))
            reason = f"{shown(self._path)} cannot be written: {error.strerror}"
            return ResourceError(reason, hint=step, code=code, **facts)
        if error.errno in (errno.EACCES, errno.EPERM):
            why = "this user may not write it, or no new file of its owner beside it"
            hint = "repeat the command with sudo"
        elif error.errno in (errno.ELOOP, errno.EXDEV):
            why = "a link lies on the way, or it is no plain file"
            hint = "edit what the link leads to, at its own path"
        elif error.errno in (errno.ENOENT, errno.ENOTDIR):
            why, hint = "its directory is not there", "look at the path"
        else:
            why, hint = error.strerror or str(error), "look at the path and its rights"
        reason = f"{shown(self._path)} cannot be edited: {why}"
        return RefusedError(reason, hint=hint, code="file_not_allowed", **facts)


def _is_root(path: Path, root: Root) -> bool:
    """Whether this still is the directory at the path, and not the one from before an exchange."""
    now, then = os.stat(path, follow_symlinks=False), os.fstat(root.fd)
    return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)


def _made_folder() -> Path:
    above = _own_folder() or tempfile.gettempdir()
    try:
        return Path(tempfile.mkdtemp(prefix="edit-", dir=above))
    except OSError as error:
        raise _no_copy(Path(above), error) from error


def _no_copy(folder: Path, error: OSError) -> ResourceError:
    code, step = help_for(error.errno or 0, folder)
    return ResourceError(
        f"no copy to edit can be made in {folder}: {error.strerror}", hint=step, code=code, folder=str(folder)
    )


def _own_folder() -> str | None:
    """Where this user's programs keep their state; None, a temporary folder, where that takes none."""
    named = os.environ.get("XDG_STATE_HOME", "")
    try:
        state = (
            Path(named) if os.path.isabs(named) else Path(pwd.getpwuid(os.geteuid()).pw_dir, ".local/state")
        )
        folder = state / "instep"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (OSError, KeyError):
        return None
    return str(folder) if os.access(folder, os.W_OK | os.X_OK, effective_ids=True) else None
