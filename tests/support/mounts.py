"""File systems of a test's own: mounted below its directory and gone with it. Only root can do this."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

__all__ = ["dead_mount", "loop_ext4", "loop_xfs", "mounted", "need_root", "rot", "unmount"]


def need_root(why: str) -> None:
    """Skip the test, with the reason, where it does not run as root."""
    if os.geteuid() != 0:
        pytest.skip(f"needs root: {why}")


def _quiet(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@contextlib.contextmanager
def mounted(kind: str, at: Path, *, source: str = "none", options: str = "") -> Iterator[Path]:
    """Mount a file system of ``kind`` at ``at``, which is made; skips where this machine cannot."""
    need_root(f"mounts {kind}")
    at.mkdir(parents=True, exist_ok=True)
    words = ["mount", "-t", kind, *(("-o", options) if options else ()), source, str(at)]
    done = _quiet(*words)
    if done.returncode != 0:
        pytest.skip(f"this machine cannot mount {kind}: {done.stderr.strip()}")
    try:
        yield at
    finally:
        _quiet("umount", "--lazy", str(at))


@contextlib.contextmanager
def loop_ext4(image: Path, at: Path, *, mebibytes: int = 32) -> Iterator[Path]:
    """A small ext4 in the file ``image``, mounted at ``at``."""
    need_root("mounts a loop device")
    with image.open("wb") as file:
        file.truncate(mebibytes << 20)
    done = _quiet("mkfs.ext4", "-q", "-F", str(image))
    if done.returncode != 0:
        pytest.skip(f"mkfs.ext4 does not work here: {done.stderr.strip()}")
    with mounted("ext4", at, source=str(image), options="loop") as there:
        yield there


@contextlib.contextmanager
def loop_xfs(image: Path, at: Path) -> Iterator[Path]:
    """A small XFS in the file ``image``, mounted at ``at``."""
    need_root("mounts a loop device")
    if shutil.which("mkfs.xfs") is None:
        pytest.skip("mkfs.xfs is not here")
    with image.open("wb") as file:
        file.truncate(320 << 20)
    done = _quiet("mkfs.xfs", "-q", "-f", str(image))
    if done.returncode != 0:
        pytest.skip(f"mkfs.xfs does not work here: {done.stderr.strip()}")
    with mounted("xfs", at, source=str(image), options="loop") as there:
        yield there


@contextlib.contextmanager
def dead_mount(at: Path) -> Iterator[Path]:
    """A file system at ``at`` whose server never answers: each call to it hangs until the end of the block."""
    need_root("mounts fuse")
    try:
        server = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"this machine has no fuse: {error.strerror}")
    options = f"fd={server},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        if libc.mount(b"dead", os.fsencode(at), b"fuse", 0, options) != 0:
            pytest.skip(f"this machine cannot mount fuse: {os.strerror(ctypes.get_errno())}")
        yield at
    finally:
        os.close(server)
        _quiet("umount", "--lazy", str(at))


def unmount(at: Path) -> None:
    """Take a mount away at once, even while a program uses it."""
    done = _quiet("umount", "--lazy", str(at))
    assert done.returncode == 0, done.stderr


def rot(image: Path, path: Path) -> None:
    """Flip bytes of ``path`` on the disk below its file system: the same stat, other contents."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        before, data = os.fstat(file.fileno()), file.read()
        assert len(data) >= 4096, "a smaller file may lie in the inode"
        with image.open("r+b") as disk:
            raw = disk.read()
            assert raw.count(data[:4096]) == 1, "the bytes must be unlike anything else on the disk"
            disk.seek(raw.index(data[:4096]))
            disk.write(bytes(byte ^ 0xFF for byte in data[:64]))
            disk.flush()
            os.fsync(disk.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    after = path.stat()
    assert path.read_bytes() != data, "the page cache kept the old bytes"
    assert (before.st_ino, before.st_mtime_ns, before.st_ctime_ns) == (
        after.st_ino,
        after.st_mtime_ns,
        after.st_ctime_ns,
    )
