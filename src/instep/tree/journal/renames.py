"""Moving objects between the stage and the tree so that nothing is ever overwritten unseen.

``renameat2`` does it in one step. Where the kernel or the file system lacks its flags (NFS among them), ``link(2)``
does: it refuses atomically when the name is taken, whatever a client's cache says. An object that is displaced
without an exchange is linked first, and linked again when a program put another object there meanwhile.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat

from instep.tree.root import beneath
from instep.tree.root.beneath import RenameUnsupportedError
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.failpoints import failpoint, register

_LINKED = register("switch.linked")
_LINKED_NEW = register("renames.linked_new")

DISPLACED_MAX = 8
"""So often a program may put another object under one name while that name is being replaced."""
NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EACCES})


def inode_at(dir_fd: int, name: bytes) -> int | None:
    """Which inode has this name now; None when it is free."""
    try:
        return os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_ino
    except FileNotFoundError:
        return None


def put_new(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
    """Move an object to a free name. ``FileExistsError`` when the name is taken; after a crash simply again."""
    try:
        beneath.rename_noreplace(from_fd, from_name, to_fd, to_name)
        return
    except RenameUnsupportedError:
        found = os.stat(from_name, dir_fd=from_fd, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        # The kernel puts a directory over nothing but an empty directory, which holds no content.
        _rename_directory(from_fd, from_name, to_fd, to_name)
        return
    try:
        os.link(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd, follow_symlinks=False)
    except FileExistsError:
        if inode_at(to_fd, to_name) != found.st_ino:
            raise
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        _look_and_rename(from_fd, from_name, to_fd, to_name)
        return
    failpoint(_LINKED_NEW)
    os.unlink(from_name, dir_fd=from_fd)


def _rename_directory(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
    try:
        os.rename(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
    except OSError as error:
        if error.errno in (errno.ENOTDIR, errno.ENOTEMPTY, errno.EEXIST):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to_name) from error
        raise


def _look_and_rename(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
    """The last resort, where a file can neither be renamed without replacement nor linked: FAT, some FUSE drivers."""
    if inode_at(to_fd, to_name) is not None:
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), to_name)
    os.rename(from_name, to_name, src_dir_fd=from_fd, dst_dir_fd=to_fd)


def take_away(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
    """Move a live object into a folder that no other program writes. ``FileExistsError`` when its slot is taken."""
    try:
        beneath.rename_noreplace(from_fd, from_name, to_fd, to_name)
    except RenameUnsupportedError:
        _look_and_rename(from_fd, from_name, to_fd, to_name)


def displaced_names(key: bytes) -> tuple[bytes, ...]:
    """The slots of objects that were displaced without an exchange, first one first."""
    return (key + b".old", *(key + b".old%d" % number for number in range(1, DISPLACED_MAX)))


def place_over(objects_fd: int, key: bytes, live_fd: int, name: bytes) -> bool:
    """Put the object ``key`` in the place of the live ``name`` without an exchange; whether something was there.

    The object there goes to the slots of ``displaced_names``: a file or symlink by a link, so that no reader misses
    it; a directory by a rename. Before the replacement the name is linked once more, as a program may have put
    another object there, also across a crash: that one keeps the next slot. ``OSError`` ``EBUSY`` when that does not
    end.
    """
    staged = os.stat(key, dir_fd=objects_fd, follow_symlinks=False)
    is_directory = stat.S_ISDIR(staged.st_mode)
    kept = {ino for slot in displaced_names(key) if (ino := inode_at(objects_fd, slot)) is not None}
    was_there = bool(kept)
    for _ in range(DISPLACED_MAX):
        found = _look(live_fd, name)
        if found is not None and found.st_ino == staged.st_ino and not is_directory:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(key, dir_fd=objects_fd)  # linked before a crash
            return was_there
        if found is None or is_directory or stat.S_ISDIR(found.st_mode):
            if found is not None:
                _keep(live_fd, name, objects_fd, key, is_moved=True)
                was_there = True
                failpoint(_LINKED)
            with contextlib.suppress(FileExistsError):
                put_new(objects_fd, key, live_fd, name)
                return was_there
        else:
            slot = _keep(live_fd, name, objects_fd, key, is_moved=False)
            linked = None if slot is None else inode_at(objects_fd, slot)
            if slot is not None and linked in kept:
                # The name leads to an object that was kept before: by a link, as a look may come from a client's cache.
                os.unlink(slot, dir_fd=objects_fd)
                os.rename(key, name, src_dir_fd=objects_fd, dst_dir_fd=live_fd)
                return True
            if linked is not None:
                kept.add(linked)
                was_there = True
                failpoint(_LINKED)
    raise OSError(errno.EBUSY, "a program here puts one file after the other under this name", name)


def _look(live_fd: int, name: bytes) -> os.stat_result | None:
    """The stat of the object that has this name now. Opening asks a file server where a stat may come from a cache."""
    try:
        found = os.stat(name, dir_fd=live_fd, follow_symlinks=False)
        if stat.S_ISREG(found.st_mode):
            with contextlib.suppress(PermissionError), closing_fd(os.open(name, READ, dir_fd=live_fd)) as fd:
                return os.fstat(fd)
    except FileNotFoundError:
        return None
    return found


def _keep(live_fd: int, name: bytes, objects_fd: int, key: bytes, *, is_moved: bool) -> bytes | None:
    """Give the live object a name of its own in the first free slot, which is returned; None when it is gone by now."""
    for slot in displaced_names(key):
        try:
            if is_moved:
                take_away(live_fd, name, objects_fd, slot)
            else:
                try:
                    os.link(name, slot, src_dir_fd=live_fd, dst_dir_fd=objects_fd, follow_symlinks=False)
                except OSError as error:
                    if error.errno not in NO_LINKS:
                        raise
                    take_away(live_fd, name, objects_fd, slot)
        except FileExistsError:
            continue
        except FileNotFoundError:
            return None
        return slot
    raise OSError(errno.EBUSY, "a program here puts one file after the other under this name", name)
