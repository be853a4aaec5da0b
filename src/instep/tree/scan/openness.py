"""Whether a program has a file open for writing, asked of the kernel through a lease that is given back at once.

``F_SETLEASE F_RDLCK`` on a descriptor that is open for reading fails with ``EAGAIN`` while any program has the file
open for writing. A shared writable mapping counts too, for it keeps its open file after ``close``. The lease stands
for microseconds: a program that opens the file for writing just then waits for as long, and no longer.

Three things are easily got wrong. The kernel notifies the holder of a lease of such a program by a signal, ``SIGIO``
by default, which ends a process: another signal, one that nothing listens to, is chosen before each request, because
giving a lease back also takes back the choice. Both calls are made without letting go of the interpreter's lock, so
that no other thread runs between them. On file systems that other machines write to, ``EAGAIN`` also says that the
server granted no delegation: there a lease answers nothing.
"""

from __future__ import annotations

import ctypes
import enum
import errno
import fcntl
import signal

from instep.tree.root.kernel import remote_kind

_F_SETSIG = 10
_F_SETLEASE = 1024
_SIGNAL = int(signal.SIGURG)
_fcntl = ctypes.PyDLL(None, use_errno=True).fcntl
_NOT_HERE = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK)
"""Answers that hold for every file of this file system."""


class Openness(enum.Enum):
    """The kernel's answer. ``UNKNOWN``: the daemon has no right to ask (the file is another user's and
    ``CAP_LEASE`` is missing), or the file system has no leases."""

    CLOSED = "closed"
    OPEN = "open"
    UNKNOWN = "unknown"


class OpennessProbe:
    """Asks for the files of one tree. ``root_fd`` is any descriptor on its file system."""

    def __init__(self, root_fd: int) -> None:
        self._can_ask = remote_kind(root_fd) is None

    def of(self, fd: int) -> Openness:
        """Of an open regular file; ``fd`` is open for reading only, and nothing else uses it meanwhile."""
        if not self._can_ask:
            return Openness.UNKNOWN
        if _fcntl(fd, _F_SETSIG, _SIGNAL) == 0 and _fcntl(fd, _F_SETLEASE, fcntl.F_RDLCK) == 0:
            _fcntl(fd, _F_SETLEASE, fcntl.F_UNLCK)
            return Openness.CLOSED
        number = ctypes.get_errno()
        if number == errno.EAGAIN:
            return Openness.OPEN
        if number in _NOT_HERE:
            self._can_ask = False
        return Openness.UNKNOWN
