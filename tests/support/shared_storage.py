"""Nodes that follow one fileset on one directory: each sees it through a mount of its own, as clients of a file server
do where FUSE is here, and else through a bind mount."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet
from tests.support.mounts import need_root, unmount
from tests.support.waiting import eventually

__all__ = ["CACHED", "SharedStorage", "is_twin_here", "shared_storage"]

CACHED = "attr_timeout=3,entry_timeout=3,negative_timeout=3"


def is_twin_here() -> bool:
    """Whether mounts can behave as those of a file server."""
    return shutil.which("bindfs") is not None and os.path.exists("/dev/fuse")


class SharedStorage:
    """``server`` is the directory as the file server has it; each node's root is a mount of it."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.server = fleet.base / "server"
        self.server.mkdir()
        self._mounts: dict[Path, subprocess.Popen[bytes] | None] = {}

    def mount(self, name: str) -> Path:
        at = self.fleet.tree(name)
        at.mkdir(parents=True, exist_ok=True)
        if is_twin_here():
            self._mounts[at] = subprocess.Popen(["bindfs", "-f", "-o", CACHED, str(self.server), str(at)])
            eventually(lambda: os.path.ismount(at), describe=f"{at} to be mounted")
        else:
            subprocess.run(["mount", "--bind", str(self.server), str(at)], check=True, timeout=20)
            self._mounts[at] = None
        return at

    @contextlib.contextmanager
    def hanging(self, name: str) -> Iterator[None]:
        """No call to that node's mount comes back in the block."""
        client = self._mounts[self.fleet.tree(name)]
        if client is None:
            pytest.skip("bindfs or FUSE is not here")
        client.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            client.send_signal(signal.SIGCONT)

    def unmount(self, name: str) -> None:
        at = self.fleet.tree(name)
        unmount(at)
        self._end(self._mounts.pop(at))

    def make(self, *names: str, line: str = "") -> None:
        """``main`` writes on its own disk; the others follow on the shared directory."""
        fleet, file = self.fleet, self.fleet.base / "cluster"
        file.write_text((line or f"sqlite:{fleet.base / 'cluster.db'}") + "\n")
        file.chmod(0o600)
        fleet.make(0)
        for name in names:
            fleet.join(name, accept=False)
        for name in ("main", *names):
            config = fleet[name].directory / "instep.toml"
            config.write_text(f'cluster_file = "{file}"\n{config.read_text()}')
            fleet[name].run("config", "reload")
        for name in names:
            self.mount(name)
            fleet.accept(name, "--shared")

    def close(self) -> None:
        for at, client in self._mounts.items():
            unmount(at)
            self._end(client)

    def _end(self, client: subprocess.Popen[bytes] | None) -> None:
        if client is not None:
            client.kill()
            client.wait(timeout=20)


@contextlib.contextmanager
def shared_storage(fleet: Fleet) -> Iterator[SharedStorage]:
    need_root("mounts a file system")
    made = SharedStorage(fleet)
    try:
        yield made
    finally:
        fleet.close()
        made.close()
