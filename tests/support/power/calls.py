"""The calls that change a file system, each wrapped so that a recorder learns what it did."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from instep.tree.root import beneath

if TYPE_CHECKING:
    from tests.support.power.recorder import Recorder

__all__ = ["Calls", "Libc", "Real"]

_NOT_KNOWN = (
    "writev", "pwritev", "sendfile", "splice", "posix_fallocate", "fdatasync", "sync", "mknod", "mkfifo", "lchown",
)  # fmt: skip
"""No run needs them so far; one that does teaches them here."""
_OPENAT2 = 437
_RENAMEAT2 = frozenset(beneath._SYS_RENAMEAT2.values())
_RENAME_EXCHANGE = 2


class Real:
    """The calls of ``os`` as they were."""

    stat = staticmethod(os.stat)
    fstat = staticmethod(os.fstat)
    open = staticmethod(os.open)
    close = staticmethod(os.close)

    @contextlib.contextmanager
    def replaced_by(self, calls: Calls) -> Iterator[None]:
        names = [name for name in dir(calls) if not name.startswith("_") and hasattr(os, name)]
        kept = {name: getattr(os, name) for name in (*names, *_NOT_KNOWN) if hasattr(os, name)}
        ioctl = fcntl.ioctl
        calls._real = kept
        calls._ioctl = ioctl
        try:
            for name in names:
                setattr(os, name, getattr(calls, name))
            for name in set(kept) - set(names):
                setattr(os, name, _refuse(name))
            fcntl.ioctl = calls._ioctl_recorded
            yield
        finally:
            fcntl.ioctl = ioctl
            for name, call in kept.items():
                setattr(os, name, call)


def _refuse(name: str) -> Any:
    def refuse(*args: object, **_: object) -> None:
        raise AssertionError(f"the recorder does not know {name}{args}: teach it")

    return refuse


class Calls:
    """The public names of ``os``, with the same arguments."""

    def __init__(self, recorder: Recorder) -> None:
        self._to = recorder
        self._real: dict[str, Any] = {}
        self._ioctl: Any = None

    # Contents ---------------------------------------------------------------------------------------------------

    def open(self, path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        real = self._real["open"]
        return self._opened(path, flags, dir_fd, lambda: real(path, flags, mode, dir_fd=dir_fd))

    def _opened(self, path: Any, flags: int, dir_fd: int | None, call: Any) -> int:
        if not flags & (os.O_CREAT | os.O_TRUNC) or flags & os.O_PATH:
            return int(call())
        slot = self._to.slot(path, dir_fd)
        before = self._to.inode(path, dir_fd, follow=False)
        fd = int(call())
        if slot is not None and before is None:
            self._to.made(slot, path, dir_fd)
        elif before is not None and flags & os.O_TRUNC:
            self._to.resized(before, 0)
        return fd

    def write(self, fd: int, data: Any) -> int:
        at = os.lseek(fd, 0, os.SEEK_END if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_APPEND else os.SEEK_CUR)
        count = int(self._real["write"](fd, data))
        self._wrote(fd, at, memoryview(data)[:count])
        return count

    def pwrite(self, fd: int, data: Any, offset: int) -> int:
        count = int(self._real["pwrite"](fd, data, offset))
        self._wrote(fd, offset, memoryview(data)[:count])
        return count

    def _wrote(self, fd: int, at: int, data: memoryview) -> None:
        inode = self._to.inode(fd)
        if inode is not None:
            self._to.wrote(inode, at, bytes(data))

    def copy_file_range(self, src: int, dst: int, count: int, *args: Any) -> int:
        copied = int(self._real["copy_file_range"](src, dst, count, *args))
        self._contents(dst)
        return copied

    def _ioctl_recorded(self, fd: Any, request: int, *args: Any) -> Any:
        answer = self._ioctl(fd, request, *args)
        self._contents(fd if isinstance(fd, int) else fd.fileno())
        return answer

    def _contents(self, fd: int) -> None:
        """The kernel wrote into the file: all that it holds counts as written at once."""
        inode = self._to.inode(fd)
        if inode is not None:
            with open(f"/proc/self/fd/{fd}", "rb") as file:
                self._to.wrote(inode, 0, file.read())

    def ftruncate(self, fd: int, length: int) -> None:
        self.truncate(fd, length)

    def truncate(self, path: Any, length: int) -> None:
        self._real["truncate"](path, length)
        inode = self._to.inode(path)
        if inode is not None:
            self._to.resized(inode, length)

    def fsync(self, fd: int) -> None:
        self._real["fsync"](fd)
        inode = self._to.inode(fd)
        if inode is not None:
            self._to.synced(inode, fd)

    # Names ------------------------------------------------------------------------------------------------------

    def mkdir(self, path: Any, mode: int = 0o777, *, dir_fd: int | None = None) -> None:
        self._real["mkdir"](path, mode, dir_fd=dir_fd)
        self._made(path, dir_fd)

    def symlink(
        self, src: Any, dst: Any, target_is_directory: bool = False, *, dir_fd: int | None = None
    ) -> None:
        self._real["symlink"](src, dst, target_is_directory, dir_fd=dir_fd)
        self._made(dst, dir_fd)

    def _made(self, path: Any, dir_fd: int | None) -> None:
        slot = self._to.slot(path, dir_fd)
        if slot is not None:
            self._to.made(slot, path, dir_fd)

    def link(self, src: Any, dst: Any, **options: Any) -> None:
        self._real["link"](src, dst, **options)
        slot = self._to.slot(dst, options.get("dst_dir_fd"))
        if slot is not None:
            inode = self._to.inode(dst, options.get("dst_dir_fd"), follow=False)
            assert inode is not None, f"{src!r} came from outside of the recorded directory"
            self._to.named((slot, inode))

    def rename(
        self, src: Any, dst: Any, *, src_dir_fd: int | None = None, dst_dir_fd: int | None = None
    ) -> None:
        self._renamed(
            (src, src_dir_fd),
            (dst, dst_dir_fd),
            lambda: self._real["rename"](src, dst, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd),
        )

    replace = rename

    def _renamed(self, src: tuple[Any, int | None], dst: tuple[Any, int | None], call: Any) -> Any:
        here, there = self._to.slot(*src), self._to.slot(*dst)
        moved, other = (self._to.inode(*where, follow=False) for where in (src, dst))
        answer = call()
        if not answer and (here, moved) != (None, None) and moved != other:
            assert here is not None, f"{src[0]!r} came from outside of the recorded directory"
            assert there is not None, f"{dst[0]!r} is outside of the recorded directory"
            self._to.named((here, None), (there, moved))
        return answer

    def _exchanged(self, src: tuple[Any, int | None], dst: tuple[Any, int | None], call: Any) -> Any:
        here, there = self._to.slot(*src), self._to.slot(*dst)
        one, other = (self._to.inode(*where, follow=False) for where in (src, dst))
        answer = call()
        if not answer and here is not None:
            assert there is not None, f"{dst[0]!r} is outside of the recorded directory"
            self._to.named((here, other), (there, one))
        return answer

    def unlink(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._gone("unlink", path, dir_fd)

    def remove(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._gone("remove", path, dir_fd)

    def rmdir(self, path: Any, *, dir_fd: int | None = None) -> None:
        self._gone("rmdir", path, dir_fd)

    def _gone(self, name: str, path: Any, dir_fd: int | None) -> None:
        slot = self._to.slot(path, dir_fd)
        emptied = self._to.inode(path, dir_fd, follow=False) if name == "rmdir" else None
        self._real[name](path, dir_fd=dir_fd)
        if slot is not None:
            self._to.named((slot, None), emptied=-1 if emptied is None else emptied)

    # Metadata ---------------------------------------------------------------------------------------------------

    def chmod(self, path: Any, mode: int, **options: Any) -> None:
        self._real["chmod"](path, mode, **options)
        self._changed(path, options)

    def fchmod(self, fd: int, mode: int) -> None:
        self._real["fchmod"](fd, mode)
        self._changed(fd, {})

    def chown(self, path: Any, uid: int, gid: int, **options: Any) -> None:
        self._real["chown"](path, uid, gid, **options)
        self._changed(path, options)

    def fchown(self, fd: int, uid: int, gid: int) -> None:
        self._real["fchown"](fd, uid, gid)
        self._changed(fd, {})

    def utime(self, path: Any, times: Any = None, **options: Any) -> None:
        ns = {"ns": options.pop("ns")} if "ns" in options else {}
        self._real["utime"](path, *(() if ns else (times,)), **ns, **options)
        self._changed(path, options, times=True)

    def _changed(
        self,
        path: Any,
        options: dict[str, Any],
        *,
        times: bool = False,
        also: dict[str, object] | None = None,
    ) -> None:
        inode, found = self._seen(path, options)
        if inode is None:
            return
        home = -1
        if stat.S_ISLNK(found.st_mode):
            where = os.readlink(path) if os.fsencode(path).startswith(b"/proc/self/fd/") else path
            slot = self._to.slot(where, options.get("dir_fd"))
            home = -1 if slot is None else slot[0]
        meta: dict[str, object] = dict(also or {})
        if times:
            meta["mtime_ns"] = found.st_mtime_ns
        else:
            meta |= {"mode": stat.S_IMODE(found.st_mode), "uid": found.st_uid, "gid": found.st_gid}
        self._to.changed(inode, home, meta)

    def _seen(self, path: Any, options: dict[str, Any]) -> tuple[int | None, Any]:
        if isinstance(path, int):
            return self._to.inode(path), self._to.real.fstat(path)
        dir_fd, follow = options.get("dir_fd"), options.get("follow_symlinks", True)
        found = self._to.real.stat(path, dir_fd=dir_fd, follow_symlinks=follow)
        return self._to.inode(path, dir_fd, follow=follow), found

    def setxattr(self, path: Any, attribute: Any, value: bytes, flags: int = 0, **options: Any) -> None:
        self._real["setxattr"](path, attribute, value, flags, **options)
        self._attribute(path, attribute, bytes(value), options)

    def removexattr(self, path: Any, attribute: Any, **options: Any) -> None:
        self._real["removexattr"](path, attribute, **options)
        self._attribute(path, attribute, None, options)

    def _attribute(self, path: Any, attribute: Any, value: bytes | None, options: dict[str, Any]) -> None:
        self._changed(path, options, also={"xattr:" + os.fsdecode(attribute): value})


class Libc:
    """What ``tree/root/beneath.py`` calls by ``ctypes``."""

    def __init__(self, recorder: Recorder, libc: Any) -> None:
        self._to = recorder
        self._libc = libc
        self._calls = Calls(recorder)

    def syncfs(self, fd: int) -> int:
        answer = int(self._libc.syncfs(fd))
        if self._to.inode(fd) is not None:
            self._to.synced(None, fd)
        return answer

    def syscall(self, number: Any, *args: Any) -> int:
        def call() -> int:
            return int(self._libc.syscall(number, *args))

        if number.value == _OPENAT2:
            directory, path, how = args[0].value, args[1].value, args[2]._obj
            if not how.flags & os.O_CREAT:
                return call()
            slot = self._to.slot(path, directory)
            before = self._to.inode(path, directory, follow=False)
            fd = call()
            if fd >= 0 and slot is not None and before is None:
                number_ = ctypes.get_errno()
                self._to.made(slot, path, directory)
                ctypes.set_errno(number_)
            elif fd >= 0 and before is not None and how.flags & os.O_TRUNC:
                self._to.resized(before, 0)
            return fd
        assert number.value in _RENAMEAT2, f"the recorder does not know system call {number.value}: teach it"
        src, dst = (args[1].value, args[0].value), (args[3].value, args[2].value)
        if args[4].value == _RENAME_EXCHANGE:
            return int(self._calls._exchanged(src, dst, call))
        return int(self._calls._renamed(src, dst, call))

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"the recorder does not know {name}: teach it")
