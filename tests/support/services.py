"""Many nodes in one process for the services floor: real services, a store in memory, real trees, no sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instep.api.command import as_json, command_from
from instep.daemon.daemon import Daemon
from instep.errors import InstepError
from instep.model.ids import fileset_name, node_name
from instep.net.trust.pki import Pki
from instep.node.balance.fitness import Fitness
from instep.node.config.editing.edits import remove_fileset, set_fileset
from instep.node.config.filesets import FilesetSettings
from instep.node.config.loading import load
from instep.node.directory import NodeDirectory
from instep.node.node import Node
from instep.node.runtime.driver import wall_ms
from instep.node.trees.placing import forget_root
from instep.store.memory import MemoryStore
from instep.tree.root.marker import create_marker, read_marker
from tests.support.fleet import tree_of
from tests.support.memory_net import Calls, MemoryNet
from tests.support.virtual_time import reached

__all__ = ["ServiceNode", "Services", "services"]

LIFE_S = 90 * 86_400.0


class Speaker:
    """Takes the lines of progress and items that a command sends before its answer."""

    process = 0

    def __init__(self) -> None:
        self.items: list[dict[str, Any]] = []

    async def progress(
        self, what: str, done: int, total: int | None, unit: str, rate: float | None = None
    ) -> None:
        """Not looked at."""

    async def item(self, item: Any) -> None:
        self.items.append(as_json(item))


class ServiceNode:
    """One node: its directory, its settings as ``instep.toml``, its store, and while it runs its services."""

    def __init__(self, net: MemoryNet, base: Path, name: str, pki: Pki, number: int) -> None:
        self.name = node_name(name)
        self.tree = base / name / "tree"
        self.tree.mkdir(parents=True)
        self.directory = NodeDirectory(base / name / "node")
        self.address = f"127.0.0.1:{10_000 + number}"
        self.store = MemoryStore()
        self.top: list[str] = [f'name = "{name}"', f'listen = "{self.address}"', 'poll = "1s"']
        self.partners: dict[str, str] = {}
        self.fileset = ""
        self.tail = ""
        """Tables of ``instep.toml`` after the fileset's own."""
        self._net = net
        self._daemon: Daemon | None = None
        self._background: list[asyncio.Task[None]] = []
        self._handlers: dict[str, Any] = {}

    @property
    def daemon(self) -> Daemon:
        assert self._daemon is not None, f"{self.name} does not run"
        return self._daemon

    @property
    def node(self) -> Node:
        return self.daemon.node

    def writes(self, *keys: str) -> None:
        """Its fileset ``data`` is written here."""
        self.fileset = "\n".join(
            (f'[filesets.data]\npath = "{self.tree}"\nwriter = "{self.name}"', 'settle = "20ms"', *keys)
        )
        self._mark()

    def follows(self, writer: ServiceNode, *keys: str) -> None:
        """Its fileset ``data`` is followed here."""
        self.fileset = "\n".join((f'[filesets.data]\npath = "{self.tree}"\nwriter = "{writer.name}"', *keys))
        self._mark()

    def _mark(self) -> None:
        if read_marker(self.tree) is None:
            create_marker(self.tree, fileset_name("data"), self.name)

    def configure(self) -> None:
        """Write ``instep.toml``."""
        rows = [f"[partners.{name}]\n{row}" for name, row in self.partners.items()]
        self.directory.config.write_text("\n".join((*self.top, *rows, self.fileset, self.tail)) + "\n")

    async def reload(self) -> None:
        """Write ``instep.toml`` anew and have it taken."""
        self.configure()
        await self.call("reload_config")

    async def set(self, **keys: str) -> None:
        """Change settings of ``data`` in the file as it is, and have it taken, as ``fileset set`` does."""
        set_fileset(self.directory, "data", keys)
        await self.call("reload_config")

    async def forget(self) -> None:
        """Follow ``data`` no more, as ``fileset remove`` does."""
        remove_fileset(self.directory, "data")
        await self.call("reload_config")
        forget_root(fileset_name("data"), self.tree, self.name)

    async def accepts(self, mode: str | None = None, **params: Any) -> dict[str, Any]:
        """Follow ``data`` in its tree."""
        return await self.call("fileset_accept", name="data", path=str(self.tree), mode=mode, **params)

    def settings(self) -> FilesetSettings:
        """Those of ``data`` in the file, which commands edit too."""
        return load(self.directory.path).filesets[fileset_name("data")]

    def start(self) -> None:
        """Begin with the file as it is, or with the first one."""
        if not self.directory.holds_node:
            self.configure()
        node = Node(
            self.directory,
            load(self.directory.path),
            open_store=lambda _: self.store,
            dial=lambda name, address: Calls(self._net, self.name, name, address),
        )
        self._daemon = Daemon(node)
        self._handlers = {kind.command: (kind, call) for kind, call in self._daemon.commands().items()}
        self._net.serving[self.address] = (self.name, node.peers)
        self._background = self._daemon.begin()

    async def stop(self) -> None:
        if self._daemon is None:
            return
        self._net.serving.pop(self.address, None)
        await self._daemon.end(self._background)
        broken = [task.exception() for task in self._background if not task.cancelled() and task.exception()]
        self._daemon = None
        assert not broken, broken

    # The operator ---------------------------------------------------------------------------------------------

    async def call(self, command: str, **params: Any) -> dict[str, Any]:
        """The answer of a command's handler, with the JSON that the control socket would carry."""
        return await self.followed(command, Speaker(), **params)

    async def followed(self, command: str, speaker: Speaker, **params: Any) -> dict[str, Any]:
        """As ``call``; items and progress that come before the answer are in ``speaker``."""
        kind, handler = self._handlers[command]
        result = await handler(command_from(kind, params), speaker)
        answer: dict[str, Any] = json.loads(msgspec.json.encode(result))
        return answer

    async def refuses(self, code: str, command: str, **params: Any) -> InstepError:
        """The error that a command ends with."""
        with pytest.raises(InstepError) as caught:
            await self.call(command, **params)
        assert caught.value.error_code == code, caught.value.as_json()
        return caught.value

    async def publish(self, **params: Any) -> dict[str, Any]:
        return await self.call("publish", fileset="data", **params)

    async def log(self) -> dict[int, dict[str, Any]]:
        """The generations that it knows, the newest first, by number."""
        rows = (await self.call("log", fileset="data"))["generations"]
        return {row["number"]: row for row in rows}

    async def events(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.call("events"))["events"]
        return found

    async def archived(self, why: str | None = None) -> dict[str, dict[str, Any]]:
        """The archived objects by path, of one cause or of all."""
        items = (await self.call("archive_list", fileset="data"))["items"]
        return {item["path"]: item for item in items if why in (None, item["why"])}

    async def taken_out(self, path: str, to: Path, **params: Any) -> list[str]:
        """Take a path out of the archive into an empty directory; the contents of the files that came."""
        await self.call("archive_restore", fileset="data", path=path, to=str(to), **params)
        return [found.read_text() for found in sorted(to.rglob("*")) if found.is_file()]

    @property
    def control(self) -> Path:
        """The folder beside the tree with the history, the archive and the journal."""
        (found,) = self.tree.parent.glob(".instep-*")
        return found

    def write(self, files: Mapping[str, str]) -> None:
        for path, text in files.items():
            (self.tree / path).parent.mkdir(parents=True, exist_ok=True)
            (self.tree / path).write_text(text)

    async def status(self) -> dict[str, Any]:
        return await self.call("status")

    async def line(self) -> dict[str, Any]:
        """The only line of ``data`` as ``status`` shows it."""
        found: dict[str, Any] = (await self.status())["filesets"][0]["lines"][0]
        return found

    async def checked(self) -> frozenset[str]:
        """The names of the rows of its check."""
        return frozenset(row["name"] for row in (await self.call("check"))["checks"])

    async def fitness(self) -> Fitness:
        """Its answer to balancers."""
        return await self.daemon.listeners.fitness()

    async def head(self) -> int:
        """The number of the newest generation that it knows."""
        number: int = (await self.line())["head"]["number"]
        return number

    async def holds(self, path: str, text: str) -> None:
        """Wait until a file of its tree has this text."""

        async def is_so() -> bool:
            file = self.tree / path
            return file.is_file() and file.read_text() == text

        await reached(is_so, lambda: f"{text!r} in {path} of {self.name}")

    async def stands(self, *wanted: str, code: str | None = None) -> dict[str, Any]:
        """Wait until the line stands so; the line."""
        last: dict[str, Any] = {}

        async def is_so() -> bool:
            last.clear()
            last.update(await self.line())
            return last["standing"] in wanted and (code is None or last["code"] == code)

        await reached(is_so, lambda: f"{self.name} {wanted}: {last}")
        return last


class Services:
    """The nodes of one test."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.net = MemoryNet()
        self.nodes: dict[str, ServiceNode] = {}
        self.authority = Pki.create(base / "authority", "services", node_name("authority"), wall_ms())

    def __getitem__(self, name: str) -> ServiceNode:
        return self.nodes[name]

    def add(self, name: str, authority: Pki | None = None) -> ServiceNode:
        """A node that is not configured yet, of the cluster or of another one with this CA."""
        number = len(self.nodes)
        directory = NodeDirectory(self.base / name / "node")
        directory.create()
        made = self.nodes[name] = ServiceNode(
            self.net, self.base, name, _identity(authority or self.authority, name, directory.pki), number
        )
        return made

    def link(self, sender: str, receiver: str, *, hub: bool = False) -> None:
        """``receiver`` dials ``sender``, which lets it have everything."""
        one, other = self[sender], self[receiver]
        one.partners[receiver] = f"replicate = true\ndata = true\nhub = {str(hub).lower()}"
        other.partners[sender] = f'address = "{one.address}"'

    def make(self, partners: int = 2, *, writer: tuple[str, ...] = (), partner: tuple[str, ...] = ()) -> None:
        """``main`` writes, ``s1``, ``s2`` ... follow it; all run."""
        main = self.add("main")
        main.writes(*writer)
        for number in range(1, partners + 1):
            self.add(f"s{number}").follows(main, *partner)
            self.link("main", f"s{number}")
        for node in self.nodes.values():
            node.start()

    def cut(self, one: str, other: str) -> None:
        self.net.cut(node_name(one), node_name(other))

    def heal(self, one: str, other: str) -> None:
        self.net.heal(node_name(one), node_name(other))

    async def followed(self, *names: str) -> None:
        """Wait until the writer knows that these partners follow: before that no command waits for them."""

        async def are_known() -> bool:
            rows = (await self["main"].line())["partners"]
            return {row["name"] for row in rows if row["standing"] != "observing"} >= set(names)

        await reached(are_known, lambda: f"{names} follow")

    async def in_step(self, *names: str) -> None:
        """Publish, wait for all, and compare the trees byte for byte."""
        found = await self["main"].publish(wait=True)
        assert found["wait"]["reached"], found
        wanted = tree_of(self["main"].tree)
        for name in names:
            assert tree_of(self[name].tree) == wanted, name

    async def close(self) -> None:
        for node in self.nodes.values():
            await node.stop()
        await self.net.close()
        assert not self.net.broken, self.net.broken


@asynccontextmanager
async def services(base: Path) -> AsyncIterator[Services]:
    """An empty cluster, ended at the end of the block."""
    made = Services(base)
    try:
        yield made
    finally:
        await made.close()


def _identity(ca: Pki, name: str, directory: Path) -> Pki:
    """A node's keys and certificates, as a join makes them."""
    pki, named = Pki(directory), node_name(name)
    issued = ca.issue(named, *pki.requests(named), wall_ms(), life_s=LIFE_S)
    pki.install(named, ca.authorities_pem(), issued, ca.crl_pem())
    return pki
