"""Which file system holds a path: its kind, where it is mounted, its options; and whether that is the one expected."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from instep.errors import RefusedError
from instep.model.share import Share, share_of
from instep.node.config.filesets import ExpectedMount

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "glusterfs", "ceph", "fuse.glusterfs", "fuse.sshfs")
_SERVER_OPTIONS = ("vers", "hard", "soft", "sec", "proto", "local_lock", "nolock", "sync")
"""The options of a network file system that count; addresses and ports differ from node to node."""


@dataclass(frozen=True, slots=True)
class Mount:
    """``at`` is the mount point, ``options`` are the mount's own and, on a network, the negotiated ones; ``source`` is
    a device, or a directory of a file server."""

    kind: str
    at: str
    options: tuple[str, ...]
    source: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {','.join(self.options)}"

    @property
    def named(self) -> str:
        return f"{self.kind} on {self.at}"

    @property
    def share(self) -> Share | None:
        """The directory of a file server that it is, None for any other mount."""
        return share_of(self.source)


def is_expected(mount: Mount | None, expected: ExpectedMount) -> bool:
    """Whether ``expect_mount`` describes this mount."""
    if mount is None or expected.kind not in (None, mount.kind) or expected.at not in (None, mount.at):
        return False
    return expected.share is None or expected.share.is_same(mount.share)


def mount_at(path: Path, table: str | None = None) -> Mount | None:
    """The mount of ``path``, read from the kernel's list without touching the path itself, so that a dead mount
    answers; of several mounts at one place the last counts. None where the list does not say."""
    real = os.path.normpath(path)
    found: Mount | None = None
    if table is None:
        table = Path("/proc/self/mountinfo").read_text(errors="replace")
    for line in table.splitlines():
        before, _, after = line.partition(" - ")
        fields, about = before.split(), after.split()
        at = _plain(fields[4])
        is_nearer = found is None or len(at) >= len(found.at)
        if is_nearer and (real == at or real.startswith(at.rstrip("/") + "/")):
            options = _options(about[0], fields[5], about[2] if len(about) > 2 else "")
            found = Mount(about[0], at, options, _plain(about[1]) if len(about) > 1 else "")
    return found


def _plain(field: str) -> str:
    return re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), field)


def _options(kind: str, of_mount: str, of_server: str) -> tuple[str, ...]:
    options = of_mount.split(",")
    if kind in _NETWORK:
        options += [each for each in of_server.split(",") if each.partition("=")[0] in _SERVER_OPTIONS]
    return tuple(dict.fromkeys(options))


def require_mount(fileset: str, path: Path, expected: ExpectedMount | None) -> None:
    """``RefusedError`` ``mount_missing`` with both values, to be retried: a disk that is not there must not look
    like an empty or another tree (P10)."""
    if expected is None:
        return
    found = mount_at(path)
    if is_expected(found, expected):
        return
    ours = "nothing"
    if found is not None:
        ours = found.named + (f" from {found.source}" if expected.share is not None else "")
    raise RefusedError(
        f"{path} is on {ours}, expect_mount of {fileset} says {expected}",
        hint=f"mount it, it goes on by itself; or change expect_mount of {fileset}",
        code="mount_missing",
        ours=ours,
        expected=str(expected),
    ).later()


def row_of(mount: Mount | None, root: Path, *, is_observed: bool) -> tuple[str, str, str | None]:
    """For ``check``: the mount, what it means, and that again where an operator should change it."""
    share = mount.share if mount is not None else None
    words = why_shared(mount, is_observed=is_observed)
    is_too_much = is_observed and words is not None and mount is not None and "rw" in mount.options
    return (
        f"{mount}" + (f" from {share}" if share is not None else ""),
        words or str(root),
        words if is_too_much else None,
    )


def why_shared(mount: Mount | None, *, is_observed: bool = False) -> str | None:
    """A warning for an operator about a root on a network file system; None for any other."""
    if mount is None or mount.kind not in _NETWORK:
        return None
    told = "changes by other machines there are noticed by the timed scan only"
    if "rw" not in mount.options:
        return told if is_observed else f"mounted ro: a generation cannot be applied here; {told}"
    if is_observed:
        return f"mounted rw, and this node only reads it: mount it ro; {told}"
    return f"mounted rw: every machine that mounts it may write there; {told}"
