"""Gates between real nodes: a difference is refused with both values, by the apply and by ``check``."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from instep.model.ids import LineId, fileset_name, node_name
from instep.net.client import PeerClient
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.service import PeerStream
from instep.net.trust.pki import Pki
from tests.support import peers
from tests.support.fleet import Fleet, Node
from tests.support.hostile import HostileWriter, Looped, file
from tests.support.mounts import mounted, need_root, unmount
from tests.support.waiting import eventually


def _failed(node: Node) -> dict[str, tuple[str, str]]:
    """What ``check`` refuses (exit 4), with both values."""
    checks = node.run("check", expect=4).json["checks"]
    return {check["name"]: (check["ours"], check["theirs"]) for check in checks if not check["ok"]}


def test_a_clock_ten_minutes_off_is_refused_and_recovers(fleet: Fleet) -> None:
    """Goal: clocks agree within 5 minutes. Method: a partner's clock is 10 minutes ahead, then right."""
    fleet.tree("main").mkdir(parents=True)
    (fleet.tree("main") / "file").write_text("first")
    s1 = fleet.node("s1")
    s1.environment["INSTEP_DEBUG_CLOCK_MS"] = "600000"
    fleet.make(1, add=("--settle", "20ms", "--gate", "clock"))
    line = s1.await_standing("blocked", code="gate_differs")
    assert line["reason"].startswith("gate clock: s1 is +"), line
    assert not (fleet.tree("s1") / "file").exists()
    for node, name in ((s1, "gate clock of data"), (fleet.main, "gate clock of data on s1")):
        failed = [c for c in node.run("check", expect=4).json["checks"] if not c["ok"]]
        assert name in [c["name"] for c in failed], failed
    s1.stop()
    del s1.environment["INSTEP_DEBUG_CLOCK_MS"]
    s1.start()
    s1.await_standing("in_step")


def test_too_little_room_is_refused_before_the_first_byte(fleet: Fleet) -> None:
    """Goal: space is looked at before staging; both values; recovery by itself. Method: a small file system with
    ballast that goes."""
    with mounted("tmpfs", fleet.base / "s1", options="size=64m"):
        fleet.tree("main").mkdir(parents=True)
        (fleet.tree("main") / "file").write_text("first")
        fleet.make(1)
        fleet["s1"].await_standing("in_step")
        ballast = fleet.base / "s1" / "ballast"
        ballast.write_bytes(bytes(40 << 20))
        fleet.write({"large": os.urandom(28 << 20)})
        line = fleet["s1"].await_standing("blocked", code="no_space")
        assert "the new contents take 28.0 MiB, " in line["reason"] and " MiB are free" in line["reason"], (
            line
        )
        assert (
            "if large has holes, at the writer: instep fileset set data preserve=sparse" in line["next"][0]
        ), line
        assert not any(fleet.base.glob("s1/**/stage/**/o/*")), "nothing was laid"
        failed = [c for c in fleet["s1"].run("check", expect=4).json["checks"] if not c["ok"]]
        wanted = f"space for generation {line['head']['number']} of data"
        assert any(c["name"] == wanted and "needs 28.0 MiB" in c["theirs"] for c in failed), failed
        ballast.unlink()
        fleet["s1"].await_standing("in_step")
        assert (fleet.tree("s1") / "large").stat().st_size == 28 << 20
        fleet["s1"].stop()


def _set(node: Node, assignment: str) -> None:
    """Add a key to the fileset."""
    path = node.directory / "instep.toml"
    path.write_text(path.read_text().replace("[filesets.data]\n", f"[filesets.data]\n{assignment}\n", 1))
    node.run("config", "reload")


def test_a_service_of_another_user_and_one_without_access_are_refused(fleet: Fleet) -> None:
    """Goal: E18, E19. Another user of the service, and a user with fewer rights in the root than the writer's, are
    refused with both values by ``check`` and by the apply, and recover. Method: ``sleep`` as root and as nobody."""
    need_root("runs a service as another user")
    place = Path(tempfile.mkdtemp())  # the user of the service reaches it
    place.chmod(0o755)
    pids = {name: fleet.base / f"{name}.pid" for name in ("main", "s1")}
    as_nobody = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("first")
    with subprocess.Popen(("sleep", "300")) as mine, subprocess.Popen((*as_nobody, "sleep", "300")) as other:
        try:
            pids["main"].write_text(str(mine.pid))
            pids["s1"].write_text(str(other.pid))
            fleet.make(1, add=("--settle", "20ms", "--gate", "service", "--gate", "access contains write"))
            s1 = fleet["s1"]
            s1.await_standing("blocked", code="no_such_fact")
            for name, pid_file in pids.items():
                _set(fleet[name], f'service = {{ pid_file = "{pid_file}" }}')
            line = s1.await_standing("blocked", code="gate_differs")
            assert line["reason"] == "gate service: main root:root, s1 nobody:nogroup", line
            failed = _failed(s1)
            assert failed["gate service of data"] == ("nobody:nogroup", "root:root"), failed
            assert "Permission denied" in failed["gate access contains write of data"][0], failed
            told = _failed(fleet.main)
            assert told["gate service of data on s1"] == ("root:root", "nobody:nogroup"), told
            assert "gate access contains write of data on s1" in told, told
            assert not (fleet.tree("s1") / "file").exists()
            pids["s1"].write_text(str(mine.pid))
            s1.await_standing("in_step")
            assert s1.run("check").json["ok"]
            assert not [name for name in os.listdir(fleet.tree("s1")) if name.startswith(".instep-access")]
        finally:
            mine.kill()
            other.kill()
            shutil.rmtree(place)


def test_a_mount_that_is_missing_is_refused_and_recovers(fleet: Fleet) -> None:
    """Goal: E16: a missing mount is reported as such, not as an empty folder, with the present and the needed value.
    Method: a partner's tree on a file system that is taken away and comes back, with a generation in between."""
    disk, there = fleet.base / "disk", fleet.base / "s1"
    with mounted("tmpfs", disk, options="size=64m"):
        there.mkdir()
        (disk / "s1").mkdir()
        tree = fleet.tree("main")
        tree.mkdir(parents=True)
        (tree / "file").write_text("first")
        node = fleet.node("s1")
        node.directory = fleet.base / "s1-node"
        with mounted("none", there, source=str(disk / "s1"), options="bind"):
            fleet.make(1)
            s1 = fleet["s1"]
            _set(s1, f'expect_mount = "tmpfs on {there}"')
            fleet.wait()
            unmount(there)
            (tree / "file").write_text("second")
            fleet.main.run("publish", "data")
            line = s1.await_standing("blocked", code="mount_missing")
            assert f"expect_mount of data says tmpfs on {there}" in line["reason"], line
            assert f"{fleet.tree('s1')} is on " in line["reason"], line
            failed = _failed(s1)
            assert failed["mount of data"][1] == f"tmpfs on {there}", failed
            assert os.listdir(there) == [], "nothing was made where the disk should be"
            assert (disk / "s1" / "tree" / "file").read_text() == "first"
            with mounted("none", there, source=str(disk / "s1"), options="bind"):
                s1.await_standing("in_step")
                assert (fleet.tree("s1") / "file").read_text() == "second"
                assert s1.run("check").json["ok"]
                s1.stop()


def test_an_older_partner_is_not_cut_off_by_the_check(fleet: Fleet) -> None:
    """Goal: ``check`` at the writer asks only partners that understand it. Method: a partner that speaks protocol 1
    stays connected while the writer checks its gates, and is named."""
    fleet.tree("main").mkdir(parents=True)
    fleet.make(0, add=("--settle", "20ms", "--gate", "platform"))
    main = fleet.main
    toml = main.directory / "instep.toml"
    toml.write_text(toml.read_text() + "\n[partners.old]\nreplicate = true\ndata = true\nhub = false\n")
    main.run("config", "reload")
    old = peers.member(Pki(main.directory / "pki"), fleet.base / "old-pki", "old", life_s=86_400)
    looped = Looped()
    try:
        told = looped.run(_old_partner(old, f"127.0.0.1:{main.port}", main), 60)
    finally:
        looped.close()
    row = next(check for check in told["checks"] if check["name"] == "gates of data on old")
    assert not row["ok"]
    assert "speaks protocol 1, facts are sent since 2" in row["theirs"], row
    assert next(check for check in told["checks"] if check["name"] == "partner old")["ok"], told


def test_an_older_writer_is_not_waited_for(fleet: Fleet) -> None:
    """Goal: a partner does not wait for a writer that gives no orders. Method: a partner with a reload hook, which
    asks a writer of today for a permit, follows one that speaks protocol 1."""
    fleet.tree("main").mkdir(parents=True)
    (fleet.tree("main") / "file").write_text("first")
    fleet.make(1)
    fleet.wait()
    s1 = fleet["s1"]
    path = s1.directory / "instep.toml"
    path.write_text(
        f'{path.read_text()}\n[filesets.data.hooks]\nreload = {{ touch = "{fleet.base}/reloaded" }}\n'
    )
    s1.run("config", "reload")
    fleet.main.stop()
    writer = HostileWriter(fleet.main, version=1)
    try:
        writer.await_streams("s1")
        head = writer.publish([file(b"file", b"second")])
        eventually(lambda: s1.line()["live"]["id"] == head.id.hex(), 20, lambda: f"{s1.line()}\n{s1.log()}")
        assert (fleet.base / "reloaded").exists()
    finally:
        writer.close()


async def _old_partner(pki: Pki, address: str, main: Node) -> dict[str, Any]:
    """Stay connected as a node of the first version while the writer checks; returns the check's document."""
    line = LineId(fileset_name("data"), node_name("main"))
    client = PeerClient(TlsContexts(pki), node_name("main"), address)
    try:
        hello = m.Hello(m.Versions(1, 1), node_name("old"), os.urandom(8))
        async with client.stream(hello) as (welcome, stream):
            assert welcome.version == 1
            await stream.send(m.OfferReply(line, True, "/srv/data"))
            await stream.send(m.Ping(77))
            await _pong(stream, 77)
            found = await asyncio.to_thread(main.run, "check", expect=4)
            await stream.send(m.Ping(78))
            await _pong(stream, 78)
            told: dict[str, Any] = found.json
            return told
    finally:
        await client.close()


async def _pong(stream: PeerStream, number: int) -> None:
    """Read on to this answer; nothing may come that the first version does not know."""
    while (message := await stream.receive()) is not None:
        assert not isinstance(message, m.FactsRequest | m.OrderMessage), message
        if isinstance(message, m.Pong) and message.number == number:
            return
    raise AssertionError("it was cut off")
