"""Half-written files, files that stay open, and stores through a mapping: which a scan believes, and which it leaves
for later."""

from __future__ import annotations

import fcntl
import mmap
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName
from instep.model.statrow import StatRow
from instep.tree.objects.digest import read_once
from instep.tree.root.place import Place
from instep.tree.scan import openness
from instep.tree.scan.listing import Problem
from instep.tree.scan.openness import Openness, OpennessProbe
from instep.tree.scan.scan import Scanned, scan
from instep.tree.scan.settling import MAPPED_NS, Settling

SECOND = 1_000_000_000
SETTLING = Settling(settle_ns=SECOND // 5, settle_max_ns=10 * SECOND)


class Looked:
    """One file, scanned as a writer does it, at a chosen age after its last change."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.file = root / "file"
        self._place = Place(root, root.parent / "control", FilesetName("files"))
        self._rows: dict[bytes, StatRow] = {}

    def at_age(
        self, age_ns: int, settling: Settling | None = SETTLING, *, deep: bool = False
    ) -> Scanned | Problem:
        now_ns = self.file.stat().st_ctime_ns + age_ns
        (found,) = scan(self._place, Definition(), self._rows.get, None, now_ns, settling=settling, deep=deep)
        if isinstance(found, Scanned):
            assert found.row is not None
            self._rows[b"file"] = found.row
        return found


@pytest.fixture
def looked(tmp_path: Path) -> Looked:
    return Looked(tmp_path / "root")


@pytest.fixture
def no_leases(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a file system of another machine, or without the right to ask."""
    monkeypatch.setattr(openness, "remote_kind", lambda fd: "nfs")


@pytest.fixture
def mapped(looked: Looked) -> Iterator[mmap.mmap]:
    """The file, mapped for writing by a program that closed its descriptor."""
    looked.file.write_bytes(b"0" * 8192)
    with looked.file.open("r+b") as opened:
        mapping = mmap.mmap(opened.fileno(), 0)
    yield mapping
    mapping.close()


def why(found: Scanned | Problem) -> str:
    return found.what if isinstance(found, Problem) else ("open" if found.is_open else "carried")


@pytest.mark.parametrize("already", [b"", b"half", b"x" * (2 << 20)], ids=["empty", "small", "large"])
def test_a_file_that_is_being_written_is_left_alone_until_it_is_closed(
    looked: Looked, already: bytes
) -> None:
    with looked.file.open("wb", buffering=0) as writing:
        writing.write(already)
        assert why(looked.at_age(SECOND)) == "unstable"
        assert why(looked.at_age(9 * SECOND)) == "unstable"
        assert why(looked.at_age(11 * SECOND)) == "open"
    assert why(looked.at_age(SECOND // 100)) == "carried"


def test_a_file_that_is_renamed_into_place_is_carried_at_once(looked: Looked) -> None:
    new = looked.file.with_name("new")
    new.write_bytes(b"whole")
    new.rename(looked.file)
    assert why(looked.at_age(0)) == "carried"


def test_a_hot_file_that_cools_is_not_read_until_it_is_quiet(looked: Looked) -> None:
    looked.file.write_bytes(b"hot")
    cooling = SETTLING._replace(hot={b"file"}, cooling={b"file": 2 * SECOND})
    assert why(looked.at_age(SECOND, cooling)) == "hot"
    copied: list[bytes] = []
    quiet = cooling._replace(copy=lambda path, digest, fd: copied.append(path))
    assert why(looked.at_age(3 * SECOND, quiet)) == "carried"
    assert copied == [b"file"]
    other = SETTLING._replace(cooling={b"other": 2 * SECOND})
    assert why(looked.at_age(-SECOND, other)) == "carried", "changed after the scan began"


@pytest.mark.usefixtures("no_leases")
def test_without_leases_a_file_must_have_been_quiet_for_settle(looked: Looked) -> None:
    looked.file.write_bytes(b"x")
    assert why(looked.at_age(SECOND // 10)) == "unstable"
    assert why(looked.at_age(SECOND)) == "carried"


@pytest.mark.usefixtures("no_leases")
def test_without_leases_the_watch_says_what_was_not_closed(looked: Looked) -> None:
    looked.file.write_bytes(b"x")
    seen = SETTLING._replace(written={b"file"})
    assert why(looked.at_age(9 * SECOND, seen)) == "unstable"
    assert why(looked.at_age(11 * SECOND, seen)) == "carried"


def test_a_second_store_into_a_dirty_page_is_seen_while_the_file_is_mapped(
    looked: Looked, mapped: mmap.mmap
) -> None:
    mapped[0:6] = b"store1"
    before = looked.file.stat()
    assert why(looked.at_age(20 * SECOND)) == "open"
    mapped[0:6] = b"store2"
    after = looked.file.stat()
    assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
    found = looked.at_age(100 * SECOND)
    assert isinstance(found, Scanned)
    assert found.entry.digest == blake3(looked.file.read_bytes()).digest()


def test_a_store_after_the_last_look_is_seen_when_the_mapping_has_gone(
    looked: Looked, mapped: mmap.mmap
) -> None:
    mapped[0:6] = b"store1"
    looked.at_age(20 * SECOND)
    mapped[0:6] = b"store2"
    mapped.close()
    found = looked.at_age(21 * SECOND)
    assert isinstance(found, Scanned)
    assert found.entry.digest == blake3(looked.file.read_bytes()).digest()


def test_a_store_behind_the_read_is_seen_although_the_mapping_ends_with_it(
    looked: Looked, mapped: mmap.mmap, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: asked after the read, the kernel says that no program has the file; it had when the read began."""
    mapped[0:6] = b"store1"

    def overtaken(fd: int, size: int) -> tuple[Digest, int, bytes | None]:
        found = read_once(fd, size)
        mapped[0:6] = b"store2"
        mapped.close()
        return found

    with monkeypatch.context() as patched:
        patched.setattr("instep.tree.scan.scan.read_once", overtaken)
        first = looked.at_age(20 * SECOND)
    assert isinstance(first, Scanned)
    assert first.is_racy, "the next scan reads it again"
    found = looked.at_age(21 * SECOND)
    assert isinstance(found, Scanned)
    assert found.entry.digest == blake3(looked.file.read_bytes()).digest()


@pytest.mark.usefixtures("no_leases")
def test_without_leases_a_file_is_read_again_until_its_pages_must_be_clean(
    looked: Looked, mapped: mmap.mmap
) -> None:
    mapped[0:6] = b"store1"
    looked.at_age(MAPPED_NS - SECOND)
    mapped[0:6] = b"store2"
    found = looked.at_age(MAPPED_NS + SECOND)
    assert isinstance(found, Scanned)
    assert found.is_fresh_read
    assert found.entry.digest == blake3(looked.file.read_bytes()).digest()
    settled = looked.at_age(MAPPED_NS + 2 * SECOND)
    assert isinstance(settled, Scanned)
    assert not settled.is_fresh_read


def test_what_a_program_writes_in_place_is_not_called_damaged(looked: Looked) -> None:
    looked.file.write_bytes(b"0" * 8192)
    assert why(looked.at_age(60 * SECOND)) == "carried"
    times = looked.file.stat()
    with looked.file.open("r+b") as opened, mmap.mmap(opened.fileno(), 0) as mapping:
        mapping[0:6] = b"store1"
        # The row says *settled*, as one does that another version of the daemon wrote while the file was mapped.
        row = looked._rows[b"file"]
        moved = looked.file.stat()
        looked._rows[b"file"] = row._replace(ctime_ns=moved.st_ctime_ns, mtime_ns=moved.st_mtime_ns)
        found = looked.at_age(60 * SECOND, None, deep=True)
    assert isinstance(found, Scanned), found
    assert found.entry.digest == blake3(looked.file.read_bytes()).digest()
    assert times.st_ino == looked.file.stat().st_ino


def test_bytes_that_changed_under_a_closed_file_are_damaged(looked: Looked) -> None:
    looked.file.write_bytes(b"good")
    looked.at_age(60 * SECOND)
    row = looked._rows[b"file"]
    looked._rows[b"file"] = row._replace(digest=blake3(b"other").digest())
    assert why(looked.at_age(60 * SECOND, deep=True)) == "damaged"


def test_a_probe_neither_ends_the_process_nor_keeps_a_writer_waiting(tmp_path: Path) -> None:
    """A program that opens the file while the lease stands makes the kernel send a signal: it must not be SIGIO."""
    file = tmp_path / "file"
    file.write_bytes(b"x")
    program = (
        "import os, sys, threading\n"
        "from instep.tree.scan.openness import OpennessProbe\n"
        "fd = os.open(sys.argv[1], os.O_RDONLY)\n"
        "probe = OpennessProbe(fd)\n"
        "print('ready', flush=True)\n"
        "while not sys.stdin.closed and os.read(0, 1):\n"
        "    answers = {probe.of(fd) for _ in range(2_000)}\n"
        "    print(len(answers), flush=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as probing:
        assert probing.stdin is not None
        assert probing.stdout is not None
        assert probing.stdout.readline() == b"ready\n"
        seen = 0
        for _ in range(200):
            probing.stdin.write(b".")
            probing.stdin.flush()
            opener = threading.Thread(target=_open_for_writing, args=(file, 200))
            opener.start()
            line = probing.stdout.readline()
            opener.join(10)
            assert line, f"the probing process ended: {probing.wait(10)}"
            seen = max(seen, int(line))
            if seen == 2:
                break
        probing.stdin.close()
        assert probing.wait(10) == 0
    assert seen == 2, "the openings never met the probes"


def _open_for_writing(file: Path, times: int) -> None:
    for _ in range(times):
        os.close(os.open(file, os.O_WRONLY))


def test_a_lease_is_never_left_behind(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(b"x")
    fd = os.open(file, os.O_RDONLY)
    try:
        assert OpennessProbe(fd).of(fd) is Openness.CLOSED
        assert fcntl.fcntl(fd, fcntl.F_GETLEASE) == fcntl.F_UNLCK
        assert signal.getsignal(signal.SIGURG) is signal.SIG_DFL
    finally:
        os.close(fd)
