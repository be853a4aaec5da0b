"""instep itself, driven through its command line only: two or more daemons on loopback, mutual TLS, defaults."""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from bench.peers.base import Can, Landed, Peer, Session, Setting, first_line
from bench.waiting import until

__all__ = ["Before", "Instep"]

_FILESET = "bench"
_FIRST_PORT = 20443


def _command() -> Path | None:
    """The command of this checkout's environment; ``INSTEP_BENCH_COMMAND`` names another one."""
    named = os.environ.get("INSTEP_BENCH_COMMAND")
    found = Path(named) if named else Path(sys.executable).with_name("instep")
    return found if found.exists() else None


class _Publishing(Session):
    """Manual publishing where a step says when to begin, automatic where a row watches.

    A step's clock runs from the start of ``instep publish --wait`` until it returns: interpreter start, full scan
    and hashing at the writer, manifest, signature, transfer, verification, staging, syncs, journal, switch, and
    the partners' reports that they are in step.
    """

    adopts = False

    def __init__(self, setting: Setting, command: Path) -> None:
        super().__init__(setting)
        self._instep = command

    def prepare(self) -> None:
        self._home = self.field.left / "state" / "node"
        self._homes = [self._home, *(right / "state" / "node" for right in self.field.rights)]
        self._processes: list[subprocess.Popen[bytes]] = []
        self._tell(self._home, "init", "main", *self._listen(0))
        self._serve(self._home, "main")
        is_watching = self.setting.settle is not None
        how = ["--publish", "auto" if is_watching else "manual"]
        if self.setting.settle not in (None, "default"):
            how += ["--settle", str(self.setting.settle)]
        self._tell(self._home, "fileset", "add", _FILESET, self.source, *how)
        for number, (home, target) in enumerate(zip(self._homes[1:], self.targets, strict=True), 1):
            self._join(home, number, "--accept", f"{_FILESET}={target}")
        partners = ",".join(f"s{number}" for number in range(1, len(self._homes)))
        self._tell(self._home, "fileset", "set", _FILESET, f"offers_from={partners}")
        if not is_watching:
            self._publish()
            self._wait()  # a writer that publishes by itself does not publish an empty tree: nothing to wait for yet

    def _join(self, home: Path, number: int, *words: str) -> None:
        name = f"s{number}"
        token = self._tell(self._home, "invite", name, "--from", "127.0.0.1", as_json=False).split()[-1]
        secret = self.setting.scratch / f"{name}.token"
        secret.touch(mode=0o600)
        secret.write_text(token + "\n")
        self._tell(home, "join", "--token-file", secret, *words, *self._listen(number))
        self._serve(home, name)

    def first(self) -> None:
        if self.setting.settle is None:
            self._publish()
        else:
            self._wait()

    def change(self, landed: Landed) -> None:
        self.first()

    def adopt(self) -> None:
        self.first()

    def cut_off(self) -> None:
        """The first partner's daemon ends; it was in step."""
        self._wait()
        partner = self._processes[1]
        partner.terminate()
        self.cage.finish(partner, self.within_s)

    def noticed(self) -> None:
        self._tell(self._home, "publish", _FILESET, "--accept-deletions", *self._patience())

    def catch_up(self) -> None:
        self._serve(self._homes[1], "s1")
        self._wait()

    def locked_edit(self, path: str, body: bytes) -> None:
        """The release submits, and returns when the home has made the change."""
        at = self._homes[1]
        self._tell(at, "lock", "acquire", _FILESET, path)
        file = self.targets[0] / path
        file.write_bytes(body)
        self._tell(at, "lock", "release", _FILESET, path)

    def unchanged(self) -> None:
        self._tell(self._home, "verify", _FILESET, "--fleet", *self._patience())

    def facts(self) -> dict[str, float]:
        """When the head was published (wall clock), for the row that separates publishing from arriving."""
        line = self._tell(self._home, "status", _FILESET)["filesets"][0]["lines"][0]
        at = datetime.datetime.fromisoformat(line["head"]["published_at"])
        return {"published_at": at.timestamp()}

    def _publish(self) -> None:
        told = self._tell(self._home, "publish", _FILESET, "--wait", "--accept-deletions", *self._patience())
        assert "generation" in told, told

    def _wait(self) -> None:
        told = self._tell(self._home, "wait", _FILESET, *self._patience())
        assert told["reached"], told

    def _patience(self) -> list[str]:
        return ["--timeout", f"{int(self.within_s)}s"]

    def _listen(self, number: int) -> list[str]:
        return ["--listen", f"127.0.0.1:{_FIRST_PORT + number}", "--panel", "off"]

    def _serve(self, home: Path, name: str) -> None:
        """In the foreground, so that it belongs to the cage also where systemd runs."""
        process = self.cage.start([self._instep, "serve", "--dir", home], log=f"instep-{name}")

        def answers() -> bool:
            if process.poll() is not None:
                raise RuntimeError(f"instep serve ended: see {self.cage.log_path(f'instep-{name}')}")
            return (home / "control.sock").is_socket()

        until(answers, 30, f"control socket of {name}", 0.02)
        self._processes.append(process)

    def _tell(self, home: Path, *words: str | Path, as_json: bool = True) -> Any:
        argv = [self._instep, *words, "--dir", home, *(["--json"] if as_json else [])]
        told = self.cage.run(argv, within_s=self.within_s + 10)
        return json.loads(told) if as_json and told.strip() else told


class _Syncing(_Publishing):
    """A sync profile of two homes that publish by themselves. Its clock runs from the start of ``instep sync run`` until
    it returns: interpreter start, the publish of what was saved on both sides, the plan, transfer, compare and set in
    both trees, the publish of the outcome, and the base."""

    adopts = True
    watches = True

    def prepare(self) -> None:
        self._processes = []
        right = self.field.rights[0] / "state" / "node"
        self._home = self.field.left / "state" / "node"
        self._tell(self._home, "init", "main", *self._listen(0))
        self._serve(self._home, "main")
        self._join(right, 1)
        self._right = right

    def adopt(self) -> None:
        for home, tree in ((self._home, self.source), (self._right, self.targets[0])):
            self._tell(home, "fileset", "add", _FILESET, tree, "--to", "nobody-else")
        self._tell(self._right, "fileset", "set", _FILESET, "offers_from=main")
        self._tell(self._right, "partner", "set", "main", "--replicate", "--data")
        self._tell(self._home, "partner", "set", "s1", "--address", f"127.0.0.1:{_FIRST_PORT + 1}")
        sides = ("--left", f"{_FILESET}@main", "--right", f"{_FILESET}@s1")
        self._tell(self._home, "sync", "add", "both", *sides)
        self._tell(self._home, "sync", "run", "both", "--initial", "left", *self._patience())

    def both(self) -> None:
        self._tell(self._home, "sync", "run", "both", "--ok-set-aside", *self._patience())


class Instep(Peer):
    name, title, needs = "instep", "instep", ()
    can = frozenset(Can)
    clock = (
        "`instep publish --wait`, from start to exit: full scan and hashing at the writer, transfer over mutual TLS, "
        "verification of every byte, staging, syncs, journal, switch, and every partner's report; nothing changed: "
        "`instep verify --fleet`, a full stat scan of both sides; two-way: `instep sync run`, with the publish of what was "
        "saved on both sides and of the outcome"
    )

    def __init__(self, command: Path | None = None) -> None:
        self._command = command or _command()

    def missing(self) -> str | None:
        return None if self._command else f"no instep command beside {sys.executable}"

    def version(self) -> str:
        return first_line(str(self._present()), "--version")

    def open(self, setting: Setting) -> Session:
        kind = _Syncing if setting.is_two_way else _Publishing
        return kind(setting, self._present())

    def _present(self) -> Path:
        if self._command is None:
            raise LookupError(self.missing())
        return self._command


class Before(Instep):
    """Another version of instep, beside the one of this checkout."""

    name, title = "before", "instep before"
