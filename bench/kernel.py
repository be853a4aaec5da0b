"""The few system calls that Python 3.11 does not offer."""

from __future__ import annotations

import ctypes
import mmap
import os
from pathlib import Path

__all__ = [
    "CLONE_NEWNET",
    "die_with_parent",
    "enter_namespace",
    "own_mounts",
    "sync_file_system",
    "warm_memory",
]

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
_MS_REC, _MS_PRIVATE = 0x4000, 1 << 18
_PR_SET_PDEATHSIG = 1

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(outcome: int, what: str) -> None:
    if outcome != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def own_mounts() -> None:
    """Give this process a mount table of its own, so that what it mounts ends with it, however it ends."""
    _checked(_libc.unshare(CLONE_NEWNS), "unshare")
    _checked(_libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None), "mount --make-rprivate /")


def enter_namespace(descriptor: int, kind: int) -> None:
    """Move the calling process into the namespace behind an open ``/proc/PID/ns/...`` descriptor."""
    _checked(_libc.setns(descriptor, kind), "setns")


def die_with_parent(signal_number: int) -> None:
    """Ask the kernel to signal the calling process when the one that started it is gone."""
    _checked(_libc.prctl(_PR_SET_PDEATHSIG, signal_number, 0, 0, 0), "prctl")


def sync_file_system(path: Path) -> None:
    """``sync -f path``."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        _checked(_libc.syncfs(descriptor), f"syncfs {path}")
    finally:
        os.close(descriptor)


def warm_memory(size_bytes: int) -> None:
    """Touch so much memory, at most half of what is free, and give it back: what is measured next then uses pages that
    the machine has. On a virtual machine the first touch of a page costs more than most of the work that is measured."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    size = min(size_bytes, free // 2)
    if size > 0:
        with mmap.mmap(-1, size) as area:
            ctypes.memset(ctypes.addressof(ctypes.c_char.from_buffer(area)), 1, size)
