"""Real daemons that are homes of one fileset, driven by their commands and asked over their control sockets."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.cage import Cage
from bench.check import compare
from bench.waiting import DeadlinePassed, until

__all__ = ["FILESET", "Home", "Rig"]

FILESET = "catalog"
_FIRST_PORT = 21443


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


@dataclass
class Home:
    """One node: its directory, its tree and its daemon."""

    name: str
    directory: Path
    tree: Path
    port: int
    process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def ask(self, command: str, **params: Any) -> dict[str, Any]:
        """The result of one command, without the start of an interpreter."""
        connection = _UnixConnection(self.directory / "control.sock")
        try:
            headers = {"Content-Type": "application/json"}
            connection.request("POST", f"/v1/{command}", json.dumps(params), headers)
            last = json.loads(connection.getresponse().read().splitlines()[-1])
        finally:
            connection.close()
        if "error" in last:
            raise OSError(f"{self.name}: {command}: {last['error']['reason']}")
        result: dict[str, Any] = last["result"]
        return result

    def lines(self) -> dict[str, dict[str, Any]]:
        """How each line of the fileset stands here, by origin."""
        (fileset,) = self.ask("status", fileset=FILESET)["filesets"]
        return {line["origin"]: line for line in fileset["lines"]}

    def memory(self, what: str = "VmHWM") -> int:
        """Bytes that its daemon holds (``VmRSS``), or held at most."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith(what):
                return int(line.split()[1]) * 1024
        raise OSError(f"{self.name}: no {what}")


class Rig:
    """The nodes of one figure, in one cage."""

    def __init__(self, cage: Cage, base: Path, within_s: float) -> None:
        self.cage, self._base, self.within_s = cage, base, within_s
        self.homes: dict[str, Home] = {}
        self._command = Path(sys.executable).with_name("instep")

    def add(self, name: str) -> Home:
        """A node that runs: the first one makes the cluster, the others join it."""
        home = Home(
            name, self._base / name / "node", self._base / name / "tree", _FIRST_PORT + len(self.homes)
        )
        home.tree.mkdir(parents=True)
        listening = ("--listen", home.address, "--panel", "off")
        if not self.homes:
            self.tell(home, "init", name, *listening)
        else:
            first = next(iter(self.homes.values()))
            token = self.cage.run(
                [self._command, "invite", name, "--from", "127.0.0.1", "--dir", first.directory]
            ).split()[-1]
            secret = self._base / name / "token"
            secret.touch(mode=0o600)
            secret.write_text(token)
            self.tell(home, "join", "--token-file", secret, *listening)
        self.homes[name] = home
        self.start(home)
        return home

    def start(self, home: Home) -> None:
        log = f"instep-{home.name}"
        home.process = self.cage.start([self._command, "serve", "--dir", home.directory], log=log)

        def answers() -> bool:
            assert home.process is not None
            if home.process.poll() is not None:
                raise RuntimeError(f"instep serve ended: see {self.cage.log_path(log)}")
            try:
                return bool(home.ask("status"))
            except OSError:
                return False

        until(answers, self.within_s, f"control socket of {home.name}", 0.02)

    def stop(self, home: Home) -> None:
        assert home.process is not None
        home.process.terminate()
        self.cage.finish(home.process, self.within_s)
        home.process = None

    def tell(self, home: Home, *words: str | Path) -> Any:
        argv = [self._command, *words, "--dir", home.directory, "--json"]
        told = self.cage.run(argv, within_s=self.within_s)
        return json.loads(told) if told.strip() else {}

    def link(self, one: Home, other: Home, *, hub: bool = False, other_gets: bool = True) -> None:
        """Both list and dial each other; with ``hub`` the first one passes on what others write. The other one gets
        nothing unless ``other_gets``."""
        for here, there in ((one, other), (other, one)):
            until(partial(self._knows, here, there), self.within_s, f"{here.name} to know {there.name}", 0.1)
            rights = ["--replicate", "--data"] if here is other or other_gets else ["--no-replicate"]
            rights += ["--hub"] if hub and here is one and other_gets else []
            self.tell(here, "partner", "set", there.name, *rights, "--address", there.address)

    def _knows(self, home: Home, other: Home) -> bool:
        return other.name in {row["name"] for row in home.ask("node_list")["nodes"]}

    def share(self, home: Home, *words: str) -> None:
        """Make the tree of this node a home's."""
        self.tell(home, "fileset", "add", FILESET, home.tree, *words)

    def accept(self, home: Home) -> None:
        """Follow the mirror here."""
        until(lambda: self._is_offered(home), self.within_s, f"an offer at {home.name}", 0.1)
        self.tell(home, "fileset", "accept", FILESET, home.tree)

    def _is_offered(self, home: Home) -> bool:
        return FILESET in json.dumps(home.ask("fileset_list"))

    def switches(self, home: Home) -> int:
        """How many switches replaced or removed files here."""
        items = self.tell(home, "archive", "list", FILESET)["items"]
        return len({item["generation"] for item in items})

    def await_lines(self, where: Home, names: list[str]) -> None:
        """Wait until the node holds these lines as they are at their homes; of one that ended, its newest head."""

        def stand() -> bool | str:
            lines = where.lines()
            for name in names:
                found, home = lines.get(name), self.homes[name]
                if found is None or found.get("live") is None:
                    return f"{name} is not live at {where.name}"
                newest = found["head"] if home.process is None else home.lines()[name]["head"]
                if newest is None or found["live"]["id"] != newest["id"]:
                    return f"{name} at {where.name}: {found['standing']}, {found['reason']}"
                if home.process is not None and found["standing"] != "in_step":
                    return f"{name} at {where.name}: {found['standing']}, {found['reason']}"
            return True

        until(stand, self.within_s, "lines in step", 0.05)

    def wait(self, *homes: Home) -> None:
        """``instep wait`` at each at once: all that was written before is published, and live at every partner."""
        with ThreadPoolExecutor(len(homes)) as hands:
            waiting = [
                hands.submit(home.ask, "wait", fileset=FILESET, timeout_s=self.within_s) for home in homes
            ]
            for home, answer in zip(homes, waiting, strict=True):
                if not answer.result()["reached"]:
                    raise DeadlinePassed(f"{home.name}: {answer.result()['waiting_for']}")

    def require_equal(self, *homes: Home) -> None:
        """The trees are equal byte for byte, in the end."""
        first, *others = homes

        def are_equal() -> bool | str:
            verdicts = [compare(first.tree, other.tree) for other in others]
            return next(
                (f"{len(each.wrong)} paths, {each.wrong[0]}" for each in verdicts if each.wrong), True
            )

        until(are_equal, self.within_s, "equal trees", 0.2)
