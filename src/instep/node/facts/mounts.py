"""Which file system holds a path: its kind, where it is mounted, its options; and whether that is the one expected."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from instep.errors import RefusedError
from instep.node.config.filesets import ExpectedMount

_NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "glusterfs", "ceph", "fuse.glusterfs", "fuse.sshfs")
_SERVER_OPTIONS = ("vers", "hard", "soft", "sec", "proto", "local_lock", "nolock", "sync")
"""The options of a network file system that count; addresses and ports differ from node to node."""


@dataclass(frozen=True, slots=True)
class Mount:
    """``at`` is the mount point, ``options`` are the mount's own and, on a network, the negotiated ones."""

    kind: str
    at: str
    options: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.kind} {','.join(self.options)}"

    @property
    def named(self) -> str:
        return f"{self.kind} on {self.at}"


def is_expected(mount: Mount | None, expected: ExpectedMount) -> bool:
    """Whether ``expect_mount`` describes this mount."""
    return mount is not None and expected.kind in (None, mount.kind) and expected.at in (None, mount.at)


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
        at = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        is_nearer = found is None or len(at) >= len(found.at)
        if is_nearer and (real == at or real.startswith(at.rstrip("/") + "/")):
            found = Mount(about[0], at, _options(about[0], fields[5], about[2] if len(about) > 2 else ""))
    return found


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
    ours = found.named if found is not None else "nothing"
    raise RefusedError(
        f"{path} is on {ours}, expect_mount of {fileset} says {expected}",
        hint=f"mount it, it goes on by itself; or change expect_mount of {fileset}",
        code="mount_missing",
        ours=ours,
        expected=str(expected),
    ).later()


def why_shared(mount: Mount | None) -> str | None:
    """A warning for an operator about a root on a network file system; None for any other."""
    if mount is None or mount.kind not in _NETWORK:
        return None
    told = "changes by other machines there are noticed by the timed scan only"
    if "rw" in mount.options:
        return f"mounted rw: every machine that mounts it may write there; {told}"
    return f"mounted ro: a generation cannot be applied here; {told}"
