"""A fleet whose partners have reload and probe hooks that write into one log, and can be held or made sick."""

from __future__ import annotations

import stat
import threading
import time
import urllib.error
import urllib.request
from functools import partial
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet, Node
from tests.support.shared import KnownState
from tests.support.waiting import eventually

__all__ = ["Rolling", "Watcher"]

ANSWER_S = 30.0
HOOK = """#!/bin/sh
echo "{node} {kind} $INSTEP_GENERATION $(date +%s%N)" >> {log}
word=$(cat "$INSTEP_PATH/file")
while [ -e {base}/hold-{node}-{kind}-"$word" ]; do sleep 0.05; done
if [ -e {base}/sick-{node}-{kind}-"$word" ]; then echo "{node} is sick of $word" >&2; exit 1; fi
"""


class Rolling:
    """``main`` and ``s1`` to ``s3``, all hooked. Holds and sickness go by the word that is published, so that the
    way back to another word is free."""

    def __init__(self, base: Path) -> None:
        self.fleet = Fleet(base)
        self.log_path = base / "log"
        self._count = 0
        self._policy = ""
        tree = self.fleet.tree("main")
        tree.mkdir(parents=True)
        (tree / "file").write_text("first")
        self.fleet.make(3)
        self.fleet.wait()
        for name in self.partners:
            self._hook(name)
        self._known = KnownState(self.fleet)

    partners = ("s1", "s2", "s3")

    @property
    def main(self) -> Node:
        return self.fleet.main

    def __getitem__(self, name: str) -> Node:
        return self.fleet[name]

    def _hook(self, name: str) -> None:
        lines = ["", "[filesets.data.hooks]"]
        for kind in ("reload", "probe"):
            script = self.fleet.base / f"{kind}-{name}"
            script.write_text(HOOK.format(node=name, kind=kind, log=self.log_path, base=self.fleet.base))
            script.chmod(script.stat().st_mode | stat.S_IXUSR)
            lines.append(f'{kind} = {{ run = ["{script}"], timeout = "2m" }}')
        node = self.fleet[name]
        path = node.directory / "instep.toml"
        path.write_text(path.read_text() + "\n".join(lines) + "\n")
        node.run("config", "reload")

    # The operator -------------------------------------------------------------------------------------------

    def policy(self, **keys: str) -> None:
        """Set the rollout section of the fileset at the writer and let what follows go through."""
        section = "\n[filesets.data.rollout]\n" + "".join(f"{key} = {value}\n" for key, value in keys.items())
        if section == self._policy:
            return
        path = self.main.directory / "instep.toml"
        text = path.read_text()
        path.write_text(text.replace(self._policy, "") + section if self._policy else text + section)
        self._policy = section
        self.main.run("config", "reload")
        self.settle()

    def settle(self) -> None:
        """Publish a harmless word, and wait until all serve it."""
        self._count += 1
        self.write(f"calm{self._count}")
        self.fleet.wait(timeout=60)

    def write(self, word: str) -> None:
        self.fleet.write({"file": word})

    def publish(self, word: str) -> int:
        """Publish ``word``; the number of its generation."""
        self.write(word)
        return self.fleet.publish()

    def hold(self, name: str, kind: str, word: str) -> Path:
        """The hook of ``name`` waits while the file that is returned exists."""
        path = self.fleet.base / f"hold-{name}-{kind}-{word}"
        path.touch()
        return path

    def sick(self, name: str, kind: str, word: str) -> Path:
        """The hook of ``name`` fails while the file that is returned exists."""
        path = self.fleet.base / f"sick-{name}-{kind}-{word}"
        path.touch()
        return path

    def put_back(self) -> list[str]:
        """As it was before the first test: nothing held, sick, drained or paused, the default policy, and a calm word
        live on all. Returns the things that a test should have undone itself, in words."""
        left = []
        for path in sorted(self.fleet.base.glob("hold-*")):
            left.append(f"the hook of {path.name.removeprefix('hold-')} was held")
            path.unlink()
        for path in self.fleet.base.glob("sick-*"):
            path.unlink()
        left += self._known.restore()
        self._policy = ""
        rollout = self.show()["rollout"]
        if rollout is not None and rollout["paused"]:
            left.append("the rollout was paused")
            self.main.run("rollout", "resume", "data")
        self.settle()
        self.await_nobody_drained()
        return left

    # Looking ------------------------------------------------------------------------------------------------

    def log(self, number: int | None = None) -> list[str]:
        """The lines of the hooks, as ``s1 reload``; of one generation alone."""
        rows = (
            [row.split() for row in self.log_path.read_text().splitlines()] if self.log_path.exists() else []
        )
        return [f"{row[0]} {row[1]}" for row in rows if number is None or row[2] == str(number)]

    def timeline(self, name: str, number: int, watched: list[tuple[int, str, str]]) -> list[str]:
        """The hooks of a node for one generation and a balancer's view of the node, by time."""
        rows = [row.split() for row in self.log_path.read_text().splitlines()]
        hooks = [(int(row[3]), row[1]) for row in rows if row[0] == name and row[2] == str(number)]
        seen = [(time_ns, what) for time_ns, node, what in watched if node == name]
        return [what for _, what in sorted(hooks + seen)]

    def await_log(self, row: str, number: int) -> None:
        eventually(
            lambda: row in self.log(number), 30, lambda: f"no {row!r} in {self.log(number)}\n{self.show()}"
        )

    def word(self, name: str) -> str:
        return (self.fleet.tree(name) / "file").read_text()

    def words(self) -> list[str]:
        return [self.word(name) for name in self.partners]

    def show(self) -> dict[str, Any]:
        found: dict[str, Any] = self.main.run("rollout", "show", "data").json
        return found

    def await_state(self, *states: str, timeout: float = 40) -> dict[str, Any]:
        """Wait until the present rollout is in one of these states; the rollout."""
        last: dict[str, Any] = {}

        def is_there() -> bool:
            last.clear()
            last.update(self.show()["rollout"])
            return last["state"] in states

        eventually(is_there, timeout, lambda: f"{last}\n{self.main.log()}")
        return last

    def await_nobody_drained(self) -> None:
        """Every node reports to the writer that it is offered again, or the failure names the nodes that are not and
        why."""
        last: list[Any] = []

        def are_in() -> bool:
            last[:] = self.show()["rollout"]["nodes"]
            return not any(node["drained"] for node in last)

        eventually(are_in, 30, lambda: f"drained: {last}")

    def is_drained(self, name: str) -> bool:
        """Whether the node itself reports a drain."""
        nodes = self.fleet[name].run("node", "list").json["nodes"]
        return bool(next(node for node in nodes if node["self"])["drained"])

    def close(self) -> None:
        self.fleet.close()


class Watcher:
    """A balancer: asks ``/ready`` of every partner in turn, and records each change of the answer."""

    def __init__(self, ports: dict[str, int]) -> None:
        self.seen: list[tuple[int, str, str]] = []
        """When, which node, ``drained`` or ``ready``. A node was drained when it was asked or soon after; it was ready
        when its answer came or shortly before."""
        self.out_together: list[str] = []
        """Nodes that were out at the same time, for sure: one answered so while the other did before and after it."""
        self._ports = ports
        self._was = dict.fromkeys(ports, True)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._trouble: list[OSError] = []

    def __enter__(self) -> Watcher:
        for port in self._ports.values():
            eventually(partial(_is_ready, port), describe=f"/ready on {port}")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(ANSWER_S * len(self._ports))
        assert not self._trouble, self._trouble

    def _run(self) -> None:
        try:
            while not self._end.wait(0.03):
                for name in self._ports:
                    self._ask(name)
        except OSError as error:
            self._trouble.append(error)

    def _ask(self, name: str) -> None:
        asked_ns = time.time_ns()
        is_ready = _is_ready(self._ports[name])
        if is_ready and not self._was[name]:
            self.seen.append((time.time_ns(), name, "ready"))
        elif not is_ready and self._was[name]:
            self.seen.append((asked_ns, name, "drained"))
            others = [other for other, was_ready in self._was.items() if not was_ready and other != name]
            still = [other for other in others if not _is_ready(self._ports[other])]
            if still and not _is_ready(self._ports[name]):
                self.out_together.append(f"{name} and {', '.join(still)}")
        self._was[name] = is_ready


def _is_ready(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/ready", timeout=ANSWER_S) as answer:
            return bool(answer.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False
