"""Gates between real nodes: a difference is refused with both values, by the apply and by ``check``."""

from __future__ import annotations

import os

from tests.support.fleet import Fleet, Node
from tests.support.mounts import mounted
from tests.support.waiting import eventually


def _fact(node: Node, name: str, source: str) -> None:
    path = node.directory / "instep.toml"
    path.write_text(path.read_text() + f"\n[facts.{name}]\n{source}\n")
    node.run("config", "reload")


def test_a_version_that_differs_is_refused_and_recovers_by_itself(fleet: Fleet) -> None:
    """Goal: E4, K7. Another version holds every generation back with both values; when the file agrees, the apply
    goes on by itself. A fact that is not defined is named. Method: a version file on both nodes."""
    (fleet.tree("main")).mkdir(parents=True)
    (fleet.tree("main") / "file").write_text("first")
    ours, theirs = fleet.base / "main.version", fleet.base / "s1.version"
    ours.write_text("version=2.25.1\n")
    theirs.write_text("version=2.24.0\n")
    fleet.make(1, add=("--settle", "20ms", "--gate", "geoserver", "--gate", "platform", "--gate", "clock"))
    s1 = fleet["s1"]
    line = s1.await_standing("blocked", code="no_such_fact")
    assert "geoserver" in line["reason"], line
    for node, path in ((fleet.main, ours), (s1, theirs)):
        _fact(node, "geoserver", f'file = "{path}"\nmatch = "version=(.*)"')
    line = s1.await_standing("blocked", code="gate_differs")
    assert line["reason"] == "gate geoserver: main 2.25.1, s1 2.24.0", line
    assert not (fleet.tree("s1") / "file").exists()
    told = s1.run("check", expect=4).json
    failed = {c["name"]: (c["ours"], c["theirs"]) for c in told["checks"] if not c["ok"]}
    assert failed == {"gate geoserver of data": ("2.24.0", "2.25.1")}, told
    told = fleet.main.run("check", expect=4).json
    failed = {c["name"]: (c["ours"], c["theirs"]) for c in told["checks"] if not c["ok"]}
    assert failed == {"gate geoserver of data on s1": ("2.25.1", "2.24.0")}, told
    assert fleet.main.run("node", "facts", "s1").json["facts"]["geoserver"] == "2.24.0"
    theirs.write_text("version=2.25.1\n")
    eventually(lambda: (fleet.tree("s1") / "file").exists(), 20, s1.log)
    s1.await_standing("in_step")
    assert s1.run("check").json["ok"]
    # A partner's facts are kept for a second, so the writer may see the old value that long.
    eventually(lambda: fleet.main.run("check", expect=None).code == 0, 10, s1.log)


def test_another_path_is_refused(fleet: Fleet) -> None:
    """Goal: E15: with the gate ``path`` both roots must be the same path. Method: two nodes have different ones."""
    fleet.tree("main").mkdir(parents=True)
    (fleet.tree("main") / "file").write_text("first")
    fleet.make(1, add=("--settle", "20ms", "--gate", "path"))
    line = fleet["s1"].await_standing("blocked", code="gate_differs")
    assert str(fleet.tree("main")) in line["reason"] and str(fleet.tree("s1")) in line["reason"], line
    assert not (fleet.tree("s1") / "file").exists()
    failed = [c for c in fleet["s1"].run("check", expect=4).json["checks"] if not c["ok"]]
    assert [(c["ours"], c["theirs"]) for c in failed] == [(str(fleet.tree("s1")), str(fleet.tree("main")))], (
        failed
    )


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
        (fleet.tree("main") / "large").write_bytes(os.urandom(28 << 20))
        line = fleet["s1"].await_standing("blocked", code="no_space")
        assert f"needs {28 << 20} bytes, free are " in line["reason"], line
        assert not any(fleet.base.glob("s1/**/stage/**/o/*")), "nothing was laid"
        failed = [c for c in fleet["s1"].run("check", expect=4).json["checks"] if not c["ok"]]
        assert ("space for generation 2 of data", f"needs {28 << 20} bytes") in [
            (c["name"], c["theirs"]) for c in failed
        ], failed
        ballast.unlink()
        fleet["s1"].await_standing("in_step")
        assert (fleet.tree("s1") / "large").stat().st_size == 28 << 20
        fleet["s1"].stop()
