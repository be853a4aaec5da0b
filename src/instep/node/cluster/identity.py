"""The identity of a node in the cluster's database: its machine and its directory, so that two of one name differ."""

from __future__ import annotations

import os
from pathlib import Path

from blake3 import blake3

from instep.node.directory import NodeDirectory

MACHINE_ID = Path("/etc/machine-id")


def identity_of(directory: NodeDirectory, machine_id: Path = MACHINE_ID) -> str:
    """The same after each start of a daemon in this directory; another one for a copy of it."""
    try:
        machine = machine_id.read_text("ascii", "replace").strip()
    except OSError:
        machine = ""
    inode = directory.path.stat().st_ino
    return blake3(f"{machine or os.uname().nodename}\0{inode}".encode()).hexdigest()[:32]
