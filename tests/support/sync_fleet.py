"""Staging and production as real nodes: two homes, each with a mirror, and a sync profile between them."""

from __future__ import annotations

from typing import Any

from tests.support.fleet import Fleet, tree_of
from tests.support.waiting import eventually

SERVERS = ("main", "s2", "p1", "p2")
MIRRORS = {"main": "s2", "p1": "p2"}


class FleetSite:
    """Staging ``main`` with its mirror ``s2``, production ``p1`` with its mirror ``p2``: a fileset ``data`` on each side.
    ``main`` dials ``p1``, and nothing dials back for a run. ``offers``: edits at a mirror go to its home."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet

    def make(self, kinds: str = "", *, offers: bool = False) -> None:
        fleet, drift = self.fleet, ("--drift", "offer") if offers else ()
        main = fleet.node("main")
        main.init()
        fleet.tree("main").mkdir()
        main.start()
        main.run("fileset", "add", "data", str(fleet.tree("main")), "--settle", "20ms")
        fleet.join("s2", accept=False)
        fleet.accept("s2", *drift)
        main.run("fileset", "set", "data", "to=s2", *(["offers_from=s2"] if offers else []))
        p1, p2 = fleet.join("p1", accept=False), fleet.join("p2", accept=False)
        fleet.acquaint("p1", "p2")
        fleet.tree("p1").mkdir()
        p1.run("partner", "set", "p2", "--replicate", "--data")
        p1.run("partner", "set", "main", "--replicate", "--data")
        p2.run("partner", "set", "p1", "--address", f"127.0.0.1:{p1.port}")
        main.run("partner", "set", "p1", "--address", f"127.0.0.1:{p1.port}")
        p1.run("fileset", "add", "data", str(fleet.tree("p1")), "--settle", "20ms", "--to", "p2")
        p1.run("fileset", "set", "data", f"offers_from=main{',p2' if offers else ''}")
        p1.run("publish", "data", "--over", expect=None)
        p2.run("fileset", "accept", "data", str(fleet.tree("p2")), *drift)
        for node in (main, fleet["s2"]):
            sides = ("--left", "data@main", "--right", "data@p1")
            node.run("sync", "add", "site", *sides, "--initiator", "main", "--initiator", "s2")
            if kinds:
                file = node.directory / "instep.toml"
                file.write_text(file.read_text() + kinds)
                node.run("config", "reload")

    def run(self, initiator: str = "main", *words: str, expect: int | None = 0) -> dict[str, Any]:
        found: dict[str, Any] = self.fleet[initiator].run("sync", "run", "site", *words, expect=expect).json
        return found

    def settled(self) -> None:
        """Both mirrors are in step."""
        for home in MIRRORS:
            self.fleet[home].run("wait", "data", "--timeout", "60s", timeout=90)

    def text(self, name: str, path: str) -> str | None:
        file = self.fleet.tree(name) / path
        return file.read_text() if file.is_file() else None

    def await_text(self, name: str, path: str, text: str | None) -> None:
        eventually(
            lambda: self.text(name, path) == text,
            describe=lambda: f"{path} = {text!r} on {name}, which has {self.text(name, path)!r}",
        )

    def assert_same(self) -> dict[bytes, tuple[Any, ...]]:
        trees = {name: dict(tree_of(self.fleet.tree(name), with_times=False)) for name in SERVERS}
        for name in SERVERS:
            assert trees[name] == trees["main"], name
        return trees["main"]
