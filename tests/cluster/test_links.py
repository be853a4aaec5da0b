"""The flow over a link and its stops with real processes: flags, class, a pause, removal, revocation."""

from __future__ import annotations

from pathlib import Path

from tests.support.fleet import Fleet
from tests.support.waiting import eventually


def _start(fleet: Fleet, partners: int = 1) -> Path:
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "file").write_text("1")
    fleet.make(partners)
    fleet.wait()
    return tree


def test_flags_stop_the_flow(fleet: Fleet) -> None:
    """Goal: ``replicate`` off, removing the partner and revoking it each stop the flow within a poll interval, with
    the reason on both sides; the live generation stays; turning it on again heals."""
    tree = _start(fleet, 2)
    main, s1 = fleet.main, fleet["s1"]
    s1.run("pause", "data", "--reason", "kernel update")
    fleet.write({"file": "1a"})
    late = main.run("wait", "data", "--timeout", "1s", expect=7).json
    assert [row["node"] for row in late["waiting_for"]] == ["s1"], late
    s1.run("resume", "data")
    fleet.wait()
    first = fleet.head()
    main.run("partner", "set", "s1", "--no-replicate")
    (tree / "file").write_text("2")
    assert main.run("wait", "data", "--timeout", "60s").json["reached"], "s1 is not waited for"
    assert (fleet.tree("s1") / "file").read_text() == "1a"
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
