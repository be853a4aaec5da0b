"""``demo``: a cluster of real daemons on loopback, made with the public commands only.

Every step is printed as it would be typed. The demo checks its own claims: after each publish it compares
the trees byte for byte, and it fails when they differ.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from instep.cli.control import error_from_json
from instep.cli.output import printable, say
from instep.cli.session import Session, command
from instep.errors import DamagedError, UnavailableError
from instep.model.counts import counted

COMMAND_S = 60.0
FILESET = "catalog"


@dataclass(frozen=True, slots=True)
class DemoNode:
    """One node of the demonstration: its node directory, its data and its port."""

    name: str
    directory: Path
    data: Path
    port: int

    @property
    def listen(self) -> str:
        return f"127.0.0.1:{self.port}"


@command("demo", example="instep demo --nodes 3 --once")
@click.option("--nodes", type=click.IntRange(2, 9), default=3, show_default=True, help="How many daemons.")
@click.option("--once", is_flag=True, help="Prove it, clean up and exit 0.")
@click.option(
    "--keep", is_flag=True, help="Stop the daemons at the end, but leave their directories and logs."
)
def demo(session: Session, nodes: int, once: bool, keep: bool) -> None:
    """Show a cluster at work: real daemons on loopback, mutual TLS, one directory kept in step."""
    top = Path(tempfile.mkdtemp(prefix="instep-demo-"))
    stage = DemoStage(top, nodes, session.is_json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        report = stage.play()
        if once:
            session.show({"ok": True, "directory": None, **report}, "all of it holds; cleaned up")
            return
        session.show({"ok": True, "directory": str(top), **report}, stage.map_lines())
        sys.stdout.flush()
        with contextlib.suppress(KeyboardInterrupt):
            signal.pause()
    finally:
        stage.close(is_kept=keep)


class DemoStage:
    """Makes the nodes, shows what they do, and takes all of it away again."""

    def __init__(self, top: Path, count: int, is_quiet: bool) -> None:
        self.top = top
        self._is_quiet = is_quiet
        names = ["main", *(f"s{index}" for index in range(1, count))]
        self.nodes = [
            DemoNode(name, top / name / "node", top / name / FILESET, port)
            for name, port in zip(names, _free_ports(count), strict=True)
        ]

    @property
    def main(self) -> DemoNode:
        return self.nodes[0]

    def play(self) -> dict[str, Any]:
        """The whole demonstration; returns its measurements. Raises when anything is not as promised."""
        self.tell(
            "1. A writer: one node with its own certificate authority, and a directory to keep in step."
        )
        _write_sample(self.main.data)
        self.run(self.main, "init", self.main.name, "--listen", self.main.listen, "--start")
        self.run(self.main, "fileset", "add", FILESET, str(self.main.data))
        self.tell(
            "2. Followers: a one-time token each; join makes keys, gets a certificate, accepts, starts."
        )
        for node in self.nodes[1:]:
            node.data.mkdir(parents=True)
            token = self.run(self.main, "invite", node.name, "--from", "127.0.0.1")["tokens"][0]["token"]
            accept = f"{FILESET}={node.data}"
            self.run(node, "join", "-", "--listen", node.listen, "--accept", accept, "--start", feed=token)
        self.tell("3. The data arrives everywhere, verified before it becomes visible.")
        first_s = self.await_all("first copy")
        self.tell("4. A change at the writer: one file edited, one added, one renamed, one removed.")
        _change_sample(self.main.data)
        change_s = self.await_all("change")
        self.tell("5. Every byte on every node is read again and compared with the signed manifest.")
        self.run(self.main, "verify", FILESET, "--fleet", "--deep")
        return {
            "nodes": [
                {"name": n.name, "directory": str(n.directory), "data": str(n.data), "listen": n.listen}
                for n in self.nodes
            ],
            "first_copy_ms": round(first_s * 1000),
            "change_ms": round(change_s * 1000),
        }  # fmt: skip

    def await_all(self, what: str) -> float:
        """Wait until all are in step, then compare the trees; seconds until then."""
        begin = time.monotonic()
        found = self.run(self.main, "wait", FILESET, "--timeout", "30s")
        took = time.monotonic() - begin
        wanted = _digest_tree(self.main.data)
        for node in self.nodes[1:]:
            if _digest_tree(node.data) != wanted:
                raise DamagedError(
                    f"{node.data} differs from {self.main.data} after the {what}", code="demo_differs"
                )
        number = (found.get("generation") or {}).get("number")
        self.tell(
            f"   {what}: generation {number} on {counted(len(self.nodes), 'node')} after {took * 1000:.0f} ms, "
            f"{counted(len(wanted), 'path')} equal"
        )
        return took

    def run(self, node: DemoNode, *words: str, feed: str | None = None) -> dict[str, Any]:
        """One public command on one node, as an operator would type it; its JSON result."""
        self.tell(f"   $ instep --dir {node.directory} {' '.join(words)}")
        try:
            done = subprocess.run(
                [sys.executable, "-m", "instep.cli", "--dir", str(node.directory), *words, "--json"],
                input=feed, capture_output=True, text=True, timeout=COMMAND_S, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise UnavailableError(
                f"instep {words[0]} took longer than {COMMAND_S:g} s", code="timeout"
            ) from error
        try:
            document = json.loads(done.stdout)
        except ValueError:
            document = {"error": {"exit_code": 1, "reason": f"instep {words[0]}: {done.stderr.strip()}"}}
        if "error" in document:
            raise error_from_json(document["error"])
        if done.returncode:
            raise UnavailableError(
                f"instep {' '.join(words)} ended with {done.returncode}: {done.stdout.strip()}"
            )
        found: dict[str, Any] = document
        return found

    def tell(self, text: str) -> None:
        if not self._is_quiet:
            print(printable(text), flush=True)

    def map_lines(self) -> Iterator[str]:
        yield "\nThe cluster is up. Change something and look:"
        for node in self.nodes:
            role = "written here" if node is self.main else "follows"
            yield f"  {node.name:5} {node.data}   ({role}; instep --dir {node.directory} status)"
        look = f"instep --dir {self.main.directory} status --watch"
        yield f"  try:  echo hello > {self.main.data}/hello.txt; {look}"
        yield f"Ctrl-C stops the daemons and removes everything below {self.top}"

    def close(self, *, is_kept: bool) -> None:
        """Stop every daemon that runs and remove the directory, unless it is kept for a look."""
        for node in reversed(self.nodes):
            if (node.directory / "control.sock").exists():
                subprocess.run(
                    [sys.executable, "-m", "instep.cli", "--dir", str(node.directory), "stop"],
                    capture_output=True, timeout=COMMAND_S, check=False,
                )  # fmt: skip
        if is_kept:
            say(f"everything is left in {self.top}")
            return
        try:
            shutil.rmtree(self.top)
        except OSError as error:
            say(f"instep: {self.top} could not be removed: {error.strerror}")


def _free_ports(count: int) -> Iterator[int]:
    """Free ports; held open together, so that they differ."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            probe = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_STREAM))
            probe.bind(("127.0.0.1", 0))
            ports.append(int(probe.getsockname()[1]))
    return iter(ports)


def _write_sample(root: Path) -> None:
    """A small data directory as a map server has it."""
    for folder in ("styles", "workspaces/roads", "workspaces/rivers", "empty"):
        (root / folder).mkdir(parents=True)
    (root / "global.xml").write_text("<global><updateSequence>1</updateSequence></global>\n")
    for index in range(120):
        style = f'<StyledLayerDescriptor version="1.0.0"><Name>style {index}</Name></StyledLayerDescriptor>\n'
        (root / "styles" / f"style-{index:03}.sld").write_text(style)
    (root / "workspaces/roads/layer.xml").write_text("<layer><name>roads</name></layer>\n")
    (root / "workspaces/rivers/layer.xml").write_text("<layer><name>rivers</name></layer>\n")
    (root / "workspaces/rivers/depths.bin").write_bytes(bytes(range(256)) * 4096)
    (root / "current-style").symlink_to("styles/style-000.sld")


def _change_sample(root: Path) -> None:
    (root / "global.xml").write_text("<global><updateSequence>2</updateSequence></global>\n")
    (root / "styles/new.sld").write_text("<StyledLayerDescriptor/>\n")
    (root / "styles/style-001.sld").rename(root / "styles/renamed.sld")
    (root / "styles/style-002.sld").unlink()


def _digest_tree(root: Path) -> dict[str, tuple[int, bytes]]:
    """Every path with its mode and contents, instep's own folder left out."""
    found: dict[str, tuple[int, bytes]] = {}
    for folder, folders, files in os.walk(root):
        folders[:] = [name for name in folders if not name.startswith(".instep")]
        for name in (*folders, *files):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            data = (
                os.readlink(path).encode()
                if path.is_symlink()
                else path.read_bytes()
                if path.is_file()
                else b""
            )
            found[str(path.relative_to(root))] = (mode, data)
    return found
