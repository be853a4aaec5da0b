"""Real nodes on loopback for the cluster floor: made, asked, killed and compared through the public commands."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.ports import Ports
from instep.cli.control import Control
from instep.errors import UnavailableError
from tests.support.commands import SOURCE, run_command, spawn_daemon
from tests.support.waiting import crowding, eventually

__all__ = ["SOURCE", "Answer", "CommandFailed", "Fleet", "Node", "tree_of"]

COMMAND_S = 120.0


class CommandFailed(AssertionError):
    """A command ended with another code than the test expected."""


@dataclass(frozen=True)
class Answer:
    """The output of a command. ``json`` is the document of ``--json``, None when stdout is something else."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> Any:
        return json.loads(self.stdout)

    @property
    def error(self) -> dict[str, Any]:
        found: dict[str, Any] = self.json["error"]
        return found


_PORTS = Ports(12_000, 32_000)


def free_port() -> int:
    """A loopback port that no process uses now and no other test is given, in this run or in one beside it."""
    return _PORTS.take()


@dataclass
class Node:
    """One node directory and its daemon. ``environment`` is added to each daemon that is started, ``prefix`` comes
    before each command, as ``setpriv`` does, and ``source`` has the version of instep that runs."""

    name: str
    directory: Path
    port: int = field(default_factory=free_port)
    environment: dict[str, str] = field(default_factory=dict)
    prefix: tuple[str, ...] = ()
    source: str = SOURCE

    def run(
        self, *words: str, expect: int | None = 0, timeout: float = COMMAND_S, json: bool = True
    ) -> Answer:
        """Run ``instep WORDS`` in a shell whose ``INSTEP_DIR`` is this node's. ``expect`` is the exit code, None for
        any."""
        arguments = [*words, *(["--json"] if json else [])]
        if self.prefix:
            done = subprocess.run(
                [*self.prefix, sys.executable, "-m", "instep.cli", *arguments],
                capture_output=True,
                text=True,
                timeout=timeout,
                env=self._environment(),
                check=False,
            )
        else:
            done = run_command(arguments, self._environment(), timeout, self.source)
        answer = Answer(done.returncode, done.stdout, done.stderr)
        if expect is not None and done.returncode != expect:
            raise CommandFailed(
                f"{self.name}: instep {' '.join(words)} ended with {done.returncode}, not {expect}\n"
                f"{done.stdout}\n{done.stderr}\n{self.log()}"
            )
        return answer

    def init(self, *words: str) -> None:
        self.run("init", self.name, "--listen", f"127.0.0.1:{self.port}", "--panel", "off", *words)

    @property
    def control(self) -> Control:
        return Control(self.directory / "control.sock")

    def start(self) -> None:
        """Start the daemon and wait until it answers, as ``instep start`` does, which ``test_start`` runs as it is."""
        if self.prefix:
            self.run("start")
            return
        with (self.directory / "daemon.log").open("ab") as log:
            spawn_daemon(self.directory, self._environment(), log, self.source).release()
        is_up = self.control.is_up if self.source == SOURCE else self._pings
        eventually(is_up, describe=lambda: f"{self.name} to answer\n{self.log()}")

    def _pings(self) -> bool:
        """Whether a daemon of another version answers: ``Control.is_up`` reads today's answer."""
        try:
            self.control.call("ping", {})
        except UnavailableError:
            return False
        return True

    def _environment(self) -> dict[str, str]:
        own = {"PYTHONPATH": self.source, "INSTEP_DIR": str(self.directory)}
        return {**os.environ, **self.environment, **own}

    def stop(self) -> None:
        self.run("stop")

    @property
    def pid(self) -> int | None:
        """The daemon's process id, None when none lives. A process that was killed lives until its last thread is gone:
        until then it has its files, and so the lock of the directory."""
        try:
            pid = int((self.directory / "daemon.pid").read_text())
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            threads = os.listdir(f"/proc/{pid}/task")
        except (OSError, ValueError):
            return None
        return None if state == "Z" and len(threads) <= 1 else pid

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        pid = self.pid
        if pid is not None:
            os.kill(pid, signal.SIGKILL)
        self.await_death()

    def await_death(self, timeout: float = 20.0) -> None:
        eventually(
            lambda: self.pid is None, timeout, lambda: f"{self.name} lives on as {self.pid}\n{self.log()}"
        )

    def log(self, lines: int = 30) -> str:
        path = self.directory / "daemon.log"
        return "\n".join(path.read_text(errors="replace").splitlines()[-lines:]) if path.exists() else ""

    # Looking ------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        if self.source != SOURCE:  # what the daemon itself says, whichever command line asks
            return self.control.call("status", {"fileset": None})
        found: dict[str, Any] = self.run("status").json
        return found

    def line(self, fileset: str = "data") -> dict[str, Any]:
        """The only line of a fileset as ``status --json`` shows it."""
        for each in self.status()["filesets"]:
            if each["name"] == fileset:
                found: dict[str, Any] = each["lines"][0]
                return found
        raise AssertionError(f"{self.name} has no fileset {fileset}")

    def standing(self, fileset: str = "data") -> str:
        return str(self.line(fileset)["standing"])

    def await_standing(
        self, *wanted: str, fileset: str = "data", code: str | None = None, timeout: float = 30.0
    ) -> dict[str, Any]:
        """Wait until the line stands as wanted; the line."""
        last: dict[str, Any] = {}

        def stands() -> bool:
            last.clear()
            last.update(self.line(fileset))
            return last["standing"] in wanted and (code is None or last["code"] == code)

        eventually(stands, timeout, lambda: f"{self.name}: {last}\n{self.log()}")
        return last


class Fleet:
    """A writer ``main`` and partners ``s1``, ``s2`` ... below one directory, one fileset ``data``."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.nodes: dict[str, Node] = {}

    def __getitem__(self, name: str) -> Node:
        return self.nodes[name]

    @property
    def main(self) -> Node:
        return self.nodes["main"]

    def tree(self, name: str) -> Path:
        """The root of ``data`` on that node."""
        return self.base / name / "tree"

    # The operator and the applications ------------------------------------------------------------------------

    def write(self, files: Mapping[str, str | bytes], name: str = "main") -> None:
        """Put whole files into a node's tree as one change: no scan finds half a file, or some of them without the
        rest."""
        tree, whole = self.tree(name), self.base / "whole"
        is_one = len(files) == 1 and all((tree / path).parent.is_dir() for path in files)
        with nullcontext() if is_one else self.together(name):
            for path, data in files.items():
                whole.write_bytes(data.encode() if isinstance(data, str) else data)
                (tree / path).parent.mkdir(parents=True, exist_ok=True)
                whole.rename(tree / path)

    @contextmanager
    def together(self, name: str = "main") -> Iterator[None]:
        """All changes to a writer's tree in here go into one generation: publishing is paused meanwhile."""
        control = self[name].control
        control.call("pause", {"fileset": "data"}, timeout_s=COMMAND_S)
        try:
            yield
        finally:
            control.call("resume", {"fileset": "data"}, timeout_s=COMMAND_S)

    def publish(self, *words: str) -> int:
        """Publish what lies in the tree of ``main``; the number of the generation that has it."""
        number: int = self.main.run("publish", "data", *words).json["generation"]["number"]
        return number

    def head(self, name: str = "main") -> int:
        """The number of the newest generation that a node knows."""
        number: int = self[name].line()["head"]["number"]
        return number

    def make(
        self,
        partners: int = 2,
        *,
        add: Sequence[str] = ("--settle", "20ms"),
        accept: bool = True,
        poll: str = "1s",
    ) -> Fleet:
        """``main`` with a fileset, and partners that joined, accepted and run. Nothing is published by hand."""
        main = self.node("main")
        self.tree("main").mkdir(parents=True, exist_ok=True)
        main.init()
        self.set_poll(main, poll)
        main.start()
        main.run("fileset", "add", "data", str(self.tree("main")), *add)
        for number in range(1, partners + 1):
            self.join(f"s{number}", accept=accept, poll=poll)
        return self

    def node(self, name: str) -> Node:
        """A node that is not made yet; the same again for the same name, so that it can be prepared."""
        if name in self.nodes:
            return self.nodes[name]
        (self.base / name).mkdir(parents=True, exist_ok=True)
        found = self.nodes[name] = Node(name, self.base / name / "node")
        return found

    def invite(self, name: str, *words: str) -> str:
        answer = self.main.run("invite", name, "--from", "127.0.0.1", *words)
        token: str = answer.json["tokens"][0]["token"]
        return token

    def join(
        self, name: str, *words: str, accept: bool = True, poll: str = "1s", link: Sequence[str] = ()
    ) -> Node:
        """A node that joined and runs. With ``accept`` it follows ``data``, and the writer has heard so: before that no
        command waits for it."""
        node = self.node(name)
        token = self.invite(name, *link)
        node.run("join", token, "--listen", f"127.0.0.1:{node.port}", "--panel", "off", *words)
        self.set_poll(node, poll)
        node.start()
        if accept:
            self.accept(name)
        return node

    def accept(self, name: str, *words: str, root: Path | None = None) -> None:
        """Accept ``data`` for real, and wait until the writer has heard so: until then it waits for that node
        nowhere."""
        self[name].run("fileset", "accept", "data", str(root or self.tree(name)), *words)

        def is_heard() -> bool:
            rows = self.main.line()["partners"]
            return any(row["name"] == name and row["standing"] != "observing" for row in rows)

        eventually(is_heard, describe=lambda: f"{name} in {self.main.line()}")

    def acquaint(self, *names: str) -> None:
        """Wait until each of these running nodes has heard of the others: only then can it list them as partners."""

        def are_met() -> bool:
            known = {
                name: {row["name"] for row in self[name].run("node", "list").json["nodes"]} for name in names
            }
            return all(known[name] | {name} >= set(names) for name in names)

        eventually(are_met, describe=lambda: f"{', '.join(names)} know each other")

    def set_poll(self, node: Node, poll: str) -> None:
        """A short poll interval, so that the safety net is tested within seconds."""
        path = node.directory / "instep.toml"
        path.write_text(f'poll = "{poll}"\n' + path.read_text())
        if node.pid is not None:
            node.run("config", "reload")

    def wait(self, *words: str, timeout: float = 60.0) -> dict[str, Any]:
        """``instep wait`` on the writer; returns its document."""
        timeout *= crowding()
        found: dict[str, Any] = self.main.run(
            "wait", "data", "--timeout", f"{timeout:g}s", *words, timeout=timeout + 20
        ).json
        return found

    def assert_same(self, *names: str, with_times: bool = True) -> None:
        """Every named node's tree (all by default) equals the writer's, byte for byte."""
        wanted = tree_of(self.tree("main"), with_times=with_times)
        for name in names or [n for n in self.nodes if n != "main"]:
            found = tree_of(self.tree(name), with_times=with_times)
            assert found == wanted, _difference(name, wanted, found)

    def close(self) -> None:
        """End every daemon by its process id."""
        for node in self.nodes.values():
            pid = node.pid
            if pid is not None:
                os.kill(pid, signal.SIGKILL)


def tree_of(root: Path, *, with_times: bool = True) -> dict[bytes, tuple[Any, ...]]:
    """Everything below ``root`` but the control folder: kind, mode, contents, times."""
    found: dict[bytes, tuple[Any, ...]] = {}
    for path in _walk(os.fsencode(root)):
        about = os.lstat(path)
        relative = os.path.relpath(path, os.fsencode(root))
        times = (about.st_mtime_ns,) if with_times else ()
        if stat.S_ISLNK(about.st_mode):
            found[relative] = ("symlink", os.readlink(path), *times)
        elif stat.S_ISDIR(about.st_mode):
            found[relative] = ("dir", stat.S_IMODE(about.st_mode), *times)
        else:
            with open(path, "rb") as file:
                found[relative] = ("file", stat.S_IMODE(about.st_mode), file.read(), *times)
    return found


def _walk(root: bytes) -> Iterator[bytes]:
    for entry in sorted(os.scandir(root), key=lambda e: e.name):
        if entry.name.lower().startswith(b".instep"):
            continue
        yield entry.path
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)


def _difference(name: str, wanted: dict[bytes, Any], found: dict[bytes, Any]) -> str:
    lines = [f"{name} differs:"]
    lines.extend(
        f"  {path!r}: wanted {_short(wanted.get(path))}, found {_short(found.get(path))}"
        for path in sorted({*wanted, *found})
        if wanted.get(path) != found.get(path)
    )
    return "\n".join(lines[:20])


def _short(value: Any) -> str:
    return repr(value)[:120]
