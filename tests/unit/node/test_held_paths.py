"""A path that a scan cannot carry keeps its last entry, with all below it, and the rest goes on (P10)."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest

from instep.core.held import HeldPaths
from instep.core.publish_vocabulary import ScanSummary
from instep.model.definition import Definition
from instep.model.ids import FilesetName, NodeName
from instep.model.manifest import iterate
from instep.node.survey import Survey
from instep.store.memory import MemoryStore
from instep.tree.marker import create_marker
from instep.tree.place import Place
from tests.support.mounts import mounted, unmount

FILESET = FilesetName("data")


class _Writer:
    """A small tree and its survey: ``a``, ``d/f0`` to ``d/f4``, ``rest``."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "root"
        (self.root / "d").mkdir(parents=True)
        for number in range(5):
            (self.root / "d" / f"f{number}").write_text("five!")
        (self.root / "a").write_text("a")
        (self.root / "rest").write_text("rest")
        marker = create_marker(self.root, FILESET, NodeName("main"))
        self.store = MemoryStore()
        self.survey = Survey(
            Place(self.root, tmp_path / "control", FILESET),
            FILESET,
            Definition(),
            lambda: marker,
            lambda digest, data, fd: None,
        )
        self.now_ms = self.root.stat().st_mtime_ns // 1_000_000 + 10_000
        self.base = self.survey.everything(self.store, None, self.now_ms, deep=False).summary

    def looks(self, before: ScanSummary, *paths: bytes) -> ScanSummary:
        """A partial scan of these paths, or a full one."""
        if not paths:
            return self.survey.everything(self.store, before.root, self.now_ms, deep=False).summary
        again = (*before.held.listed, *before.reported.listed)
        return self.survey.some(self.store, before.root, [], paths, self.now_ms, again).summary

    def paths(self, summary: ScanSummary) -> set[bytes]:
        return {entry.path for entry in iterate(summary.root, self._page)}

    def _page(self, digest: bytes) -> bytes:
        raw = self.store.get_page(digest)  # type: ignore[arg-type]
        assert raw is not None
        return raw


def _said(held: HeldPaths) -> list[tuple[bytes, str, int, int]]:
    return [(each.path, each.what, each.entries, each.size_bytes) for each in held.listed]


@pytest.mark.parametrize("is_full", [True, False], ids=["full scan", "partial scan"])
def test_a_path_of_another_kind_keeps_its_last_entry(tmp_path: Path, is_full: bool) -> None:
    """Goal: pipes and sockets in place of a file and of a directory remove nothing and hold nothing else up; once
    they are gone, what is there then is published. A socket where nothing was published is only reported."""
    writer = _Writer(tmp_path)
    everything = writer.paths(writer.base)
    looked = () if is_full else (b"a", b"d", b"rest", b"new", b"sock")
    (writer.root / "a").unlink()
    os.mkfifo(writer.root / "a")
    shutil.rmtree(writer.root / "d")
    os.mkfifo(writer.root / "d")
    (writer.root / "rest").write_text("changed")
    (writer.root / "new").write_text("new")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(writer.root / "sock"))
    found = writer.looks(writer.base, *looked)
    assert (found.added, found.changed, found.removed, found.problems) == (1, 1, 0, ())
    assert writer.paths(found) == everything | {b"new"}
    assert _said(found.held) == [(b"a", "pipe", 1, 1), (b"d", "pipe", 6, 25)]
    assert _said(found.reported) == [(b"sock", "socket", 0, 0)]

    still = writer.looks(found, *(() if is_full else (b"rest",)))
    assert (still.root, _said(still.held)) == (found.root, _said(found.held))

    for name in ("a", "d", "sock"):
        (writer.root / name).unlink()
    (writer.root / "d").mkdir()
    (writer.root / "d" / "f0").write_text("again")
    freed = writer.looks(still, *(() if is_full else (b"rest",)))
    assert (freed.held.total, freed.reported.total) == (0, 0)
    assert writer.paths(freed) == {b"d", b"d/f0", b"new", b"rest"}


@pytest.mark.parametrize("is_full", [True, False], ids=["full scan", "partial scan"])
def test_a_mount_over_published_files_removes_none_of_them(tmp_path: Path, is_full: bool) -> None:
    """Goal: a mount below the root hides what was published there, and after the umount all of it is as it was."""
    writer = _Writer(tmp_path)
    looked = () if is_full else (b"d",)
    with mounted("tmpfs", writer.root / "d"):
        (writer.root / "d" / "foreign").write_text("foreign")
        hidden = writer.looks(writer.base, *looked)
        assert (hidden.root, hidden.removed) == (writer.base.root, 0)
        assert _said(hidden.held) == [(b"d", "mount", 6, 25)]
        assert _said(writer.looks(hidden, *looked).held) == [(b"d", "mount", 6, 25)]
        unmount(writer.root / "d")
    (writer.root / "d" / "f1").write_text("written below the mount")
    freed = writer.looks(hidden, *(() if is_full else (b"rest",)))
    assert (freed.held.total, freed.changed, freed.removed) == (0, 1, 0)
