"""The flow over a link and its stops: flags, class, pauses, revocation, hubs, and waiting for any of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def _start(fleet: Fleet, partners: int = 1) -> Path:
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("1")
    fleet.make(partners)
    fleet.wait()
    return tree


def _row(node: Node, name: str) -> dict[str, Any]:
    for row in node.line()["partners"]:
        if row["name"] == name:
            found: dict[str, Any] = row
            return found
    raise AssertionError(f"{node.name} shows no partner {name}")


def test_pause_retry_and_wait(fleet: Fleet) -> None:
    """Goal: a paused partner stays, a paused writer publishes nothing, both say so and resume, also by themselves;
    ``wait`` answers on the writer and on a partner, for a generation, a node, and names the nodes that it waits for."""
    tree = _start(fleet, 2)
    main, s1, s2 = fleet.main, fleet["s1"], fleet["s2"]
    s1.run("pause", "data", "--reason", "kernel update")
    fleet.write({"file": "2"})
    reached = main.run("wait", "data", "--node", "s2", "--timeout", "60s").json
    assert reached["reached"]
    second = reached["generation"]["number"]
    late = main.run("wait", "data", "--timeout", "1s", expect=7)
    told = late.json
    assert "s1" in str(told) and "s2" not in str(told.get("waiting_for", told)), told
    line = s1.await_standing("paused")
    assert "kernel update" in line["reason"] and "resume" in str(line["next"]), line
    assert (fleet.tree("s1") / "file").read_text() == "1"
    assert (fleet.tree("s2") / "file").read_text() == "2"
    assert s2.run("wait", "data", "--generation", str(second), "--timeout", "60s").json["reached"]
    assert s1.run("wait", "data", "--timeout", "500ms", expect=None).code != 0
    assert main.run("status", "--exit-code", expect=None).code == 11
    s1.stop()
    s1.start()
    s1.await_standing("paused")
    s1.run("resume", "data")
    assert s1.run("wait", "data", "--timeout", "60s").json["reached"]
    fleet.assert_same()
    assert main.run("wait", "data", "--generation", "99", expect=2).error["code"] == "no_generation"
    main.run("pause", "data")
    assert main.run("publish", "data", expect=4).error["code"] == "paused"
    (tree / "file").write_text("3")
    assert fleet.head() == second
    main.run("pause", "data", "--for", "1s")  # from now on, instead of without an end
    eventually(lambda: fleet.head() > second, 20, lambda: str(main.line()))
    fleet.wait()
    fleet.assert_same()
    assert main.run("retry", "data", "--node", "s1").json["changed"]
    assert main.run("retry", "data", "--node", "nobody", expect=7).error["code"] == "not_connected"
    explained = {row["node"]: row for row in main.run("explain", "data", "file").json["to"]}
    assert explained["s1"]["gets"] and explained["s2"]["gets"], explained


def test_flags_stop_the_flow(fleet: Fleet) -> None:
    """Goal: ``replicate`` off, removing the partner and revoking it each stop the flow within a poll interval, with
    the reason on both sides; the live generation stays; turning it on again heals."""
    tree = _start(fleet, 2)
    main, s1 = fleet.main, fleet["s1"]
    first = fleet.head()
    main.run("partner", "set", "s1", "--no-replicate")
    (tree / "file").write_text("2")
    assert main.run("wait", "data", "--timeout", "60s").json["reached"], "s1 is not waited for"
    assert (fleet.tree("s1") / "file").read_text() == "1"
    why = {row["node"]: row for row in main.run("explain", "data", "file").json["to"]}["s1"]
    assert not why["gets"] and "replicate" in why["why"], why
    line = s1.await_standing("unreachable", "blocked", "behind", "failing")
    assert line["reason"] and line["next"], line
    assert line["live"]["number"] == first
    main.run("partner", "set", "s1", "--replicate", "--data")
    fleet.wait()
    fleet.assert_same()
    main.run("partner", "remove", "s1")
    (tree / "file").write_text("3")
    fleet.wait()
    assert "s1" not in [p["name"] for p in main.run("partner", "list").json["partners"]]
    line = s1.await_standing("unreachable", "blocked", "failing")
    assert (fleet.tree("s1") / "file").read_text() == "2"
    link = eventually(lambda: [x for x in s1.status()["links"] if not x["up"]], 20)[0]
    assert "main" in link["reason"] and "partner" in f"{link['reason']} {link['next']}", link
    assert s1.run("check", expect=4).json["ok"] is False
    fleet["s2"].run("wait", "data", "--timeout", "60s")
    # Revoked: cut at once, with an error that says so.
    main.run("pki", "revoke", "s2")
    (tree / "file").write_text("4")
    main.run("publish", "data", expect=None)
    link = eventually(
        lambda: [x for x in fleet["s2"].status()["links"] if x["code"] == "refused_by_peer_revoked"],
        20,
        lambda: str(fleet["s2"].status()["links"]),
    )[0]
    assert link["next"], link
    line = fleet["s2"].await_standing("unreachable")
    assert (fleet.tree("s2") / "file").read_text() == "3"
    issued = main.run("pki", "list").json["issued"]
    assert {bool(one["revoked_at"]) for one in issued if one["name"] == "s2"} == {True}, issued
    # A new token brings it back.
    s2 = fleet["s2"]
    s2.run("join", fleet.invite("s2"), "--start")
    fleet.wait("--node", "s2")
    fleet.assert_same("s2")


def test_class_data_and_links_without_it(fleet: Fleet) -> None:
    """Goal: over a link without ``data`` a fileset of class data is not offered and not had, one of class metadata
    is; the reason stands at the writer."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("1")
    images = fleet.base / "images"
    images.mkdir()
    (images / "image").write_bytes(b"i" * 5_000)
    fleet.make(0)
    main = fleet.main
    main.run("fileset", "add", "images", str(images), "--class", "data", "--settle", "20ms")
    s1 = fleet.join("s1", link=("--no-data",))
    fleet.wait()
    fleet.assert_same("s1")
    assert [o["name"] for o in s1.status()["offers"]] == []
    error = s1.run("fileset", "accept", "images", str(fleet.base / "s1images"), expect=7, timeout=90).error
    assert error["code"] == "not_offered" and "--data" in error["hint"], error
    why = {row["node"]: row for row in main.run("explain", "images", "image").json["to"]}["s1"]
    assert not why["gets"] and "data" in why["why"], why
    main.run("partner", "set", "s1", "--data")
    eventually(lambda: [o["name"] for o in s1.status()["offers"]] == ["images"], 20)
    s1.run("fileset", "accept", "images", str(fleet.base / "s1images"))
    eventually(lambda: tree_of(fleet.base / "s1images") == tree_of(images), describe=s1.log)
    # `to` narrows it per fileset.
    main.run("fileset", "set", "images", "to=s9", expect=None)
    main.run("fileset", "set", "images", "to=")


def test_a_chain_over_a_hub(fleet: Fleet) -> None:
    """Goal: main -> s1 (hub) -> s2, which lists s1 only: every change arrives through s1, ``wait --fleet`` includes
    s2, the writer sees its standing; with a reload hook s2 gets its permit from the hub; with the hub flag off nothing
    flows and both say why."""
    tree = _start(fleet, 1)
    main, s1 = fleet.main, fleet["s1"]
    s2 = fleet.join("s2", accept=False)
    s2.run("partner", "remove", "main")
    main.run("partner", "remove", "s2")
    _list(s1, "s2", "replicate = true\ndata = true\nhub = true")
    _list(s2, "s1", f'address = "127.0.0.1:{s1.port}"\nreplicate = false\ndata = false\nhub = false')
    eventually(lambda: [o["name"] for o in s2.status()["offers"]] == ["data"], 20, lambda: str(s2.status()))
    s2.run("fileset", "accept", "data", str(fleet.tree("s2")))
    line = s2.await_standing("in_step")
    fleet.assert_same("s2")
    fleet.write({"file": "2", "large": b"0123456789abcdef" * 200_000})
    reached = fleet.wait("--fleet")
    assert reached["reached"]
    fleet.assert_same("s1", "s2")
    eventually(lambda: _row(main, "s2")["standing"] == "in_step", 20, lambda: str(main.line()))
    why = {row["node"]: row for row in main.run("explain", "data", "file").json["to"]}["s2"]
    assert why["gets"] and "s1" in why["via"], why
    assert [one["name"] for one in s2.run("partner", "list").json["partners"]] == ["s1"], "the hub is enough"
    reloaded = fleet.base / "reloaded"
    config = s2.directory / "instep.toml"
    config.write_text(config.read_text() + f'\n[filesets.data.hooks]\nreload = {{ touch = "{reloaded}" }}\n')
    s2.run("config", "reload")
    # The hub is down: s2 stays, says so, and catches up when it is back.
    s1.stop()
    (tree / "file").write_text("3")
    main.run("publish", "data", expect=None)
    line = s2.await_standing("unreachable")
    assert line["live"]["number"] == reached["generation"]["number"]
    s1.start()
    fleet.wait("--fleet")
    fleet.assert_same("s1", "s2")
    assert reloaded.exists()
    s1.run("partner", "set", "s2", "--no-hub")
    (tree / "file").write_text("4")
    fleet.wait()
    eventually(lambda: s2.line()["standing"] != "in_step", 20, lambda: str(s2.line()))
    assert (fleet.tree("s2") / "file").read_text() == "3"
    s1.run("partner", "set", "s2", "--hub")
    eventually(lambda: (fleet.tree("s2") / "file").read_text() == "4", 20, lambda: f"{s2.line()}\n{s2.log()}")


def _list(node: Node, partner: str, row: str) -> None:
    path = node.directory / "instep.toml"
    path.write_text(path.read_text() + f"\n[partners.{partner}]\n{row}\n")
    node.run("config", "reload")
