"""Six typed commands make a secured mirror of three; every wrong start is refused with the command that helps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, Node, free_port, tree_of
from tests.support.networks import own_network
from tests.support.waiting import eventually


def _filled(tree: Path) -> Path:
    tree.mkdir(parents=True)
    for number in range(10):
        (tree / f"f{number}").write_text(f"file {number}\n")
    return tree


def _node(fleet: Fleet, name: str) -> Node:
    """A node directory that is not there yet: the commands make it."""
    return fleet.node(name)


@pytest.fixture
def usual_ports(fleet: Fleet) -> Iterator[Fleet]:
    """A fleet whose nodes take the usual ports, which another run of this test may want at the same moment."""
    with own_network() as words:
        for name in ("main", "s1", "s2"):
            fleet.node(name).prefix = words
        yield fleet
        fleet.close()


def test_six_commands(usual_ports: Fleet) -> None:
    """Goal: init, fileset add, two invites, two joins, as typed (tokens from stdout), and it is a mirror in step
    whose standings, checks and members every node shows."""
    fleet = usual_ports
    tree = _filled(fleet.tree("main"))
    main, s1, s2 = (_node(fleet, name) for name in ("main", "s1", "s2"))
    main.run("init", "main", "--start", json=False)
    main.run("fileset", "add", "catalog", str(tree), json=False)
    tokens = [
        main.run("invite", name, "--from", "127.0.0.1", json=False).stdout.strip() for name in ("s1", "s2")
    ]
    for node, token in zip((s1, s2), tokens, strict=True):
        assert "\n" not in token, "the token stands alone on stdout"
        node.run("join", token, "--accept", f"catalog={fleet.tree(node.name)}", "--start", json=False)
    waited = main.run("wait", "catalog", "--timeout", "60s").json
    assert waited["reached"] and waited["waiting_for"] == []
    for name in ("s1", "s2"):
        assert tree_of(fleet.tree(name)) == tree_of(tree)
    status = main.status()
    partners = status["filesets"][0]["lines"][0]["partners"]
    assert [(p["name"], p["standing"], p["behind_ms"]) for p in partners] == [
        ("s1", "in_step", 0),
        ("s2", "in_step", 0),
    ]
    assert main.run("status", "--exit-code", json=False).stdout.startswith(
        "catalog   IN STEP   3 of 3 serve generation 1"
    )
    assert {n["name"] for n in s2.run("node", "list").json["nodes"]} == {"main", "s1", "s2"}
    again = main.run("invite", "s1", "--from", "127.0.0.1", json=False)
    assert "s1 is connected now" in again.stderr and f"--accept catalog={tree} --start" in again.stderr
    for node in (main, s1, s2):
        checks = node.run("check", expect=None).json["checks"]
        assert not [c for c in checks if not c["ok"]], checks
        secrets = [
            p
            for p in (node.directory / "pki").rglob("*")
            if p.is_file() and p.stat().st_mode & 0o077 and "key" in p.name
        ]
        assert not secrets, secrets
    # The same commands again change nothing.
    assert not main.run("init", "main", "--start").json["changed"]
    assert not main.run("fileset", "add", "catalog", str(tree)).json["changed"]
    assert not s1.run("join", tokens[0], "--accept", f"catalog={fleet.tree('s1')}", "--start").json["changed"]
    assert not s1.run("fileset", "accept", "catalog", str(fleet.tree("s1"))).json["changed"]
    # With the daemon down status answers from its last state.
    s1.stop()
    asleep = s1.run("status", expect=None).json
    assert (asleep["daemon"], asleep["filesets"][0]["name"]) == ("stopped", "catalog")
    assert asleep["filesets"][0]["lines"][0]["live"]["number"] == 1
    assert any("start" in step for step in asleep["next"])


def test_invitations_that_cannot_work(fleet: Fleet) -> None:
    """Goal: a loopback address, an address that is not allowed, a used token, a late token; each with the command."""
    main = _node(fleet, "main")
    main.run("init", "main", "--listen", f"127.0.0.1:{main.port}", "--start")
    for words in ((), ("--from", "10.99.0.7")):
        error = main.run("invite", "s1", *words, expect=4).error
        assert error["code"] == "loopback_address", error
        assert "--from 127.0.0.1" in error["hint"] and "set-address main" in error["hint"], error
    port = free_port()
    outer = _node(fleet, "outer")
    outer.run("init", "outer", "--listen", f"0.0.0.0:{port}", "--advertise", f"10.99.0.1:{port}", "--start")
    error = outer.run("invite", "s1", expect=4).error
    assert error["code"] == "address_not_allowed", error
    assert "--from" in error["hint"]
    assert outer.run("invite", "s1", "--from", "10.99.0.7").json["tokens"][0]["token"]
    assert outer.run("allow", "list").json["allow"] == ["10.99.0.7/32"]

    s1 = _node(fleet, "s1")
    late = fleet.invite("s1", "--ttl", "1ms")
    error = s1.run("join", late, "--start", expect=5).error
    assert error["code"] == "token_expired", error
    assert "instep invite s1" in error["hint"]
    token = fleet.invite("s1")
    # The token was made; then the address is cut off: refused before TLS, with an error that names the refusing side.
    main.run("allow", "add", "10.99.0.0/16")
    main.run("allow", "remove", "127.0.0.1")
    error = s1.run("join", token, "--start", expect=5).error
    assert error["code"] == "refused_by_peer_allow", error
    assert "other side" in error["reason"] or "main" in error["reason"], error
    assert "instep allow add" in error["hint"], error
    assert any(
        e["what"] == "peer_refused" and "127.0.0.1" in e["text"] for e in main.run("events").json["events"]
    )
    assert not (s1.directory / "instep.toml").exists(), "no half node is left"
    main.run("allow", "add", "127.0.0.1")
    s1.run("join", token, "--listen", f"127.0.0.1:{s1.port}", "--start")
    thief = _node(fleet, "thief")
    error = thief.run("join", token, "--start", expect=5).error
    assert error["code"] == "token_used", error
    assert "instep invite s1" in error["hint"]
    # A running link that is cut off says so on both sides and comes back when it is allowed again.
    main.run("allow", "remove", "127.0.0.1")
    fleet.set_poll(s1, "1s")
    link = _await_link(s1, up=False, code="refused_by_peer_allow")
    assert "instep allow add" in str(link["next"])
    main.run("allow", "add", "127.0.0.1")
    _await_link(s1, up=True)


def _await_link(node: Node, *, up: bool, code: str | None = None) -> dict[str, object]:
    def links() -> list[dict[str, object]]:
        return [link for link in node.status()["links"] if link["up"] is up and link["code"] == code]

    return eventually(links, 20, lambda: str(node.status()["links"]))[0]


def test_directories_that_are_not_taken(fleet: Fleet) -> None:
    """Goal: a directory that differs is refused in numbers and taken by ``--seed`` and ``--replace`` with nothing
    lost; overlapping roots, a root with the node directory, a missing one are refused with the reason."""
    tree = _filled(fleet.tree("main"))
    fleet.make(0)
    s1 = fleet.join("s1", accept=False)
    there = _filled(fleet.tree("s1"))
    for number in range(10):
        os.utime(there / f"f{number}", ns=(1, (tree / f"f{number}").stat().st_mtime_ns))
    (there / "f1").write_text("mine")
    (there / "f2").unlink()
    (there / "extra").write_text("precious")
    (there / "dir").mkdir()
    before = tree_of(there)
    error = s1.run("fileset", "accept", "data", str(there), expect=4).error
    assert error["code"] == "not_empty", error
    assert {k: error["facts"][k] for k in ("only_here", "only_there", "differing")} == {
        "only_here": 2,
        "only_there": 1,
        "differing": 1,
    }
    assert all(f"--{flag}" in error["hint"] for flag in ("seed", "replace", "observe")), error
    dry = s1.run("fileset", "accept", "data", str(there), "--dry-run").json
    assert (dry["only_here"], dry["only_there"], dry["differing"]) == (2, 1, 1), dry
    assert tree_of(there) == before
    assert os.listdir(there.parent) in (["node", "tree"], ["tree", "node"])
    fleet.accept("s1", "--seed")
    fleet.wait()
    fleet.assert_same("s1")
    kept = {item["path"]: item for item in s1.run("archive", "list", "data").json["items"]}
    assert {"f1", "extra"} <= set(kept), kept
    out = fleet.base / "out"
    s1.run("archive", "restore", "data", "extra", "--to", str(out))
    assert (out / "extra").read_text() == "precious"

    main = fleet.main
    for path, code in (
        (tree / "sub", "root_missing"),
        (main.directory.parent, "roots_overlap"),
        (main.directory, "root_holds_node"),
        (main.directory / "pki", "root_holds_node"),
        (fleet.base / "link", "root_is_symlink"),
    ):
        if code == "root_is_symlink":
            path.symlink_to(fleet.base / "out")
        error = main.run("fileset", "add", "other", str(path), expect=4).error
        assert error["code"] == code, error
        assert error["hint"]
    (fleet.base / "out2").mkdir()
    (tree / "sub").mkdir()
    assert main.run("fileset", "add", "other", str(tree / "sub"), expect=4).error["code"] == "roots_overlap"
    main.run("fileset", "add", "other", str(fleet.base / "out2"))
    for path, code in (
        (there / "inner", "roots_overlap"),
        (s1.directory.parent, "roots_overlap"),
        (s1.directory / "state", "root_holds_node"),
        (fleet.base / "no" / "where", "root_missing"),
    ):
        error = s1.run("fileset", "accept", "other", str(path), expect=4).error
        assert error["code"] == code, (path, error)
    assert not (there / "inner").exists()
    assert [f["name"] for f in s1.status()["filesets"]] == ["data"]
    assert main.run("fileset", "accept", "other", str(fleet.base / "x"), expect=None).code in (4, 7)


def test_a_node_that_starts_for_the_first_time_has_lost_nothing(fleet: Fleet) -> None:
    """Goal: a partner that joined with its daemon down said "there was no state" until its next start. Method: the
    same node then really loses its state, and says so."""
    _filled(fleet.tree("main"))
    fleet.make(0)
    s1 = fleet.join("s1", "--accept", f"data={fleet.tree('s1')}", accept=False)
    s1.await_standing("in_step")
    assert not [text for text in s1.status()["warnings"] if "no state" in text]
    s1.stop()
    for file in (s1.directory / "state").glob("node.db*"):
        file.unlink()
    s1.start()
    assert [text for text in s1.status()["warnings"] if "no state" in text]
