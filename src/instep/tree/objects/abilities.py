"""The metadata that a file system can keep, found out by trying; ``accept`` refuses the rest, unless the operator
leaves it out."""

from __future__ import annotations

import enum
import errno
import fcntl
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from instep.model.definition import Preserve
from instep.tree.objects.private_directory import private_directory
from instep.tree.root.beneath import RenameUnsupportedError, rename_exchange, rename_noreplace
from instep.tree.root.descriptors import CREATE, closing_fd

_FICLONE = 0x40049409
_NS_MOMENT = 1_700_000_000_123_456_789
_CAPABILITY = bytes.fromhex("0100000200040000000000000000000000000000")  # cap_net_bind_service=ep
_ACL = bytes.fromhex(  # user::rw-, user:0:r--, group::r--, mask::r--, other::---
    "0200000001000600ffffffff020004000000000004000400ffffffff10000400ffffffff20000000ffffffff"
)


class Ability(enum.Enum):
    """Named as ``check`` and a refused ``accept`` show them."""

    NS_TIMES = "nanosecond times"
    SYMLINKS = "symbolic links"
    MODES = "permission bits"
    XATTRS = "extended attributes"
    SECURITY_XATTRS = "security attributes"
    ACLS = "access control lists"
    OWNERS = "owners"
    HARDLINKS = "hard links"
    SPARSE = "sparse files"
    CASE_SENSITIVE = "case-sensitive names"
    RAW_NAMES = "names that are not UTF-8"
    LONG_NAMES = "names of 255 bytes"
    REFLINKS = "reflinks"
    EXCHANGE = "atomic exchange"
    NOREPLACE = "rename without replacement"


NEEDED_FOR = {
    Preserve.OWNER: Ability.OWNERS,
    Preserve.XATTR: Ability.XATTRS,
    Preserve.ACL: Ability.ACLS,
    Preserve.HARDLINKS: Ability.HARDLINKS,
    Preserve.SPARSE: Ability.SPARSE,
}


def lacking(preserve: Iterable[Preserve], abilities: frozenset[Ability]) -> frozenset[Preserve]:
    """The part of a definition's ``preserve`` that cannot be kept: ``--without`` has to name it."""
    return frozenset(what for what in preserve if NEEDED_FOR[what] not in abilities)


def probe_filesystem(directory: Path) -> frozenset[Ability]:
    """Try everything in a new directory inside ``directory`` (the control folder), which is removed again.

    An ability counts when the call works *and* the result reads back. ``OSError`` when ``directory`` itself
    cannot be written.
    """
    top = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    with closing_fd(top), private_directory(top, b".instep-probe.") as fd:
        os.close(os.open(b"file", CREATE, 0o600, dir_fd=fd))
        return frozenset(ability for ability, probe in _PROBES.items() if _holds(probe, fd))


_CANNOT = frozenset(
    (
        *(errno.ENOTSUP, errno.EPERM, errno.EACCES, errno.EINVAL, errno.ENOSYS, errno.EILSEQ, errno.ENOTTY),
        *(errno.ENAMETOOLONG, errno.EXDEV, errno.EMLINK, errno.ENODATA, errno.ENOENT, errno.EEXIST),
    )
)


def _holds(probe: Callable[[int], bool], fd: int) -> bool:
    try:
        return probe(fd)
    except RenameUnsupportedError:
        return False
    except OSError as error:
        if error.errno in _CANNOT:
            return False
        raise


def _path(fd: int, name: bytes = b"file") -> bytes:
    return b"/proc/self/fd/%d/%b" % (fd, name)


def _touch(fd: int, name: bytes) -> bool:
    os.close(os.open(name, CREATE, 0o600, dir_fd=fd))
    return name in os.listdir(os.fsencode(f"/proc/self/fd/{fd}"))


def _ns_times(fd: int) -> bool:
    os.utime(b"file", ns=(_NS_MOMENT, _NS_MOMENT), dir_fd=fd)
    return os.stat(b"file", dir_fd=fd).st_mtime_ns == _NS_MOMENT


def _symlinks(fd: int) -> bool:
    os.symlink(b"target", b"link", dir_fd=fd)
    return os.readlink(b"link", dir_fd=fd) == b"target"


def _modes(fd: int) -> bool:
    for mode in (0o751, 0o600):
        os.chmod(b"file", mode, dir_fd=fd)
        if os.stat(b"file", dir_fd=fd).st_mode & 0o7777 != mode:
            return False
    return True


def _attribute(name: bytes, value: bytes) -> Callable[[int], bool]:
    def probe(fd: int) -> bool:
        os.setxattr(_path(fd), name, value)
        kept = os.getxattr(_path(fd), name) == value
        os.removexattr(_path(fd), name)
        return kept

    return probe


def _owners(fd: int) -> bool:
    _touch(fd, b"owned")
    os.chown(b"owned", 12_345, 12_345, dir_fd=fd)
    found = os.stat(b"owned", dir_fd=fd)
    return (found.st_uid, found.st_gid) == (12_345, 12_345)


def _hardlinks(fd: int) -> bool:
    os.link(b"file", b"hard", src_dir_fd=fd, dst_dir_fd=fd, follow_symlinks=False)
    return os.stat(b"file", dir_fd=fd).st_nlink == 2


def _sparse(fd: int) -> bool:
    with closing_fd(os.open(b"sparse", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=fd)) as file:
        os.pwrite(file, b"x", 1 << 20)
        return os.lseek(file, 0, os.SEEK_HOLE) == 0


def _case_sensitive(fd: int) -> bool:
    return _touch(fd, b"Case") and _touch(fd, b"cASE")


def _reflinks(fd: int) -> bool:
    source = os.open(b"file", os.O_RDWR | os.O_CLOEXEC, dir_fd=fd)
    target = os.open(b"clone", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=fd)
    try:
        os.pwrite(source, b"x" * 4096, 0)
        fcntl.ioctl(target, _FICLONE, source)
        return os.fstat(target).st_size == 4096
    finally:
        os.close(source)
        os.close(target)


def _exchange(fd: int) -> bool:
    _touch(fd, b"one")
    os.mkdir(b"two", 0o700, dir_fd=fd)
    rename_exchange(fd, b"one", fd, b"two")
    return True


def _noreplace(fd: int) -> bool:
    _touch(fd, b"here")
    rename_noreplace(fd, b"here", fd, b"there")
    return True


_PROBES: dict[Ability, Callable[[int], bool]] = {
    Ability.NS_TIMES: _ns_times,
    Ability.SYMLINKS: _symlinks,
    Ability.MODES: _modes,
    Ability.XATTRS: _attribute(b"user.instep.probe", b"value"),
    Ability.SECURITY_XATTRS: _attribute(b"security.capability", _CAPABILITY),
    Ability.ACLS: _attribute(b"system.posix_acl_access", _ACL),
    Ability.OWNERS: _owners,
    Ability.HARDLINKS: _hardlinks,
    Ability.SPARSE: _sparse,
    Ability.CASE_SENSITIVE: _case_sensitive,
    Ability.RAW_NAMES: lambda fd: _touch(fd, b"\xff\xfe"),
    Ability.LONG_NAMES: lambda fd: _touch(fd, b"n" * 255),
    Ability.REFLINKS: _reflinks,
    Ability.EXCHANGE: _exchange,
    Ability.NOREPLACE: _noreplace,
}
