"""A path that a scan cannot carry keeps its last entry, with all below it, and the rest goes on (P10)."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from pathlib import Path

import pytest

from instep.core.guards.held import HeldPaths, ScanProblem
from instep.core.publish.vocabulary import ScanSummary
from instep.model.definition import Definition, Preserve
from instep.model.ids import FilesetName, NodeName
from instep.model.limits import DEPTH_MAX
from instep.model.manifest.check import check_diff, check_tree
from instep.model.manifest.manifest import iterate
from instep.node.config.filesets import FilesetSettings
from instep.node.trees.scanning.held_view import held_documents
from instep.node.trees.scanning.writer_scan import WriterScan
from instep.store.memory import MemoryStore
from instep.tree.root.marker import create_marker
from instep.tree.root.place import Place
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
        self.marker = create_marker(self.root, FILESET, NodeName("main"))
        self.store = MemoryStore()
        self.place = Place(self.root, tmp_path / "control", FILESET)
        self.survey = WriterScan(
            self.place,
            FILESET,
            Definition(),
            lambda: self.marker,
            lambda digest, data, fd: None,
        )
        self.now_ms = self.root.stat().st_mtime_ns // 1_000_000 + 10_000
        self.base = self.survey.everything(self.store, None, self.now_ms, deep=False).summary

    def lets_go(self, before: ScanSummary, path: bytes, *, is_full: bool) -> ScanSummary:
        survey = WriterScan(
            self.place,
            FILESET,
            Definition(),
            lambda: self.marker,
            lambda *_: None,
            lets_go=frozenset((path,)),
        )
        if is_full:
            return survey.everything(self.store, before.root, self.now_ms, deep=False).summary
        return survey.some(self.store, before.root, [], [b"rest"], self.now_ms, before.held.listed).summary

    def looks(self, before: ScanSummary, *paths: bytes) -> ScanSummary:
        """A partial scan of these paths, or a full one."""
        if not paths:
            return self.survey.everything(self.store, before.root, self.now_ms, deep=False).summary
        again = (*before.held.listed, *before.reported.listed)
        return self.survey.some(self.store, before.root, [], paths, self.now_ms, again).summary

    def paths(self, summary: ScanSummary) -> set[bytes]:
        return {entry.path for entry in iterate(summary.root, self.page)}

    def page(self, digest: bytes) -> bytes:
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

    gone = writer.lets_go(still, b"d", is_full=is_full)
    assert (gone.removed, writer.paths(gone)) == (6, {b"a", b"new", b"rest"})
    assert (_said(gone.held), b"d" in gone.reported.paths) == ([(b"a", "pipe", 1, 1)], True)

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


@pytest.mark.parametrize("is_full", [True, False], ids=["full scan", "partial scan"])
def test_what_no_receiver_takes_is_never_in_a_manifest(tmp_path: Path, is_full: bool) -> None:
    """Goal: an impossible time, a path that is too deep and a file that is too large hold themselves back and nothing
    else; a directory's time holds nothing back. The manifest passes the check of a receiver."""
    writer = _Writer(tmp_path)
    (writer.root / "a").write_text("newer")
    os.utime(writer.root / "a", (9_300_000_000, 9_300_000_000))
    os.utime(writer.root / "d", (9_300_000_000, 9_300_000_000))
    _make_deep(writer.root, DEPTH_MAX + 10)
    if _can_be_huge(writer.root):
        (writer.root / "huge").touch()
        os.truncate(writer.root / "huge", 1 << 53)
    (writer.root / "rest").write_text("changed")
    os.symlink("rest", writer.root / "late")
    os.utime(writer.root / "late", (9_300_000_000, 9_300_000_000), follow_symlinks=False)
    surveyed = (
        writer.survey.everything(writer.store, writer.base.root, writer.now_ms, deep=False)
        if is_full
        else writer.survey.some(
            writer.store, writer.base.root, [b"deep"], [b"a", b"d", b"rest", b"late", b"huge"], writer.now_ms
        )
    )
    found = surveyed.summary
    check_tree(found.root, writer.page)
    held = {each.path[:10]: (each.what, each.entries) for each in found.held.listed}
    if _can_be_huge(writer.root):
        assert held.pop(b"huge") == ("too_large", 0)
    assert held == {b"a": ("bad_time", 1), b"late": ("bad_time", 0), b"deep/d/d/d": ("too_deep", 0)}
    assert all("limit" in each.detail or "1677 to 2262" in each.detail for each in found.held.listed)
    assert b"/".join([b"deep", *[b"d"] * (DEPTH_MAX - 1)]) in writer.paths(found)
    os.utime(writer.root / "a")
    freed = writer.looks(found, *(() if is_full else (b"rest",)))
    assert b"a" not in freed.held.paths
    assert freed.changed == 1


def test_a_held_link_keeps_no_group_that_receivers_refuse(tmp_path: Path) -> None:
    """Goal: one of three hard links becomes a pipe and the file changes: the old entry stays, as no link of the new
    ones, the manifest passes a receiver's check, and nothing changes from then on."""
    writer = _Writer(tmp_path)
    for name in ("b", "c"):
        os.link(writer.root / "a", writer.root / name)

    def looks(base: ScanSummary | None) -> ScanSummary:
        survey = WriterScan(
            writer.place,
            FILESET,
            Definition(preserve=(Preserve.HARDLINKS,)),
            lambda: writer.marker,
            lambda *_: None,
        )
        root = None if base is None else base.root
        return survey.everything(writer.store, root, writer.now_ms, deep=False).summary

    first = looks(None)
    (writer.root / "c").unlink()
    os.mkfifo(writer.root / "c")
    (writer.root / "a").write_text("newer")
    second = looks(first)
    check_tree(second.root, writer.page)
    check_diff(first.root, second.root, writer.page)
    assert [each.path for each in second.held.listed] == [b"c"]
    third = looks(second)
    assert (third.root, third.changed) == (second.root, 0)


def _make_deep(root: Path, levels: int) -> None:
    fd = os.open(root, os.O_PATH)
    for name in ("deep", *["d"] * (levels - 1)):
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_PATH, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)


def _can_be_huge(root: Path) -> bool:
    """Whether this file system has files of 8 PiB: XFS and tmpfs do, ext4 does not."""
    probe = root.parent / "probe"
    probe.touch()
    try:
        os.truncate(probe, 1 << 53)
    except OSError:
        return False
    finally:
        probe.unlink()
    return True


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS])
def test_a_history_that_takes_nothing_is_not_taken_for_a_file_that_cannot_be_read(
    tmp_path: Path, number: int
) -> None:
    """Goal: on a full disk a new file was held as "it cannot be read", with the advice to make it readable."""
    writer = _Writer(tmp_path)

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    survey = WriterScan(writer.place, FILESET, Definition(), lambda: writer.marker, full)
    (writer.root / "new").write_text("new")
    found = survey.everything(writer.store, writer.base.root, writer.now_ms, deep=False).summary
    (said,) = held_documents(
        FilesetSettings(name=FILESET, path=writer.root, writer=NodeName("main")), found.held
    )
    assert said.path == "new" and "history" in said.why and "read:" not in said.why, said
    step = "free space on the file system of the fileset, or make it writable; it goes on by itself"
    assert said.next == (step,)


def test_a_disk_that_reports_errors_is_not_told_to_make_a_file_readable(tmp_path: Path) -> None:
    broken = ScanProblem(b"d/f0", "unreadable", os.strerror(errno.EIO), 1, 5)
    fileset = FilesetSettings(name=FILESET, path=tmp_path, writer=NodeName("main"))
    (said,) = held_documents(fileset, HeldPaths((broken,), 1, 1, 5))
    assert "replace" in said.next[0] and "readable" not in said.next[0], said
