"""A node directory with a table [backup], and an application that writes files and rows which name them."""

from __future__ import annotations

import asyncio
import random
import threading
from pathlib import Path

import asyncpg

from instep.node.directory import NodeDirectory
from tests.support.postgres import PostgresServer

QUERY = "SELECT path FROM document"


def make_node(at: Path, root: Path, *, dsn: str = "", more: str = "") -> NodeDirectory:
    node = NodeDirectory(at / "node")
    node.create()
    root.mkdir(exist_ok=True)
    lines = [
        'name = "main"', "[filesets.appdata]", f'path = "{root}"', 'writer = "main"', 'ignore = ["*.log", "logs/"]',
        "[backup]", f'to = "{at / "backups"}"', 'filesets = ["appdata"]', more,
    ]  # fmt: skip
    if dsn:
        address = at / "address"
        address.touch(0o600)
        address.write_text(dsn + "\n")
        lines += [f'references = {{ appdata = "{QUERY}" }}', f'database = {{ pg_dump = "{address}" }}']
    node.config.write_text("\n".join(lines) + "\n")
    return node


class BusyApplication:
    """Writes a file, then its row; removes a row, then its file; fifty of both in a second."""

    def __init__(self, root: Path, dsn: str) -> None:
        self._root, self._dsn = root, dsn
        self._over = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()))
        self.turns = 0

    def __enter__(self) -> BusyApplication:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    async def _run(self) -> None:
        connection = await asyncpg.connect(self._dsn)
        chance, known = random.Random(5), [str(row[0]) for row in await connection.fetch(QUERY)]
        try:
            while not await asyncio.to_thread(self._over.wait, 0.02):
                self.turns += 1
                name = f"d{self.turns % 7}/f{self.turns}-{chance.random():.8f}"
                (self._root / name).parent.mkdir(exist_ok=True)
                (self._root / name).write_bytes(name.encode() * chance.randrange(1, 2000))
                await connection.execute("INSERT INTO document VALUES ($1)", name)
                known.append(name)
                if len(known) > 40:
                    gone = known.pop(chance.randrange(len(known)))
                    await connection.execute("DELETE FROM document WHERE path = $1", gone)
                    (self._root / gone).unlink()
        finally:
            await connection.close()


def make_database(server: PostgresServer, name: str) -> str:
    server.ask(f"CREATE DATABASE {name}")
    server.ask("CREATE TABLE document (path text PRIMARY KEY)", name)
    return server.dsn(name)
