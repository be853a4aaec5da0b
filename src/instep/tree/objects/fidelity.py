"""The metadata of an object: read into an entry, expected here, and put on a staged object.

Three functions do it: read the metadata of an object (``read_extra``), compute the form of an entry on this
node (``expected_local``), and apply it to an object (``apply_metadata``). A node's root is
attested: the metadata read from an applied object equals the expected local form of its entry. Design, section 7
"Fidelity".

Left out on purpose: ``security.selinux``, ``security.ima``, ``security.evm`` and the SMACK labels are policy
of the machine and never carried. ``sparse`` is a wish for the layout: it is carried and followed, but it is
not attested, because block sizes differ between file systems.
"""

from __future__ import annotations

import enum
import errno
import os
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import msgspec

from instep.model.definition import Preserve
from instep.model.ids import Digest
from instep.model.limits import ENTRY_MAX_BYTES, INLINE_XATTR_MAX
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.tree.objects.digest import digest_bytes
from instep.tree.objects.inode import SETID, Inode
from instep.tree.objects.owners import Owners
from instep.tree.root.descriptors import Tolerated

_INLINE_TOTAL_MAX = ENTRY_MAX_BYTES // 2
_ACL_ACCESS = b"system.posix_acl_access"
_ACL_DEFAULT = b"system.posix_acl_default"
_ACLS = (_ACL_ACCESS, _ACL_DEFAULT)
_NEVER_CARRIED = frozenset((b"security.selinux", b"security.ima", b"security.evm"))
_SMACK = b"security.SMACK64"
_NO_XATTRS = (errno.ENOTSUP, errno.ENODATA)


class Allow(enum.Enum):
    """``allow_preserve``: the metadata that a manifest of another node may set here."""

    OWNER = "owner"
    SETUID = "setuid"
    SECURITY = "security"


@dataclass(frozen=True, slots=True)
class Local:
    """The metadata that this node carries and may set.

    ``preserve`` is the definition's, ``without`` the part that this file system cannot keep, ``is_own`` is true at the
    writer, whose own tree is the truth and needs no permission.
    """

    preserve: frozenset[Preserve] = frozenset()
    allow: frozenset[Allow] = frozenset()
    without: frozenset[Preserve] = frozenset()
    is_own: bool = False
    is_secret: bool = False
    """Group and others have no rights where such a tree is followed, whatever its manifest says."""
    owners: Owners = field(default_factory=Owners)

    def keeps(self, what: Preserve) -> bool:
        """Whether ``what`` is asked for, can be kept here, and may be set here."""
        if what in self.without or (what is Preserve.ACL and self.is_secret):
            return False
        if what is Preserve.OWNER and self.owners.rules.everything is not None:
            return True
        is_allowed = what is not Preserve.OWNER or self.may(Allow.OWNER) or bool(self.owners.rules)
        return what in self.preserve and is_allowed

    def may(self, what: Allow) -> bool:
        return self.is_own or what in self.allow

    def carries(self, name: bytes) -> bool:
        """Whether the extended attribute ``name`` is read and set here."""
        if name in _ACLS:
            return self.keeps(Preserve.ACL)
        if not self.keeps(Preserve.XATTR):
            return False
        if name.startswith(b"user."):
            return True
        if name.startswith((b"security.", b"trusted.")):
            is_label = name in _NEVER_CARRIED or name.startswith(_SMACK)
            return not is_label and self.may(Allow.SECURITY)
        return False

    def modes(self, kind: Kind) -> int:
        """The bits of a manifest's mode that are set here."""
        if self.is_own or kind is Kind.SYMLINK:
            return 0o7777
        if self.is_secret:
            return 0o700 if kind is Kind.DIR else 0o600
        return 0o7777 if Allow.SETUID in self.allow else 0o7777 & ~SETID

    @property
    def reads_xattrs(self) -> bool:
        return self.keeps(Preserve.XATTR) or self.keeps(Preserve.ACL)

    @property
    def is_plain(self) -> bool:
        """Whether entries of this node never have an extra but for chunks: the quick way of the scan."""
        return not any(self.keeps(what) for what in Preserve)


def expected_local(entry: Entry, local: Local) -> Entry:
    """The form in which ``entry`` stands in this node's tree, as a scan of the applied tree reads it.

    Setuid and setgid bits, owners, ``security.*`` and ``trusted.*`` only where allowed; no rights of others in a
    secret tree; metadata that the file system cannot keep is left out; owners are mapped to names of this machine.
    ``chunks`` stay.
    """
    mode = entry.mode & local.modes(entry.kind)
    owners = local.owners
    extra = entry.extra
    if extra is None:
        if owners.rules.everything is None:
            return entry if mode == entry.mode else msgspec.structs.replace(entry, mode=mode)
        extra = _NOTHING
    is_one = owners.rules.everything is not None
    keeps_owner = local.keeps(Preserve.OWNER)
    wanted = Extra(
        owner=owners.local_user(extra.owner or "") if keeps_owner and (is_one or extra.owner) else None,
        group=owners.local_group(extra.group or "") if keeps_owner and (is_one or extra.group) else None,
        xattrs=tuple(x for x in extra.xattrs if local.carries(x[0])),
        large_xattrs=tuple(x for x in extra.large_xattrs if local.carries(x[0])),
        link_group=extra.link_group if local.keeps(Preserve.HARDLINKS) else None,
        sparse=extra.sparse if local.is_own and local.keeps(Preserve.SPARSE) else False,
        chunks=extra.chunks,
    )
    if wanted == extra and mode == entry.mode:
        return entry
    return msgspec.structs.replace(entry, mode=mode, extra=None if wanted == _NOTHING else wanted)


_NOTHING = Extra()


def has_holes(fd: int, found: os.stat_result) -> bool:
    """Whether an open file has a hole: fewer blocks than bytes, and the file system names one."""
    if found.st_blocks * 512 >= found.st_size:
        return False
    is_holed = False
    with Tolerated(errno.EINVAL, errno.ENOTSUP, errno.ENXIO):
        is_holed = os.lseek(fd, 0, os.SEEK_HOLE) < found.st_size
    os.lseek(fd, 0, os.SEEK_SET)
    return is_holed


def read_extra(
    where: int | bytes,
    found: os.stat_result,
    kind: Kind,
    local: Local,
    *,
    is_sparse: bool = False,
    keep_value: Callable[[Digest, bytes], None] | None = None,
) -> Extra | None:
    """The extra of an object, without ``link_group`` and ``chunks``; None when there is nothing to say.

    ``where`` is a descriptor (not ``O_PATH``) or a path such as ``/proc/self/fd/N/name``, which is not
    followed. ``keep_value`` receives each attribute value too large to be inline.
    """
    owner = group = None
    if local.keeps(Preserve.OWNER):
        owner, group = local.owners.user_of(found.st_uid), local.owners.group_of(found.st_gid)
    inline: list[tuple[bytes, bytes]] = []
    large: list[tuple[bytes, Digest, int]] = []
    if local.reads_xattrs:
        for name, value in _read_xattrs(where, local):
            if len(value) <= INLINE_XATTR_MAX:
                inline.append((name, value))
                continue
            digest = digest_bytes(value)
            large.append((name, digest, len(value)))
            if keep_value is not None:
                keep_value(digest, value)
    if sum(len(name) + len(value) for name, value in inline) > _INLINE_TOTAL_MAX:
        raise OSError(errno.E2BIG, "its extended attributes are too large to be carried")
    sparse = is_sparse and kind is Kind.FILE and local.is_own and local.keeps(Preserve.SPARSE)
    if owner is None and not inline and not large and not sparse:
        return None
    return Extra(owner=owner, group=group, xattrs=tuple(inline), large_xattrs=tuple(large), sparse=sparse)


def _read_xattrs(where: int | bytes, local: Local) -> list[tuple[bytes, bytes]]:
    """Sorted ``(name, value)`` of what ``local`` carries; one that vanishes meanwhile is left out."""
    pairs: list[tuple[bytes, bytes]] = []
    for name in _list_xattrs(where, is_followed=isinstance(where, int)):
        if not local.carries(name):
            continue
        with Tolerated(*_NO_XATTRS):
            pairs.append((name, os.getxattr(where, name, follow_symlinks=isinstance(where, int))))
    return sorted(pairs)


def _list_xattrs(where: int | bytes, *, is_followed: bool) -> list[bytes]:
    with Tolerated(*_NO_XATTRS):
        return [os.fsencode(name) for name in os.listxattr(where, follow_symlinks=is_followed)]
    return []


def apply_metadata(
    dir_fd: int,
    name: bytes,
    entry: Entry,
    local: Local,
    *,
    fd: int | None = None,
    ino: int = 0,
    large_value: Callable[[Digest], bytes] | None = None,
) -> None:
    """Give the object ``name`` in ``dir_fd`` the metadata of ``entry`` as far as ``local`` allows.

    Owner first (it clears setuid bits and capabilities), then attributes, mode, ACLs, times last.
    Attributes of the carried kinds that the entry lacks are removed. ``fd`` spares looking the name up
    again when the caller has the object open; otherwise the name is opened once, without following, and must be of
    the entry's kind; in a live tree ``ino`` says which object is meant. ``large_value`` gives attribute values kept by
    digest, already verified. Errors: ``OSError``, ``ReplacedError``, ``ResourceError`` ``unknown_owner``.
    """
    if fd is not None:
        _apply_to(fd, entry, local, large_value)
        return
    with Inode(dir_fd, name) as held:
        held.require(_FORMATS[entry.kind], ino=ino)
        _apply_to(held.at, entry, local, large_value)


_FORMATS = {Kind.FILE: stat.S_IFREG, Kind.DIR: stat.S_IFDIR, Kind.SYMLINK: stat.S_IFLNK}


def _apply_to(
    where: int | bytes, entry: Entry, local: Local, large_value: Callable[[Digest], bytes] | None
) -> None:
    """``where`` is an open descriptor or the path of a held object."""
    expected = expected_local(entry, local)
    extra = expected.extra
    has_mode = entry.kind is not Kind.SYMLINK
    if extra is not None and extra.owner is not None and extra.group is not None:
        os.chown(where, local.owners.id_here("user", extra.owner), local.owners.id_here("group", extra.group))
    if local.reads_xattrs:
        if has_mode:
            os.chmod(where, 0o700)  # a mode without "w" would forbid its owner to set attributes
        wanted = _wanted_xattrs(extra or _NOTHING, large_value)
        _remove_others(where, wanted, local)
        _set_xattrs(where, {n: v for n, v in wanted.items() if n not in _ACLS})
        if has_mode:
            os.chmod(where, expected.mode)
        _set_xattrs(where, {n: v for n, v in wanted.items() if n in _ACLS})
    elif has_mode:
        os.chmod(where, expected.mode)
    os.utime(where, ns=(entry.mtime_ns, entry.mtime_ns))


def _wanted_xattrs(extra: Extra, large_value: Callable[[Digest], bytes] | None) -> dict[bytes, bytes]:
    wanted = dict(extra.xattrs)
    for name, digest, _ in extra.large_xattrs:
        assert large_value is not None, "an entry with large attributes needs their values"
        wanted[name] = large_value(digest)
    return wanted


def _remove_others(where: int | bytes, wanted: Mapping[bytes, bytes], local: Local) -> None:
    for name in _list_xattrs(where, is_followed=True):
        if name not in wanted and local.carries(name):
            os.removexattr(where, name)


def _set_xattrs(where: int | bytes, values: Mapping[bytes, bytes]) -> None:
    for name in sorted(values):
        os.setxattr(where, name, values[name])
