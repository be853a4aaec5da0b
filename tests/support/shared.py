"""Nodes that all tests of a file share: brought back to a known state after each test, which is named when it left
something."""

from __future__ import annotations

from typing import Any

from tests.support.fleet import Fleet, Node
from tests.support.waiting import eventually

__all__ = ["KnownState"]

BACK_S = 60.0


class KnownState:
    """How the nodes of a fleet stand between two tests: running, with the configuration that they have now, offered to
    balancers, not paused, and in step."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._configurations = {
            name: (node.directory / "instep.toml").read_text() for name, node in fleet.nodes.items()
        }

    def restore(self) -> list[str]:
        """Bring every node back. Returns the things that a test should have undone itself, in words; a changed
        configuration is a test's right and is only put back."""
        left: list[str] = []
        for name, text in self._configurations.items():
            node = self._fleet[name]
            if node.pid is None:
                left.append(f"{name} was not running")
                node.start()
            path = node.directory / "instep.toml"
            if path.read_text() != text:
                path.write_text(text)
                node.run("config", "reload")
        for name in self._configurations:
            left += _taken_back(self._fleet[name])
        return left

    def await_in_step(self) -> None:
        """Wait until every node serves the newest generation."""
        for name in self._configurations:
            self._fleet[name].await_standing("in_step", timeout=BACK_S)


def _taken_back(node: Node) -> list[str]:
    """Take back an operator's orders to the node; returns them."""
    left = []
    if node.run("node", "undrain").json["changed"]:
        left.append(f"{node.name} was drained by an operator")
    if node.line()["code"] == "paused":
        left.append(f"{node.name} was paused")
        node.run("resume", "data")
    eventually(  # a rollout brings its nodes back itself
        lambda: not _self(node)["drained"], BACK_S, lambda: f"{node.name} back: {_self(node)}"
    )
    return left


def _self(node: Node) -> dict[str, Any]:
    nodes = node.run("node", "list").json["nodes"]
    found: dict[str, Any] = next(each for each in nodes if each["self"])
    return found
