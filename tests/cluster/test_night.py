"""The table of the night: for each trouble the first command typed is true, and its first step brings everything back.

All rows share a writer and a partner, brought back to ``in step`` by each row itself; a row that fails, or that leaves
certificates of another year, ends them. The table is ``docs/guide/night.md``.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node, free_port
from tests.support.mounts import mounted
from tests.support.night import Night, titles
from tests.support.waiting import eventually

DAY_MS = 86_400_000
CLOCK = "INSTEP_DEBUG_CLOCK_MS"


def made(base: Path) -> Night:
    fleet = Fleet(base)
    tree = fleet.tree("main")
    (tree / "styles").mkdir(parents=True)
    for number in range(10):
        (tree / f"file-{number}").write_text(f"{number}\n")
        (tree / "styles" / f"{number}.sld").write_text(f"style {number}\n")
    try:
        fleet.make(1)
        (base / "passphrase").write_text("only for this test\n")
        (base / "passphrase").chmod(0o600)
        backup = ("--to", str(base / "ca.backup"), "--passphrase-file", str(base / "passphrase"))
        fleet.main.run("pki", "backup", *backup)
        fleet.wait()
    except BaseException:
        fleet.close()
        raise
    return Night(fleet)


class Nights:
    """The night that rows share. One that went wrong is ended, and the next row gets another."""

    def __init__(self, base: Path) -> None:
        self._base = base
        self._number = 0
        self._night: Night | None = None

    def now(self) -> Night:
        if self._night is None:
            self._number += 1
            base = self._base / str(self._number)
            base.mkdir()
            self._night = made(base)
        return self._night

    def end(self) -> None:
        if self._night is not None:
            self._night.fleet.close()
        self._night = None


@pytest.fixture(scope="module")
def nights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nights]:
    found = Nights(tmp_path_factory.mktemp("night"))
    try:
        yield found
    finally:
        found.end()


Row = Callable[[Night], None]
ROWS: dict[str, Row] = {}
ENDS: set[str] = set()
"""Rows after which the nodes are of no use to another."""


def row(title: str, *, ends: bool = False) -> Callable[[Row], Row]:
    def kept(check: Row) -> Row:
        ROWS[title] = check
        if ends:
            ENDS.add(title)
        return check

    return kept


def restarted(node: Node, clock_ms: int = 0) -> None:
    node.stop()
    node.environment = {CLOCK: str(clock_ms)}
    node.start()


def add_settings(node: Node, text: str) -> None:
    path = node.directory / "instep.toml"
    path.write_text(path.read_text() + text)
    node.run("config", "reload")


# Disks and trees ------------------------------------------------------------------------------------------------


@row("the disk of a partner's tree is full")
def disk_full(night: Night) -> None:
    fleet = night.fleet
    with mounted("tmpfs", fleet.base / "small", options="size=4m,mode=755") as disk:
        night.roots["s2"] = disk / "data"
        fleet.join("s2", accept=False)
        fleet.accept("s2", root=disk / "data")
        fleet.wait()
        ballast = disk / "ballast"
        ballast.write_bytes(bytes(3 << 20))
        fleet.write({"large": os.urandom(2 << 20)})
        night.looks("s2", "blocked")
        night.types()
        ballast.unlink()
        fleet["s2"].await_standing("in_step")
        fleet["s2"].run("fileset", "remove", "data")
        fleet["s2"].stop()
        fleet.main.run("partner", "remove", "s2")
        del fleet.nodes["s2"]


@row("the writer's disk is full")
def writers_disk_full(night: Night) -> None:
    """A writer of its own: the tree is the whole disk, with its history."""
    base = night.fleet.base / "full"
    with mounted("tmpfs", base / "main/tree", options="size=6m,mode=755") as disk:
        full = made(base)
        try:
            full.fleet.main.run("fileset", "set", "data", "ignore=/ballast")
            full.fleet.wait()
            ballast = disk / "ballast"
            ballast.write_bytes(bytes(4 << 20))
            (disk / "large").write_bytes(os.urandom(1 << 20))
            full.looks("main", "held: large", "no space")
            ballast.unlink()
            (disk / "over").write_text("there is room again\n")
            full.fleet.wait()
            full.fleet.assert_same("s1")
            full.fleet.main.await_standing("in_step")
            night.at, night.says, night.step = full.at, full.says, full.step
        finally:
            full.fleet.close()


@row("the root of a partner is not mounted")
def root_gone(night: Night) -> None:
    tree = night.fleet.tree("s1")
    away = tree.rename(tree.with_name("away"))
    night.looks("s1", "does not exist")
    away.rename(tree)


@row("a partner's disk is new")
def disk_replaced(night: Night) -> None:
    tree = night.fleet.tree("s1")
    tree.rename(night.fleet.base / f"old-{tree.parent.name}")
    tree.mkdir()
    night.looks("s1", "marker")
    night.types()


@row("the writer's disk is new")
def writers_disk_replaced(night: Night) -> None:
    tree = night.fleet.tree("main")
    tree.rename(night.fleet.base / f"old-{tree.parent.name}")
    tree.mkdir()
    night.looks("main", "marker")
    night.types()
    night.types(1)


@row("a program removed the marker at the writer")
def marker_gone(night: Night) -> None:
    shutil.rmtree(night.fleet.tree("main") / ".instep")
    night.looks("main", "marker")
    night.types()


@row("a program removed the marker at a partner")
def partners_marker_gone(night: Night) -> None:
    shutil.rmtree(night.fleet.tree("s1") / ".instep")
    night.looks("s1", "marker")
    night.types()


@row("the writer's tree was emptied")
def emptied(night: Night) -> None:
    with night.fleet.together():
        for path in night.fleet.tree("main").iterdir():
            if path.name != ".instep":
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    night.looks("main", "would be removed")
    night.types()


@row("a file at the writer became something that cannot be carried")
def bad_file(night: Night) -> None:
    path = night.fleet.tree("main") / "file-2"
    path.unlink()
    os.mkfifo(path)
    night.looks("main", "named pipe")
    path.unlink()
    path.write_text("a file again\n")


# Nodes and links ------------------------------------------------------------------------------------------------


@row("the writer's daemon is dead, seen at a partner")
def writer_dead(night: Night) -> None:
    night.fleet.main.kill()
    night.looks("s1", "nothing listens at main")
    night.types()


@row("the daemon is dead, seen on its own node")
def daemon_dead(night: Night) -> None:
    night.fleet.main.kill()
    night.looks("main", "the daemon is stopped")
    night.types()


@row("the daemon was halted by a signal, seen on its own node")
def daemon_halted(night: Night) -> None:
    main = night.fleet.main
    pid = main.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    night.looks("main", f"halted process {pid}")
    assert f"kill -CONT {pid}" in night.step
    assert main.run("publish", "data", expect=7).error["code"] == "daemon_halted"
    os.kill(pid, signal.SIGCONT)


@row("the writer came back at another address")
def address_changed(night: Night) -> None:
    main = night.fleet.main
    main.stop()
    file, port = main.directory / "instep.toml", free_port()
    file.write_text(file.read_text().replace(str(main.port), str(port)))
    main.start()
    night.looks("s1", "nothing listens at main")
    night.types(1, {"HOST:PORT": f"127.0.0.1:{port}"})
    main.port = port


@row("its port is in use")
def port_in_use(night: Night) -> None:
    main = night.fleet.main
    main.stop()
    with socket.create_server(("127.0.0.1", main.port)):
        main.run("start", expect=7)
        night.looks("main", "cannot listen")
    night.types()


@row("a server was cloned, seen on the copy", ends=True)
def clone(night: Night) -> None:
    fleet = night.fleet
    s1, copy = fleet["s1"], fleet.node("copy")
    s1.stop()
    shutil.copytree(s1.directory, copy.directory)
    s1.start()
    file = copy.directory / "instep.toml"
    text = file.read_text().replace(str(s1.port), str(copy.port))
    file.write_text(text.replace(str(fleet.tree("s1")), str(fleet.tree("copy"))))
    shutil.copytree(fleet.tree("s1"), fleet.tree("copy"))
    copy.start()
    night.looks("copy", "two nodes use one identity")
    copy.stop()
    shutil.rmtree(copy.directory)
    shutil.rmtree(fleet.tree("copy"))
    del fleet.nodes["copy"]
    fleet.join("s3")
    fleet["s3"].await_standing("in_step")
    fleet["s3"].stop()
    fleet.main.run("partner", "remove", "s3")
    del fleet.nodes["s3"]
    night.after.add("main")


@row("a partner was revoked")
def revoked(night: Night) -> None:
    fleet = night.fleet
    fleet.main.run("pki", "revoke", "s1")
    night.looks("s1", "revoked")
    token = fleet.invite("s1")
    night.types(1, {"TOKEN": token})


@row("a partner's clock jumped", ends=True)
def clock_jumped(night: Night) -> None:
    s1 = night.fleet["s1"]
    restarted(s1, 400 * DAY_MS)
    night.looks("s1", "refused the certificate of main: it expired")
    restarted(s1)


@row("the writer's clock jumped", ends=True)
def writers_clock_jumped(night: Night) -> None:
    main = night.fleet.main
    restarted(main, 400 * DAY_MS)
    night.looks("main", "node.crt here expired")
    restarted(main)


@row("a partner was off for a year, and its certificate expired", ends=True)
def expired(night: Night) -> None:
    main, s1 = night.fleet.main, night.fleet["s1"]
    restarted(main, 400 * DAY_MS)
    main.run("pki", "renew")
    restarted(s1, 400 * DAY_MS)
    night.looks("s1", "refused the certificate of s1: it expired")
    night.types()


# Settings and programs ------------------------------------------------------------------------------------------


@row("instep.toml has a mistake")
def bad_settings(night: Night) -> None:
    s1 = night.fleet["s1"]
    file = s1.directory / "instep.toml"
    before = file.read_text()
    file.write_text(before + "setle = 3\n")
    s1.run("config", "reload", expect=3)
    night.looks("s1", "setle")
    night.types(expect=3)
    file.write_text(before)


@row("a database is named, and nothing is said of it")
def database_unmarked(night: Night) -> None:
    night.fleet.main.run("fileset", "external", "add", "data", "cms-db")
    night.looks("main", "the database cms-db")
    night.types(values={"TEXT": "streaming replication"})


@row("a hook hangs")
def hook_hangs(night: Night) -> None:
    s1, gate = night.fleet["s1"], night.fleet.base / "gate"
    file = s1.directory / "instep.toml"
    before = file.read_text()
    run = f"""['/bin/sh', '-c', 'test -e "{gate}" || exec sleep 600']"""
    add_settings(s1, f'[filesets.data.hooks]\nreload = {{ run = {run}, timeout = "300ms" }}\n')
    night.looks("s1", "reload hook", "was ended")
    gate.touch()
    night.types()
    night.types(1)
    s1.await_standing("in_step")
    file.write_text(before)
    s1.run("config", "reload")


@row("the balancer is down")
def balancer_down(night: Night) -> None:
    main = night.fleet.main
    file = main.directory / "instep.toml"
    before, is_up = file.read_text(), night.fleet.base / "up"
    add_settings(
        main,
        f"""[balancers.maps]
filesets = ["data"]
http = {{ listen = "127.0.0.1:{free_port()}", backend = 8080 }}
kind = "nginx"
file = "{night.fleet.base}/balancer.conf"
check = ["/bin/true", "{{file}}"]
reload = {{ run = ["/bin/sh", "-c", "test -e {is_up} || {{ echo nginx is not running; exit 1; }}"] }}
""",
    )
    night.looks("main", "reload of nginx failed")
    is_up.touch()
    night.types()
    eventually(lambda: "nginx" not in night.text("main"), describe=lambda: night.text("main"))
    file.write_text(before)
    main.run("config", "reload")


@pytest.mark.timeout(240)
@pytest.mark.parametrize("title", list(ROWS))
def test_the_first_step_of_the_first_command_brings_it_back(nights: Nights, title: str) -> None:
    night = nights.now()
    is_over = False
    try:
        ROWS[title](night)
        night.assert_over()
        night.assert_in_table(title)
        is_over = title not in ENDS
    finally:
        if not is_over:
            nights.end()


def test_the_table_has_exactly_these_rows() -> None:
    assert titles() == list(ROWS)
