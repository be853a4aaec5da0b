"""Lines for ``/etc/exports``, ``smb.conf`` and ``/etc/fstab`` that let nodes mount a root from a file server."""

from __future__ import annotations

from dataclasses import dataclass
from shlex import quote

from instep.model.share import NFS, SMB, Share

_KINDS = {NFS: "nfs4", SMB: "cifs"}
_COMMON = "nosuid,nodev,_netdev"
"""No program of a file server gets rights here, and the mount waits for the network."""
_NFS_OPTIONS = "hard,actimeo=3"
"""A server that is away makes programs wait instead of losing what they write; what other machines change is seen
after 3 s."""
_SMB_OPTIONS = "vers=3.1.1,hard,cache=strict,actimeo=3"


@dataclass(frozen=True, slots=True)
class SharedRoot:
    """``writers`` and ``readers`` are hosts or networks; ``owner`` is the user and group of the daemon here."""

    fileset: str
    share: Share
    """As the nodes name it."""
    exported: str
    """The directory on the file server."""
    at: str
    writers: tuple[str, ...]
    readers: tuple[str, ...]
    owner: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ServerExport:
    """``lines`` go into ``file`` of the file server, then it runs ``reload``."""

    file: str
    lines: tuple[str, ...]
    reload: str


@dataclass(frozen=True, slots=True)
class MountLine:
    """How one kind of machine mounts it: ``rw`` where the fileset is written, ``ro`` where it is only read."""

    access: str
    hosts: tuple[str, ...]
    fstab: str
    command: str


def kind_of(share: Share) -> str:
    """The kind of file system that a node mounts for it."""
    return _KINDS[share.protocol]


def expected_words(share: Share, at: str) -> str:
    """The value of ``expect_mount`` for it."""
    return f"{kind_of(share)} on {at} from {share}"


def export_of(wanted: SharedRoot) -> ServerExport:
    """What the file server has to say."""
    if wanted.share.protocol == NFS:
        rights = [
            f"{_client(host)}({access},sync,no_subtree_check,root_squash)" for host, access in _rights(wanted)
        ]
        return ServerExport("/etc/exports", (" ".join((_escaped(wanted.exported), *rights)),), "exportfs -ra")
    users = ("instep", "instep-read") if wanted.readers else ("instep",)
    lines = [
        f"[{wanted.share.path.partition('/')[0]}]",
        f"    path = {wanted.exported}",
        "    read only = yes",
        "    write list = instep",
        f"    valid users = {' '.join(users)}",
        f"    hosts allow = {' '.join(host for host, _ in _rights(wanted))}",
    ]
    return ServerExport("smb.conf", tuple(lines), "testparm -s && smbcontrol all reload-config")


def mounts_of(wanted: SharedRoot) -> tuple[MountLine, ...]:
    """What the nodes have to say: those that write first."""
    found = [_mount(wanted, "rw", wanted.writers)]
    if wanted.readers:
        found.append(_mount(wanted, "ro", wanted.readers))
    return tuple(found)


def _mount(wanted: SharedRoot, access: str, hosts: tuple[str, ...]) -> MountLine:
    source, kind = str(wanted.share), kind_of(wanted.share)
    options = f"{access},{_NFS_OPTIONS},{_COMMON}"
    if wanted.share.protocol == SMB:
        secret = f"/etc/instep/{wanted.fileset}-{access}.smb"
        uid, gid = wanted.owner
        options = f"{access},credentials={secret},uid={uid},gid={gid},{_SMB_OPTIONS},{_COMMON}"
    fstab = " ".join((_escaped(source), _escaped(wanted.at), kind, options, "0 0"))
    typed = options.replace(",_netdev", "")
    return MountLine(access, hosts, fstab, f"mount -t {kind} -o {typed} {quote(source)} {quote(wanted.at)}")


def _rights(wanted: SharedRoot) -> list[tuple[str, str]]:
    """A host that may write counts before the network that holds it: exports(5) takes the nearest."""
    return [(host, "rw") for host in wanted.writers] + [(host, "ro") for host in wanted.readers]


def _client(host: str) -> str:
    return f"[{host}]" if ":" in host and "/" not in host else host


def _escaped(text: str) -> str:
    """As fstab(5) and exports(5) take a word that holds blanks or other signs of theirs."""
    return "".join(f"\\{ord(c):03o}" if c in ' \t\n\\#"' else c for c in text)
