"""Files that are being written and trees that cannot be watched, with real programs, daemons and limits."""

from __future__ import annotations

import mmap
import os
import subprocess
import threading
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node
from tests.support.waiting import eventually


def test_an_upload_goes_live_whole_and_holds_nothing_up(fleet: Fleet) -> None:
    """Goal: no half of a file is ever live, and the rest arrives meanwhile. Method: a program writes on and on into
    ``app.war`` and the file that the partner serves; other files arrive; closed, both arrive whole."""
    tree, live = fleet.tree("main"), fleet.tree("s1")
    tree.mkdir(parents=True)
    (tree / "served").write_text("whole")
    fleet.make(1, add=("--settle", "20ms"))
    fleet.wait()
    with (
        (tree / "app.war").open("wb", buffering=0) as upload,
        (tree / "served").open("wb", buffering=0) as save,
    ):

        def has_come(name: str) -> bool:
            upload.write(b"half")  # the file stays young, however long this takes on a busy machine
            save.write(b"half")
            return (live / name).exists()

        for number in range(3):
            (tree / f"other{number}").write_text("other")
            eventually(lambda n=number: has_come(f"other{n}"), 30, "another file at the partner")  # type: ignore[misc]
            assert not (live / "app.war").exists()
            assert (live / "served").read_text() == "whole"
        line = fleet.main.await_standing("held", code="paths_held")
        assert "app.war" in str(line["reason"])
    fleet.wait()
    fleet.assert_same()


def test_a_store_through_a_mapping_arrives_with_the_next_full_look(fleet: Fleet) -> None:
    """Goal: bytes that moved no time are found and never called rot. Method: a mapped file with a store that moves no
    time; a publish by hand carries it, and a deep verify names no damage."""
    tree, live = fleet.tree("main"), fleet.tree("s1")
    tree.mkdir(parents=True)
    file = tree / "index.db"
    file.write_bytes(b"0" * 8192)
    fleet.make(1, add=("--settle", "20ms"))
    fleet.main.run("fileset", "set", "data", "settle_max=50ms")
    fleet.wait()
    with file.open("r+b") as opened:
        mapping = mmap.mmap(opened.fileno(), 0)
    with mapping:
        mapping[0:6] = b"store1"
        eventually(lambda: _is_published(fleet.main, live, b"store1"), 30, "the first store at the partner")
        times = file.stat()
        mapping[0:6] = b"store2"
        assert (file.stat().st_mtime_ns, file.stat().st_ctime_ns) == (times.st_mtime_ns, times.st_ctime_ns)
        eventually(lambda: _is_published(fleet.main, live, b"store2"), 30, "the second store at the partner")
        mapping[0:6] = b"store3"
        fleet.main.run("verify", "data", "--deep", expect=None)
        assert fleet.main.standing() != "damaged"
    fleet.wait()
    assert (live / "index.db").read_bytes()[:6] == b"store3"


def _is_published(main: Node, live: Path, data: bytes) -> bool:
    main.run("publish", "data", expect=None)
    return (live / "index.db").read_bytes()[:6] == data


def test_a_hot_file_does_not_keep_the_rest_from_arriving(fleet: Fleet) -> None:
    """Goal: all else arrives while one large file changes faster than it can be fetched; the file is named, and arrives
    in the end. Method: a program rewrites parts of it in place, opening and closing it each time."""
    tree, live = fleet.tree("main"), fleet.tree("s1")
    tree.mkdir(parents=True)
    hot = tree / "hot.db"
    hot.write_bytes(os.urandom(24 << 20))
    fleet.make(1, add=("--settle", "20ms"))
    fleet.main.run("fileset", "set", "data", "settle_max=1s")
    fleet.wait()
    stopping = threading.Event()
    program = threading.Thread(target=_rewrite, args=(hot, stopping))
    program.start()
    try:
        eventually(
            lambda: "hot.db is " in str(fleet.main.line()["reason"]),  # being written, or changing too fast
            60,
            lambda: f"the hot file to be named: {fleet.main.line()}",
        )
        for number in range(3):
            (tree / f"other{number}").write_text("other")
            eventually(lambda n=number: (live / f"other{n}").exists(), 30, "another file at the partner")  # type: ignore[misc]
    finally:
        stopping.set()
        program.join()
    eventually(
        lambda: fleet.wait() and live.joinpath("hot.db").read_bytes() == hot.read_bytes(), 60, "all of it"
    )
    fleet.assert_same()


def _rewrite(file: Path, stopping: threading.Event) -> None:
    """Write a block somewhere into the file, again and again."""
    number = 0
    while not stopping.wait(0.2):
        number += 1
        with file.open("r+b") as opened:
            opened.seek(number * 99_991 % (23 << 20))
            opened.write(os.urandom(64 << 10))


def test_without_a_watch_changes_come_all_the_same(fleet: Fleet) -> None:
    """Goal: a limit that is used up is named, and changes are found. Method: writer and partner in user namespaces with
    the limit at zero; a change arrives, drift is put back, ``check`` names the limit and the command."""
    limit, code = "max_inotify_watches", "too_many_watches"
    fleet.tree("main").mkdir(parents=True)
    (fleet.tree("main") / "file").write_text("1")
    fleet.make(1)
    fleet.wait()
    for node in (fleet.main, fleet["s1"]):
        node.stop()
        _start_without(node, limit)
        line = node.await_standing("in_step", code=code)
        assert f"user.{limit}" in str(line["next"])
    (fleet.tree("main") / "file").write_text("2")
    live = fleet.tree("s1") / "file"
    eventually(lambda: live.read_text() == "2", 30, "the change at the partner")
    live.write_text("drift")
    eventually(lambda: live.read_text() == "2", 30, "the drift to be put back")
    rows = fleet.main.run("check", expect=None).stdout
    assert f"sysctl -w user.{limit}" in rows


def _start_without(node: Node, limit: str) -> None:
    """The daemon in a user namespace of its own, where the limit is zero and fanotify is not allowed."""
    script = f'echo 0 > /proc/sys/user/{limit} && exec "$@"'
    prefix = ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")
    if subprocess.run([*prefix, "true"], capture_output=True, check=False, timeout=20).returncode:
        pytest.skip("user namespaces cannot be made here")
    node.prefix = prefix
    node.start()
    node.prefix = ()
