"""A file system as a network client sees it: no flags of renames, names and attributes from a cache of three seconds.

Two ``bindfs`` mounts of one directory stand for two clients of a server: the cache of one hides the writes of the
other.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.tree.journal import renames
from instep.tree.switch.switch import switch
from tests.support.apply_world import START_NS, Tree, World
from tests.support.mounts import need_root, unmount

OLD: Tree = {b"f": b"one", b"g": b"one"}
NEW: Tree = {b"f": b"two", b"g": b"two", b"n": b"new"}
SAVED = b"another client saved this meanwhile"
CACHED = "attr_timeout=3,entry_timeout=3,negative_timeout=3"


@contextlib.contextmanager
def client(directory: Path, at: Path) -> Iterator[Path]:
    need_root("mounts a FUSE file system")
    if shutil.which("bindfs") is None or not os.path.exists("/dev/fuse"):
        pytest.skip("bindfs or FUSE is not here")
    at.mkdir()
    done = subprocess.run(
        ["bindfs", "-o", CACHED, str(directory), str(at)],
        capture_output=True,
        text=True,
        check=False,
        timeout=20,
    )
    if done.returncode != 0:
        pytest.skip(f"bindfs does not work here: {done.stderr.strip()}")
    try:
        yield at
    finally:
        unmount(at)


@pytest.fixture
def clients(tmp_path: Path) -> Iterator[tuple[Path, Path]]:
    """Ours and the other's."""
    (tmp_path / "server").mkdir()
    with (
        client(tmp_path / "server", tmp_path / "ours") as ours,
        client(tmp_path / "server", tmp_path / "theirs") as other,
    ):
        yield ours, other


def save(root: Path, name: str) -> None:
    (root / "saved.tmp").write_bytes(SAVED)
    (root / "saved.tmp").rename(root / name)


def kept(server: Path) -> bool:
    return any(path.read_bytes() == SAVED for path in server.rglob("*") if path.is_file())


@pytest.mark.parametrize("path", ["f", "n"])
@pytest.mark.parametrize(
    "moment", [0, 1, 2, 3], ids=["behind the cache", "first link", "second link", "third link"]
)
def test_what_another_client_saves_is_kept(
    clients: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, path: str, moment: int
) -> None:
    ours, theirs = clients
    world = World.make(ours)
    world.apply(OLD)
    journal = world.stage(world.generation(NEW), now_ns=START_NS + 9)
    (theirs / "root").stat()
    hits = 0

    def hit(_: str) -> None:
        nonlocal hits
        hits += 1
        if hits == moment:
            save(theirs / "root", path)

    monkeypatch.setattr(renames, "failpoint", hit)
    if moment == 0:
        assert (world.root / path).exists() is (path == "f")  # now our cache knows it
        save(theirs / "root", path)
    switch(world.place, journal, local=world.local, get_page=world.page, now_ms=5)
    if hits < moment:
        pytest.skip("renames without replacement work here, so nothing is linked")
    assert kept(ours.parent / "server")
    server = ours.parent / "server" / "root"
    assert {(server / name).read_bytes() for name in ("f", "g", "n")} <= {b"two", b"new", SAVED}
