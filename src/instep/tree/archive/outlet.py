"""Putting objects into a directory that an operator names: ``archive restore --to DIR`` and its like.

Such a directory is often ``/tmp/found`` or the home of the user who typed the command, so other users may have made
it first, or put symlinks into it. Nothing is followed there: the directory is opened component by component, missing
directories below it are made by descriptor, and each object is finished in a directory of our own (mode 0700) before
it gets its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from instep.errors import RefusedError, ResourceError
from instep.model.paths import shown
from instep.tree.journal.renames import inode_at
from instep.tree.objects.inode import SETID, Inode
from instep.tree.objects.large import copy_whole
from instep.tree.objects.private_directory import private_directory
from instep.tree.root.beneath import RenameUnsupportedError, Root, rename_noreplace
from instep.tree.root.descriptors import LIST, READ, Tolerated, closing_fd
from instep.tree.root.os_errors import help_for
from instep.tree.root.records import sync_dir

_STEP = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_LINKS_MAX = 40
_NEW_DIRECTORY = 0o700
"""A restored object may have been guarded only by the mode of the directory that it comes from."""
_NEVER_COPIED = ("security.", "trusted.")
"""Rights of programs: the daemon could give them, and the writer of the displaced object chose them."""

MakeObject = Callable[[int, bytes], None]
"""Makes the object by this name in this directory (a descriptor), complete with its metadata."""


def open_outlet(path: bytes) -> Root:
    """The absolute directory ``path``, made where it is missing, opened without following a symlink that another user
    could have put there; a symlink in a directory that only root and the daemon's user may write is followed.

    ``RefusedError`` ``target_is_symlink``; ``ResourceError``.
    """
    target = os.path.normpath(path)
    assert target.startswith(b"/"), "an outlet is absolute"
    with _named(target):
        return _opened(target)


def _opened(target: bytes) -> Root:
    here = os.open(b"/", _STEP | os.O_DIRECTORY)
    pending = [part for part in reversed(target.split(b"/")) if part]
    links = 0
    try:
        while pending:
            name = pending.pop()
            below = _step_into(here, name, target)
            if not stat.S_ISLNK(os.fstat(below).st_mode):
                os.close(here)
                here = below
                continue
            with closing_fd(below):
                links += 1
                if links > _LINKS_MAX or not _is_guarded(here):
                    raise _symlink(target, _where(here) + b"/" + name)
                leads = os.readlink(b"", dir_fd=below)
            pending += [part for part in reversed(leads.split(b"/")) if part not in (b"", b".")]
            if leads.startswith(b"/"):
                top = os.open(b"/", _STEP | os.O_DIRECTORY)
                os.close(here)
                here = top
        return Root(b"/proc/self/fd/%d/." % here)
    finally:
        os.close(here)


@contextlib.contextmanager
def _named(target: bytes) -> Iterator[None]:
    """An ``OSError`` of the block as the error that names the object that a person wants, and what helps."""
    try:
        yield
    except OSError as error:
        code, step = help_for(error.errno or 0, Path(os.fsdecode(target)))
        raise ResourceError(
            f"{shown(target)} cannot be opened or made: {error.strerror or error}",
            hint=f"{step}; then repeat the command, or name another directory",
            code=code,
            path=shown(target),
            operation="opened or made",
            errno=error.errno,
        ) from error


def _step_into(here: int, name: bytes, target: bytes) -> int:
    try:
        below = os.open(name, _STEP, dir_fd=here)
    except FileNotFoundError:
        os.mkdir(name, _NEW_DIRECTORY, dir_fd=here)
        sync_dir(here)
        below = os.open(name, _STEP | os.O_DIRECTORY, dir_fd=here)
    mode = os.fstat(below).st_mode
    if not stat.S_ISDIR(mode) and not stat.S_ISLNK(mode):
        os.close(below)
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), target)
    return below


def _is_guarded(fd: int) -> bool:
    """Whether only root and the daemon's user can put anything into the directory."""
    found = os.fstat(fd)
    return found.st_uid in (0, os.geteuid()) and not found.st_mode & 0o022


def _where(fd: int) -> bytes:
    return os.readlink(b"/proc/self/fd/%d" % fd).rstrip(b"/")


def _symlink(target: bytes, link: bytes) -> RefusedError:
    return RefusedError(
        f"{shown(link)} on the way to {shown(target)} is a symbolic link that another user may have put there",
        hint="name a directory without symbolic links on the way, best one that only you may write",
        code="target_is_symlink",
        path=shown(target),
        link=shown(link),
    )


def put_out(outlet: Root, path: bytes, make: MakeObject, *, shown_as: bytes = b"") -> None:
    """Put the object that ``make`` makes at ``path`` below ``outlet``, durably; parents are made, nothing is replaced
    and nothing followed. ``shown_as`` names the outlet in errors.

    ``RefusedError`` ``exists``, ``target_is_symlink``, ``directory_replaced``; ``ResourceError``.
    """
    target = shown_as + b"/" + path
    with contextlib.ExitStack() as held:
        held.enter_context(_named(target))
        parent, name = _open_parents(outlet, path, target)
        held.callback(os.close, parent)
        if inode_at(parent, name) is not None:
            raise _exists(target)
        # Made where no other user may enter, so that nothing is swapped while it is being made.
        with private_directory(parent, b".instep-restore-") as private:
            make(private, name)
            _move(private, name, parent, target)
        os.fsync(parent)


def finish_directory(
    outlet: Root, path: bytes, made: tuple[int, int], mode: int, mtime_ns: int, *, shown_as: bytes = b""
) -> None:
    """Give the directory at ``path`` its mode (without setuid and setgid bits) and its time, once everything below it
    is there. ``made`` is its device and inode from when it was made: a directory that another user moved to that name
    meanwhile keeps what it has.

    ``RefusedError`` ``directory_replaced``; ``ResourceError``.
    """
    target = shown_as + b"/" + path
    with _named(target), closing_fd(outlet.open_dir(path)) as fd:
        found = os.fstat(fd)
        if (found.st_dev, found.st_ino) != made:
            raise RefusedError(
                f"{shown(target)} was replaced by another directory while it was restored",
                hint="restore to a directory that only you may write",
                code="directory_replaced",
                path=shown(target),
                made=made[1],
                found=found.st_ino,
            )
        os.fchmod(fd, mode & 0o777)
        os.utime(fd, ns=(mtime_ns, mtime_ns))


def _open_parents(outlet: Root, path: bytes, target: bytes) -> tuple[int, bytes]:
    *above, name = path.split(b"/")
    here = outlet.open_dir(b"")
    try:
        for part in above:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, _NEW_DIRECTORY, dir_fd=here)
                os.fsync(here)
            try:
                below = os.open(part, LIST, dir_fd=here)
            except OSError as error:
                if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                    raise
                if stat.S_ISLNK(os.stat(part, dir_fd=here, follow_symlinks=False).st_mode):
                    raise _symlink(target, _where(here) + b"/" + part) from error
                raise _exists(_where(here) + b"/" + part) from error
            os.close(here)
            here = below
    except BaseException:
        os.close(here)
        raise
    return here, name


def _move(fd: int, name: bytes, parent: int, target: bytes) -> None:
    with Inode(fd, name) as made:
        mode = stat.S_IMODE(made.stat.st_mode)
        is_closed = stat.S_ISDIR(made.stat.st_mode) and not mode & 0o200
        if is_closed:
            made.set_mode(mode | 0o200)  # moving a directory writes its ".."
        try:
            rename_noreplace(fd, name, parent, name)
        except FileExistsError as error:
            raise _exists(target) from error
        except RenameUnsupportedError:
            _move_otherwise(fd, name, parent, target, is_directory=stat.S_ISDIR(made.stat.st_mode))
        if is_closed:
            made.set_mode(mode)


def _move_otherwise(fd: int, name: bytes, parent: int, target: bytes, *, is_directory: bool) -> None:
    """Where the file system cannot rename without replacement: a link refuses what exists as well."""
    try:
        if is_directory:
            os.mkdir(name, 0o700, dir_fd=parent)
            os.rename(name, name, src_dir_fd=fd, dst_dir_fd=parent)  # replaces an empty directory only
        else:
            os.link(name, name, src_dir_fd=fd, dst_dir_fd=parent, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
            raise
        raise _exists(target) from error


def _exists(target: bytes) -> RefusedError:
    return RefusedError(
        f"{shown(target)} exists already",
        hint="restore to another directory; nothing is overwritten",
        code="exists",
        path=shown(target),
    )


def copy_object(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
    """Copy a file, symlink or directory with all below and its metadata, less setuid and setgid bits; ``to_name`` must
    not exist, and ``to_fd`` must be a directory that no other user may enter."""
    found = os.stat(from_name, dir_fd=from_fd, follow_symlinks=False)
    if stat.S_ISLNK(found.st_mode):
        _copy_symlink(from_fd, from_name, to_fd, to_name)
        return
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISDIR(found.st_mode):
        return  # sockets, pipes and devices are not content
    is_directory = stat.S_ISDIR(found.st_mode)
    with closing_fd(os.open(from_name, LIST if is_directory else READ, dir_fd=from_fd)) as source:
        if not is_directory and not stat.S_ISREG(os.fstat(source).st_mode):
            return  # replaced meanwhile by a program that still has a directory of the archive open
        copy_opened(source, to_fd, to_name)


def copy_opened(source: int, to_fd: int, to_name: bytes) -> None:
    """``copy_object`` of an open file or directory."""
    found = os.fstat(source)
    is_directory = stat.S_ISDIR(found.st_mode)
    if is_directory:
        os.mkdir(to_name, 0o700, dir_fd=to_fd)
        to = os.open(to_name, LIST, dir_fd=to_fd)
    else:
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        to = os.open(to_name, flags, 0o600, dir_fd=to_fd)
    with closing_fd(to):
        if is_directory:
            for name in sorted(map(os.fsencode, os.listdir(source))):
                copy_object(source, name, to, name)
        else:
            copy_whole(source, to, found.st_size, is_sparse=found.st_blocks * 512 < found.st_size)
        _copy_metadata(source, found, to)
        os.fsync(to)


def _copy_symlink(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
    with Inode(from_fd, from_name) as source:
        if not stat.S_ISLNK(source.stat.st_mode):
            return
        os.symlink(os.readlink(b"", dir_fd=source.fd), to_name, dir_fd=to_fd)
        with Inode(to_fd, to_name) as made:
            if os.geteuid() == 0:
                made.set_owner(source.stat.st_uid, source.stat.st_gid)
            made.set_time(source.stat.st_mtime_ns)


def _copy_metadata(source: int, found: os.stat_result, to: int) -> None:
    if os.geteuid() == 0:
        os.fchown(to, found.st_uid, found.st_gid)
    os.fchmod(to, stat.S_IMODE(found.st_mode) & ~SETID)
    for attribute in _attributes(source):
        with Tolerated(errno.ENOTSUP, errno.EPERM, errno.ENODATA):
            os.setxattr(to, attribute, os.getxattr(source, attribute))
    os.utime(to, ns=(found.st_mtime_ns, found.st_mtime_ns))


def _attributes(fd: int) -> list[str]:
    with Tolerated(errno.ENOTSUP):
        return [name for name in os.listxattr(fd) if not name.startswith(_NEVER_COPIED)]
    return []
