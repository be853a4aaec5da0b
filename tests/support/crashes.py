"""Daemons that a test kills and starts again quickly: spawned directly, asked over the control socket in-process,
and the checks that hold after any crash."""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from instep.cli.control import Control
from instep.errors import InstepError, UnavailableError
from instep.model.ids import Digest, LineId, fileset_name, node_name
from instep.store.sqlite import SqliteStore
from tests.support.commands import Forked, spawn_daemon
from tests.support.fleet import SOURCE, Fleet, Node
from tests.support.waiting import crowding, eventually

__all__ = ["Crasher", "Reader", "Tree", "assert_rested", "contents_below", "control_folder", "tables"]

Tree = dict[bytes, tuple[Any, ...]]
START_S = 60.0
LINE = LineId(fileset_name("data"), node_name("main"))
GENERATIONS_MAX = 10_000


@dataclass
class Crasher:
    """One node whose daemon this test spawns itself, so that its death is seen at once."""

    node: Node
    wrapper: tuple[str, ...] = ()
    """Words before the daemon's command line, such as ``setpriv``."""
    process: subprocess.Popen[bytes] | Forked | None = None
    numbers: dict[int, Digest] = field(default_factory=dict)
    """Every generation number ever seen here, and its id."""

    @property
    def control(self) -> Control:
        return Control(self.node.directory / "control.sock")

    def take_over(self) -> Crasher:
        """End the daemon that ``Fleet`` started; from now on it runs as ours."""
        if self.node.pid is not None:
            self.node.stop()
        return self

    def spawn(self, failpoint: str = "") -> None:
        """Start the daemon and do not wait."""
        assert self.process is None
        own = {"PYTHONPATH": SOURCE, "INSTEP_FAILPOINT": failpoint}
        environment = {**os.environ, **self.node.environment, **own}
        with (self.node.directory / "daemon.log").open("ab") as log:
            if self.wrapper:
                self.process = subprocess.Popen(
                    [*self.wrapper, sys.executable, "-m", "instep.daemon", str(self.node.directory)],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    env=environment,
                    cwd="/",
                )
            else:
                self.process = spawn_daemon(self.node.directory, environment, log)

    def start(self, failpoint: str = "") -> Crasher:
        """Start the daemon and wait until it answers."""
        self.spawn(failpoint)
        self.await_answer()
        return self

    def await_answer(self) -> None:
        def answers() -> bool:
            assert self.process is not None
            if self.process.poll() is not None:
                raise RuntimeError(
                    f"{self.node.name} ended with {self.process.returncode}\n{self.node.log(60)}"
                )
            return self.control.is_up()

        eventually(answers, START_S, lambda: f"{self.node.name} to answer\n{self.node.log()}")

    def await_end(self, timeout: float = 60.0) -> int:
        """Wait until the daemon has ended by itself; its exit code (negative: the signal)."""
        assert self.process is not None
        try:
            code = self.process.wait(timeout * crowding())
        except subprocess.TimeoutExpired as error:
            raise AssertionError(
                f"{self.node.name} did not end within {timeout:g} s\n{self.node.log(60)}"
            ) from error
        self.process = None
        return code

    def signal(self, number: signal.Signals) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait(60)
            self.process = None

    def stop(self) -> None:
        """SIGTERM, and a clean end."""
        self.signal(signal.SIGTERM)
        code = self.await_end()
        assert code == 0, f"{self.node.name} ended with {code}\n{self.node.log(60)}"

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """SIGSTOP for a while: nothing can come from this node."""
        self.signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    # Asking -------------------------------------------------------------------------------------------------

    def call(self, command: str, timeout_s: float = 60.0, **params: Any) -> dict[str, Any]:
        return self.control.call(command, {"fileset": "data", **params}, timeout_s=timeout_s)

    def line(self) -> dict[str, Any]:
        found: dict[str, Any] = self.call("status")["filesets"][0]["lines"][0]
        return found

    def publish(self, **params: Any) -> dict[str, Any]:
        """Publish; the generation."""
        found: dict[str, Any] = self.call("publish", **params)["generation"]
        return found

    def await_line(self, holds: Callable[[dict[str, Any]], object], timeout: float = 30.0) -> dict[str, Any]:
        """Wait until ``holds(line)``; the line."""
        last: dict[str, Any] = {}

        def asked() -> bool:
            try:
                found = self.line()
            except UnavailableError as error:
                last["error"] = error.reason
                return False
            last.clear()
            last.update(found)
            return bool(holds(last))

        eventually(asked, timeout, lambda: f"{self.node.name}: {last}\n{self.node.log(60)}")
        return last

    def await_recovered(self) -> None:
        """Wait until what a crash interrupted was looked at."""
        self.await_line(lambda line: line["code"] != "starting" and line.get("doing") != "recover")

    def await_in_step(self, number: int, timeout: float = 60.0) -> None:
        """Wait until that generation is live and the leftovers of a crash are cleared away: after a start the first
        comes from the saved facts, while the tree is still being compared."""

        def stands(line: dict[str, Any]) -> bool:
            is_live = line["live"] is not None and line["live"]["number"] >= number
            return is_live and line["standing"] == "in_step" and line.get("doing") != "recover"

        self.await_line(stands, timeout)

    def note_numbers(self) -> None:
        """Look at every generation that is in this node's state; no number may ever have had another id."""
        store = SqliteStore(self.node.directory / "state" / "node.db", read_only=True)
        try:
            known = [signed.ref() for signed in store.generations(LINE, GENERATIONS_MAX)]
        finally:
            store.close()
        for ref in known:
            noted = self.numbers.setdefault(ref.number, ref.id)
            assert noted == ref.id, f"{self.node.name}: number {ref.number} was used twice"


@contextlib.contextmanager
def crashers(fleet: Fleet, *names: str) -> Iterator[list[Crasher]]:
    """The named nodes' daemons, started anew as children of this process; all are killed at the end. They share
    their record of numbers."""
    numbers: dict[int, Digest] = {}
    made = [Crasher(fleet[name], numbers=numbers).take_over() for name in names]
    try:
        for each in made:
            each.spawn()
        for each in made:
            each.await_answer()
        yield made
    finally:
        for each in made:
            if each.process is not None:
                with contextlib.suppress(ProcessLookupError):
                    each.signal(signal.SIGCONT)
            each.kill()


# Checks -----------------------------------------------------------------------------------------------------


def control_folder(fleet: Fleet, name: str) -> Path:
    """Where staging, journal and archive of ``data`` lie on that node."""
    beside = fleet.base / name / ".instep-data"
    return beside if beside.exists() else fleet.tree(name) / ".instep"


def assert_rested(fleet: Fleet, name: str) -> None:
    """Nothing of an apply is left: no stage, no journal."""
    control = control_folder(fleet, name)
    stage = control / "stage"
    left = sorted(os.listdir(stage)) if stage.exists() else []
    assert left == [], f"{name} has stages left: {left}"
    assert not (control / "journal").exists(), f"{name} has a journal left"


def contents_below(*places: Path) -> set[bytes]:
    """The contents of every file below ``places``."""
    found: set[bytes] = set()
    for place in places:
        for directory, _, names in os.walk(place):
            for name in names:
                path = os.path.join(directory, name)
                if stat.S_ISREG(os.lstat(path).st_mode):
                    found.add(Path(path).read_bytes())
    return found


def assert_nothing_lost(fleet: Fleet, name: str, *trees: Tree) -> None:
    """Every content of ``trees`` is in the tree or the archive of that node (P5)."""
    have = _digests_below(fleet.tree(name), control_folder(fleet, name) / "archive")
    for tree in trees:
        for path, what in tree.items():
            assert what[0] != "file" or sha256(what[2]).digest() in have, (
                f"{name} lost the content of {path!r}: {what[2][:60]!r}"
            )


def _digests_below(*places: Path) -> set[bytes]:
    found: set[bytes] = set()
    for place in places:
        for directory, _, names in os.walk(place):
            for name in names:
                path = os.path.join(directory, name)
                about = os.lstat(path)
                if stat.S_ISREG(about.st_mode):
                    found.add(
                        _digest(path, about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)
                    )
    return found


@lru_cache(maxsize=50_000)
def _digest(path: str, *_about: int) -> bytes:
    """Of a file as it is; one that did not change since is not read again, for an archive only grows."""
    return sha256(Path(path).read_bytes()).digest()


def tables(node: Node, program: str) -> None:
    """Append TOML to a stopped node's configuration."""
    path = node.directory / "instep.toml"
    path.write_text(path.read_text() + "\n" + program)


def carried(tree: Tree, ignored: Callable[[bytes], bool]) -> Tree:
    """A tree without its ignored files, and without directories that only they keep there."""
    kept = {path: what for path, what in tree.items() if not ignored(path)}
    holders = {_parent(path) for path in tree if ignored(path)}
    for holder in sorted(holders, reverse=True):
        if not any(path.startswith(holder + b"/") for path in kept):
            kept.pop(holder, None)
        elif holder in kept:
            kept[holder] = kept[holder][:-1]  # its time is that of the ignored file's arrival
    return kept


def _parent(path: bytes) -> bytes:
    return path.rpartition(b"/")[0]


class Reader:
    """Reads files that every generation has, again and again, and records every one that was missing or not whole
    (P2). It rests as long as it reads, so that the nodes have the processor, too."""

    def __init__(self, paths: Iterable[Path], is_whole: Callable[[bytes], bool]) -> None:
        self._paths = list(paths)
        self._is_whole = is_whole
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._read, name="reader")
        self.reads = 0
        self.wrong: list[str] = []

    def __enter__(self) -> Reader:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join(60)
        assert self.wrong == [], self.wrong[:10]
        assert self.reads > len(self._paths), "the reader hardly read"

    def _read(self) -> None:
        lasted_s = 0.0
        while not self._ended.wait(lasted_s):
            begun = time.monotonic()
            for path in self._paths:
                try:
                    data = path.read_bytes()
                except OSError as error:
                    self.wrong.append(f"{path}: {error}")
                else:
                    if not self._is_whole(data):
                        self.wrong.append(f"{path}: {data[:40]!r}... of {len(data)}")
                self.reads += 1
                if self._ended.is_set() or len(self.wrong) > 10:
                    return
            lasted_s = time.monotonic() - begun


def told(call: Callable[[], object]) -> InstepError | None:
    """The error that a call ends with, None when it goes well."""
    try:
        call()
    except InstepError as error:
        return error
    return None
