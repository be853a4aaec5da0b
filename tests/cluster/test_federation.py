"""Two clusters without a common CA: keys pinned on both sides carry a line."""

from __future__ import annotations

from tests.support.fleet import Fleet
from tests.support.waiting import eventually


def test_generations_flow_between_pinned_nodes_of_two_clusters(fleet: Fleet) -> None:
    """Goal: a node of another cluster follows a line, and only with the right fingerprint. Method: two ``init``,
    each lists the other by its pin."""
    alpha, beta = fleet.node("main"), fleet.node("beta")
    fleet.tree("main").mkdir()
    (fleet.tree("main") / "file").write_text("from another cluster")
    for node in (alpha, beta):
        node.init("--start")
    alpha.run("fileset", "add", "data", str(fleet.tree("main")), "--settle", "20ms")
    pins = {node.name: node.run("node", "list").json["nodes"][0]["pin"] for node in (alpha, beta)}
    wrong = beta.run(
        "partner", "add", "main", f"127.0.0.1:{alpha.port}", "--pin", pins["beta"], expect=5
    ).error
    assert wrong["code"] == "wrong_pin"
    assert {wrong["facts"]["shown"], wrong["facts"]["typed"]} == {pins["main"], pins["beta"]}
    seen = alpha.run("pki", "trust", "fetch", f"127.0.0.1:{beta.port}").json
    assert seen["pin"] == pins["beta"] and "trusted" not in seen, "nothing is believed unasked"
    fetch = ("pki", "trust", "fetch", f"127.0.0.1:{beta.port}", "--pin")
    assert alpha.run(*fetch, pins["main"], expect=5).error["code"] == "wrong_pin"
    assert alpha.run(*fetch, pins["beta"]).json["trusted"] == ["beta"]
    alpha.run(
        "partner", "add", "beta", f"127.0.0.1:{beta.port}", "--pin", pins["beta"], "--replicate", "--data"
    )
    beta.run("partner", "add", "main", f"127.0.0.1:{alpha.port}", "--pin", pins["main"])
    beta.run("fileset", "accept", "data", str(fleet.tree("beta")))
    assert fleet.wait("--node", "beta")["reached"]
    fleet.assert_same("beta")
    alpha.run("partner", "remove", "beta")
    fleet.write({"file": "not for strangers"})
    beta.run("wait", "data", "--generation", str(fleet.publish()), "--timeout", "2s", expect=None)
    assert (fleet.tree("beta") / "file").read_text() == "from another cluster"


def test_a_token_links_nodes_of_two_clusters_for_good(fleet: Fleet) -> None:
    """Goal: one token, typed once, carries a line to a node of another cluster, and renewals on both sides break no
    link, also where this side never dials. Method: two ``init``, a token for any node, one for nodes of other clusters
    alone; both renew and restart, and only one has the other's address."""
    alpha, beta, new = fleet.node("main"), fleet.node("beta"), fleet.node("gamma")
    fleet.tree("main").mkdir()
    (fleet.tree("main") / "file").write_text("before")
    for node in (alpha, beta):
        node.init("--start")
    alpha.run("fileset", "add", "data", str(fleet.tree("main")), "--settle", "20ms")
    local = ("--from", "127.0.0.1")
    member = beta.run("invite", "main", *local).json["tokens"][0]["token"]
    assert alpha.run("join", member).json["inviter"] == "beta", "a token for a member links it as well"
    (row,) = beta.run("partner", "list").json["partners"]
    assert (row["name"], row["replicate"], row["data"]) == ("main", True, True)
    alpha.run("partner", "remove", "beta")
    beta.run("partner", "remove", "main")
    assert not any((alpha.directory / "pki/trusted").iterdir()), "no partner, no pin"
    token = alpha.run("invite", "beta", "--other-cluster", *local).json["tokens"][0]["token"]
    assert new.run("join", token, expect=4).error["code"] == "no_node"
    joined = beta.run("join", token, "--accept", f"data={fleet.tree('beta')}").json
    assert joined["offers"][0]["name"] == "data"
    assert not beta.run("join", token).json["changed"]
    pins = {node.name: node.run("node", "list").json["nodes"][0]["pin"] for node in (alpha, beta)}
    rows = [node.run("partner", "list").json["partners"][0] for node in (alpha, beta)]
    assert [(row["name"], row["replicate"], row["data"], row["hub"]) for row in rows] == [
        ("beta", True, True, False),
        ("main", False, False, False),
    ]
    assert fleet.wait("--node", "beta")["reached"]
    fleet.assert_same("beta")
    alpha.run("partner", "set", "beta", "--address", "")
    for node in (alpha, beta):
        node.run("pki", "renew")
        node.stop()
    for node in (alpha, beta):
        node.start()
    assert pins == {node.name: node.run("node", "list").json["nodes"][0]["pin"] for node in (alpha, beta)}
    (fleet.tree("main") / "file").write_text("after")
    eventually(lambda: (fleet.tree("beta") / "file").read_text() == "after", 40, lambda: str(beta.status()))
