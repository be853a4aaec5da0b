"""A line's writer gets its contents back from a node that it does not know, through the hub between them."""

from __future__ import annotations

import os
from pathlib import Path

from tests.support.fleet import Fleet, Node, tree_of
from tests.support.waiting import eventually


def listed(node: Node, partner: str, row: str) -> None:
    path = node.directory / "instep.toml"
    path.write_text(f"{path.read_text()}\n[partners.{partner}]\n{row}\n")
    node.run("config", "reload")


def chain(fleet: Fleet) -> Path:
    """``main`` - ``hub`` - ``leaf``: the hub lists the leaf before it accepts the fileset, the leaf lists the hub only. The
    writer keeps no history."""
    fleet.make(0)
    # Before anything is there: the first generation is published at once, with a history.
    fleet.main.run("fileset", "set", "data", "history=off")
    tree = fleet.tree("main")
    (tree / "lost").mkdir(parents=True)
    (tree / "stays").write_text("stays")
    (tree / "lost" / "large").write_bytes(os.urandom(3_500_000))
    for number in range(5):
        (tree / "lost" / f"small{number}").write_text(f"small {number}")
    (tree / "lost" / "link").symlink_to("nowhere in particular")
    hub, leaf = fleet.join("hub", accept=False), fleet.join("leaf", accept=False)
    listed(hub, "leaf", "replicate = true\ndata = true\nhub = true")
    address = f'address = "127.0.0.1:{hub.port}"'
    listed(leaf, "hub", f"{address}\nreplicate = false\ndata = false\nhub = false")
    leaf.run("partner", "remove", "main")
    fleet.main.run("partner", "remove", "leaf")
    fleet.accept("hub")
    leaf.run("fileset", "accept", "data", str(fleet.tree("leaf")))
    await_leaf(fleet)
    return tree


def await_leaf(fleet: Fleet) -> None:
    eventually(
        lambda: tree_of(fleet.tree("leaf")) == tree_of(fleet.tree("main")),
        describe=lambda: f"{fleet['leaf'].line()}\n{fleet['leaf'].log()}",
    )


def test_what_only_a_node_behind_the_hub_has_comes_back(fleet: Fleet) -> None:
    """Goal: the writer rolls back to files that its own node and the hub have no more; the leaf's archive has them. A hub
    that cannot ask is told so, and changes nothing."""
    tree = chain(fleet)
    main, hub, leaf = fleet.main, fleet["hub"], fleet["leaf"]
    first = fleet.publish()
    before = tree_of(tree)
    for path in sorted((tree / "lost").iterdir()):
        path.unlink()
    (tree / "lost").rmdir()
    fleet.publish("--accept-deletions")
    await_leaf(fleet)
    hub.await_standing("in_step")
    hub.run("archive", "prune", "data", "--keep-last", "0", "--keep-within", "0s")
    leaf.stop()
    refused = main.run("rollback", "data", str(first), expect=None)
    assert refused.code and "lost/" in refused.stdout, refused
    leaf.start()
    eventually(
        lambda: main.run("rollback", "data", str(first), "--dry-run", expect=None).code == 0,
        describe=lambda: f"the contents through the hub\n{hub.log()}\n{leaf.log()}",
    )
    main.run("rollback", "data", str(first))
    assert tree_of(tree, with_times=False) == {path: row[:-1] for path, row in before.items()}
    await_leaf(fleet)
    fleet.assert_same("hub")
