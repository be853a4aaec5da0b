"""One module a tool; ``every_peer`` is the order in which they are measured and shown."""

from __future__ import annotations

from bench.peers.base import Peer
from bench.peers.csync2 import Csync2
from bench.peers.floors import CopyLocally, TarOverSsh
from bench.peers.instep import Instep
from bench.peers.lsyncd import Lsyncd
from bench.peers.rclone import Rclone
from bench.peers.rsync import RsyncDaemon, RsyncOverSsh
from bench.peers.subversion import Subversion
from bench.peers.syncthing import Syncthing
from bench.peers.unison import Unison

__all__ = ["every_peer"]


def every_peer() -> list[Peer]:
    """All peers, whether installed or not."""
    return [
        Instep(),
        RsyncDaemon(),
        RsyncOverSsh(),
        Syncthing(),
        Unison(),
        Rclone(),
        Subversion(),
        Csync2(),
        Lsyncd(),
        TarOverSsh(),
        CopyLocally(),
    ]
