"""Real ``instep`` nodes on loopback, made and asked through the public commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.servers import free_port
from examples.waiting import Failed, eventually, eventually_seen

__all__ = ["Fleet", "Node"]

COMMAND_S = 180.0
SOURCE = str(Path(__file__).resolve().parents[1] / "src")


@dataclass
class Node:
    """One node directory, its daemon and the root of the fileset on it."""

    name: str
    directory: Path
    tree: Path
    port: int
    health: int
    agent: int
    is_verbose: bool = False

    def run(self, *words: str, expect: int = 0, environment: Mapping[str, str] | None = None) -> Any:
        """One public command; its JSON document. ``Failed`` when it ends with another code than ``expect``."""
        printed = self.text(*words, "--json", expect=expect, environment=environment)
        return json.loads(printed) if printed.strip() else {}

    def text(self, *words: str, expect: int = 0, environment: Mapping[str, str] | None = None) -> str:
        """What a public command prints; ``Failed`` when it ends with another code than ``expect``."""
        if self.is_verbose and words[0] not in ("status", "explain"):
            shown = " ".join(words).removesuffix(" --json")
            print(f"  $ instep --dir {self.directory} {shown}", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "instep.cli", "--dir", str(self.directory), *words],
            capture_output=True, text=True, timeout=COMMAND_S, check=False,
            env={**os.environ, "PYTHONPATH": SOURCE, **(environment or {})},
        )  # fmt: skip
        if done.returncode != expect:
            raise Failed(
                f"{self.name}: instep {' '.join(words)} ended with {done.returncode}, not {expect}: "
                f"{done.stdout}{done.stderr}"
            )
        return done.stdout

    def add_settings(
        self,
        top: str = "",
        tables: str = "",
        *,
        of_fileset: str = "",
        partners: Mapping[str, str] | None = None,
    ) -> None:
        """What an operator would write into ``instep.toml``: keys of the node, tables, keys of the only fileset, and
        rows of partners in the place of their present ones."""
        path = self.directory / "instep.toml"
        text = re.sub(r"(?m)^(\[filesets\.[^.\]]+\])$", rf"\1\n{of_fileset}", path.read_text())
        for name, row in (partners or {}).items():
            text = re.sub(rf"\[partners\.{name}\]\n[^\[]*", "", text) + f"\n[partners.{name}]\n{row}\n"
        path.write_text(f"{top}\n{text}\n{tables}\n")
        self.run("config", "reload")

    def lines(self, fileset: str) -> list[dict[str, Any]]:
        for each in self.run("status")["filesets"]:
            if each["name"] == fileset:
                found: list[dict[str, Any]] = each["lines"]
                return found
        raise Failed(f"{self.name} has no fileset {fileset}")

    def line(self, fileset: str) -> dict[str, Any]:
        return self.lines(fileset)[0]

    @property
    def pid(self) -> int | None:
        try:
            pid = int((self.directory / "daemon.pid").read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        return pid


class Fleet:
    """A writer ``home`` and the nodes that serve, below one directory, with one fileset."""

    def __init__(self, top: Path, fileset: str, *, home: str = "home", is_verbose: bool) -> None:
        self._home = home
        self.top = top
        self.fileset = fileset
        self._is_verbose = is_verbose
        self.nodes: dict[str, Node] = {}

    @property
    def home(self) -> Node:
        return self.nodes[self._home]

    @property
    def serving(self) -> list[Node]:
        return [node for node in self.nodes.values() if node is not self.home]

    def make(self, count: int, letter: str) -> None:
        """The nodes, not yet with a fileset. ``home`` is where changes are made; it serves no clients."""
        self.make_named("home", *(f"{letter}{number}" for number in range(1, count + 1)))

    def make_named(self, *names: str) -> None:
        """Nodes of these names, not yet with a fileset; the first is ``home``, and runs."""
        for name in names:
            self._lay_out(name)
        self._init(self.home)

    def make_clusters(self, *names: str) -> None:
        """A node of each name, which is a cluster of its own and runs."""
        for name in names:
            self._init(self._lay_out(name))

    def _lay_out(self, name: str) -> Node:
        ports = free_port(), free_port(), free_port()
        (self.top / name).mkdir()
        directory, tree = self.top / name / "node", self.top / name / "tree"
        self.nodes[name] = Node(name, directory, tree, *ports, is_verbose=self._is_verbose)
        return self.nodes[name]

    def _init(self, node: Node) -> None:
        node.tree.mkdir()
        node.run("init", node.name, "--listen", f"127.0.0.1:{node.port}", "--panel", "off", "--start")

    def listeners(self, node: Node) -> str:
        """Where balancers ask the node, and how long it waits for them."""
        asked = f'health = "127.0.0.1:{node.health}"\nagent = "127.0.0.1:{node.agent}"'
        return f'{asked}\npoll = "1s"\ndrain_linger = "200ms"'

    def acquaint(self, *nodes: Node) -> None:
        """Wait until each of these has heard of the others: only then can it list them as partners."""
        names = {node.name for node in nodes}

        def are_met() -> bool:
            return all({row["name"] for row in node.run("node", "list")["nodes"]} >= names for node in nodes)

        eventually(are_met, f"{', '.join(names)} to know each other")

    def join(self, node: Node, *words: str, settings: str = "", of_fileset: str = "") -> None:
        """``words`` are further options of ``join``, ``settings`` what is written into its file after it."""
        with self._token_for(node) as file:
            node.run(
                "join",
                "--token-file",
                file,
                "--listen",
                f"127.0.0.1:{node.port}",
                "--panel",
                "off",
                "--start",
                *words,
            )
        node.add_settings(self.listeners(node), settings, of_fileset=of_fileset)

    def link(self, node: Node, *words: str) -> None:
        """Link a node of another cluster with ``home``; ``words`` are further options of ``invite``."""
        with self._token_for(node, "--other-cluster", *words) as file:
            node.run("join", "--token-file", file)

    @contextmanager
    def _token_for(self, node: Node, *words: str) -> Iterator[str]:
        """A file with an invitation: a token is a secret, and arguments can be seen by all users."""
        token = self.home.run("invite", node.name, "--from", "127.0.0.1", *words)["tokens"][0]["token"]
        file = node.directory.parent / "token"
        file.touch(0o600)
        file.write_text(token)
        yield str(file)
        file.unlink()

    def publish(self, message: str) -> int:
        """Publish what lies in ``home``'s tree; the number of the generation."""
        return int(self.home.run("publish", self.fileset, "-m", message)["generation"]["number"])

    def wait(self, timeout_s: float = 120.0) -> None:
        """Until every serving node is in step."""
        self.home.run("wait", self.fileset, "--timeout", f"{timeout_s:g}s")

    def await_failing(self, node: Node, generation: int, code: str, word: str = "") -> dict[str, Any]:
        """Until the node says that this generation failed there, with the code and the word in its reason."""

        def stands() -> tuple[bool, dict[str, Any]]:
            line = node.line(self.fileset)
            reason = line["reason"] or ""
            is_this = reason.startswith(f"generation {generation}:") and word in reason
            return (line["standing"], line["code"]) == ("failing", code) and is_this, line

        return eventually_seen(stands, f"{node.name} to fail generation {generation} with {code}", 120)

    def rollouts(self) -> list[dict[str, Any]]:
        """What home keeps of the rollouts: the present one first, then those before it."""
        document = self.home.run("rollout", "show", self.fileset)
        return [*([document["rollout"]] if document["rollout"] else []), *document["past"]]

    def await_put_back(self, generation: int) -> str:
        """Wait until the rollout of this generation has put back every node; returns the node that failed, and why."""

        def is_over() -> tuple[bool, dict[str, Any]]:
            found = self.rollouts()[0]
            return found["generation"]["number"] == generation and found["state"] == "put_back", found

        failed = eventually_seen(is_over, f"the rollout of generation {generation} to be put back", 120)[
            "failed"
        ]
        return f"{failed['node']} failed ({failed['code']})"

    def outcomes(self) -> dict[str, int]:
        """How the rollouts ended, by the words of ``rollout show``."""
        by_generation = {each["generation"]["number"]: each["state"] for each in self.rollouts()}
        return dict(Counter(by_generation.values()))

    def untold(self) -> list[str]:
        """Drains and returns for which a balancer did not ask in time, as each serving node noted them."""
        found = []
        for node in self.nodes.values():
            document = node.run("events", "--since", "1h")
            events = next(value for value in document.values() if isinstance(value, list))
            found += [
                f"{node.name}: {each['text']}" for each in events if "did not ask in time" in each["text"]
            ]
        return found

    def close(self) -> None:
        """End every daemon, each by its own command."""
        for node in reversed(self.nodes.values()):
            if node.pid is not None:
                node.run("stop")
