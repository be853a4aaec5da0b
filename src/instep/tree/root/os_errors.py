"""From an error of the kernel to the step that helps: the one table for errors of file systems.

One number has several causes: a file system can lack inodes and not bytes, and a change that is not permitted can meet
a flag of ``chattr`` or a directory above. So the object is looked at again by its path, for the answer only.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from shlex import quote

from instep.errors import ResourceError
from instep.model.paths import shown
from instep.tree.root.kernel import MOUNTS, ignores_modes, mount_point, set_flag

Step = str | Callable[[Path], str]
"""A text in which ``{at}`` is the path, ``{on}`` its mount and ``{uid}`` the daemon's user; or what looks further."""


def mount_of(path: Path) -> Path:
    """The mount that ``path`` lies on, by the kernel's list alone: a dead mount answers no other question."""
    with open(MOUNTS, "rb") as lines:
        known = {Path(os.fsdecode(mount_point(line))) for line in lines}
    return next((each for each in (path, *path.parents) if each in known), path)


def _full(at: Path) -> str:
    with contextlib.suppress(OSError):
        found = os.statvfs(mount_of(at))
        if found.f_files and not found.f_favail:
            return "remove files on {on}, which has no free inode: df -i {on}"
    return "free space on {on}: df -h {on}"


def read_only(at: Path) -> str:
    """The step for a mount that is read-only by its options, or that the kernel stopped."""
    if os.access(at if os.path.lexists(at) else at.parent, os.W_OK):
        return (
            "the kernel stopped writes to its file system after an error: look at the kernel log, then stop what "
            "uses {on}, unmount it, check it with fsck, and mount it again"
        )
    return "its file system is mounted read-only: look at the kernel log for the reason, then: mount -o remount,rw {on}"


def _forbidden(at: Path) -> str:
    for path in (at, at.parent):
        flag = set_flag(None, os.fsencode(path))
        if flag is not None:
            return f"it is {flag[0]}: chattr -{flag[1]} " + ("{at}" if path == at else "{above}")
    if not ignores_modes():
        for above in (*reversed(at.parent.parents), at.parent):
            if not os.access(above, os.X_OK, effective_ids=True):
                return f"let uid {{uid}} enter {quote(_braced(above))}"
        if os.path.lexists(at) and not os.access(at, os.R_OK, effective_ids=True):
            return "let uid {uid} read {at}, or ignore it where it is written"
        if not os.access(at.parent, os.W_OK, effective_ids=True):
            return "let uid {uid} write {above}"
    return (
        "look at what keeps uid {uid} from {at}: the kernel log names a security module, root_squash of a network file "
        "system keeps root out, and some file systems know no owners"
    )


def _braced(path: Path) -> str:
    return str(path).replace("{", "{{").replace("}", "}}")


def _name_max(at: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        most = os.pathconf(mount_of(at), "PC_NAME_MAX")
        return f"{_FS} takes names of {most} bytes: shorten it {_AT_THE_WRITER}"
    return f"shorten its name {_AT_THE_WRITER}"


_FS = "the file system on {on}"
_AT_THE_WRITER = "where it is written, or ignore it there"
_CHANGING = "find the program that changes {at} at this moment"
_SILENT = "the server or program behind {on} does not answer: start it, or unmount {on} and mount it again"
_DAMAGED = f"{_FS} is damaged: unmount it, check it with fsck, and mount it again"
_NOT_KEPT = (
    f"{_FS} cannot keep that: see what it lacks with: instep check; then set the key without of this fileset"
)
_NO_ROOM = f"{_FS} has no room for these attributes: see what it lacks with: instep check"
_OTHER = "look at the kernel log for what it says of {on}"

_CODES = {
    errno.ENOSPC: "disk_full",
    errno.EDQUOT: "disk_full",
    errno.EROFS: "read_only",
    errno.EACCES: "no_permission",
    errno.EPERM: "no_permission",
    errno.EMFILE: "too_many_files",
    errno.ENFILE: "too_many_files",
}
_STEPS: Mapping[int, Step] = {
    errno.ENOSPC: _full,
    errno.EDQUOT: "raise the quota of uid {uid}, or of the project, on {on}",
    errno.EROFS: read_only,
    errno.EACCES: _forbidden,
    errno.EPERM: _forbidden,
    errno.EMFILE: "raise LimitNOFILE in the unit of the daemon, then start it again",
    errno.ENFILE: "raise the number of files that this machine may open: sysctl -w fs.file-max=2000000",
    errno.EIO: "the disk under {on} reports errors: look at the kernel log, then replace it",
    errno.EUCLEAN: _DAMAGED,
    errno.EBADMSG: _DAMAGED,
    errno.ENAMETOOLONG: _name_max,
    errno.EXDEV: "let {at} lie on one file system, and in one project, with the control folder",
    errno.EBUSY: "end the mount or program that holds {at}: findmnt {at}, fuser -v {at}",
    errno.ETXTBSY: "end the program that runs from {at}: fuser -v {at}",
    errno.EOPNOTSUPP: _NOT_KEPT,
    errno.ENOSYS: _NOT_KEPT,
    errno.EINVAL: f"{_FS} takes no such name or value: see what it lacks with: instep check",
    errno.EILSEQ: f"{_FS} takes no such name: rename it {_AT_THE_WRITER}",
    errno.E2BIG: _NO_ROOM,
    errno.ERANGE: _NO_ROOM,
    errno.EMLINK: f"{_FS} takes no more links of one object: make it a file of its own {_AT_THE_WRITER}",
    errno.EFBIG: "{on}, or LimitFSIZE in the unit of the daemon, takes no file of this size",
    errno.ENOMEM: "free memory of this machine, or raise MemoryMax in the unit of the daemon",
    errno.ESTALE: _CHANGING + "; on a network file system, unmount {on} and mount it again",
    **dict.fromkeys((errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN), _SILENT),
    **dict.fromkeys(
        (errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST, errno.ENOTEMPTY), _CHANGING
    ),
}
_NUMBERS = {os.strerror(number): number for number in _STEPS}


def path_of_people(name: object) -> bytes:
    """The path that an error names, where people know it: absolute, and not of a descriptor; else nothing."""
    path = os.fsencode(name) if isinstance(name, str | bytes) else b""
    return path if path.startswith(b"/") and not path.startswith(b"/proc/") else b""


def help_for(number: int, at: Path) -> tuple[str, str]:
    """The code and the step of an error that the object at the whole path ``at`` met."""
    step = _STEPS.get(number, _OTHER)
    text = step if isinstance(step, str) else step(at)
    at_, above, on = (quote(shown(os.fsencode(each))) for each in (at, at.parent, mount_of(at)))
    return _CODES.get(number, "disk_error"), text.format(at=at_, above=above, on=on, uid=os.geteuid())


def number_of(words: str) -> int:
    """The number of an error by the kernel's words for it; 0 for other words."""
    return _NUMBERS.get(words, 0)


def goes_on(fileset: str) -> str:
    """The end of a hint of a tree. A command that an operator typed does not go on by itself and replaces it."""
    return f"then it goes on by itself, at once with: instep retry {fileset}"


def tree_error(error: OSError, fileset: str, root: Path, path: bytes, doing: str) -> ResourceError:
    """The error of a tree that names ``path``, of the root or a whole one, and the operation ``doing``, as in "cannot
    be staged"."""
    number = error.errno or 0
    code, step = help_for(number, root / os.fsdecode(path))
    return ResourceError(
        f"{fileset}: {shown(path) or root} cannot be {doing}: {error.strerror or error}",
        hint=f"{step}; {goes_on(fileset)}",
        code=code,
        path=shown(path) or str(root),
        operation=doing,
        errno=number,
    )
