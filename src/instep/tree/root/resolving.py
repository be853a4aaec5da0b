"""A path without symlinks, found without touching a file system that may hang: a dead server would stop the caller."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path

from instep.tree.root.kernel import MOUNTS, mount_point

_ELSEWHERE = frozenset({"9p", "afs", "autofs", "ceph", "cifs", "glusterfs", "lustre", "nfs", "nfs4", "smb3"})
"""Other machines answer for these, as programs do for every kind of ``fuse``."""
_LINKS_MAX = 40


def resolved(path: Path, table: bytes | None = None) -> Path:
    """``path`` with its symlinks followed, up to the first mount of another machine or of a program. The rest is taken
    as it is written: a mount point is no symlink, and names below it are not looked up."""
    if table is None:
        with open(MOUNTS, "rb") as lines:
            table = lines.read()
    mounts = frozenset(_mounts_elsewhere(table))
    pending, here = deque(Path(os.path.abspath(path)).parts[1:]), Path("/")
    links = 0
    while pending:
        here = here / pending.popleft()
        if here in mounts:
            break
        try:
            target = here.readlink() if links < _LINKS_MAX else None
        except OSError:
            continue  # no symlink, or nothing that can be read
        if target is not None:
            links += 1
            pending.extendleft(reversed(Path(os.path.normpath(here.parent / target)).parts[1:]))
            here = Path("/")
    return here.joinpath(*pending)


def _mounts_elsewhere(table: bytes) -> list[Path]:
    found = []
    for line in table.splitlines():
        kind = line.partition(b" - ")[2].split(b" ", 1)[0].decode("ascii", "replace")
        if kind in _ELSEWHERE or kind.startswith("fuse"):
            found.append(Path(os.fsdecode(mount_point(line))))
    return found
