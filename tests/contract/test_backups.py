"""Backups of files and a real PostgreSQL database: every file that a row names is there, and a restore keeps the replaced ones."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from instep.cli.main import run
from instep.node.directory import NodeDirectory
from instep.store.cluster.address import SqliteAddress
from instep.store.cluster.eras import current_era
from instep.store.cluster.leases import Granted, lease_rows, take_lease
from instep.store.cluster.opening import open_cluster_store
from instep.tree.root import failpoints
from tests.support.backups import BusyApplication, make_database, make_node
from tests.support.killed_moves import listing
from tests.support.postgres import PostgresServer, missing_postgres, postgres_server

ROUNDS = int(os.environ.get("BACKUP_ROUNDS", "3"))
WITH_POSTGRES = pytest.mark.skipif(bool(missing_postgres()), reason=missing_postgres())


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as found:
        yield found


@pytest.fixture
def at() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as base:
        yield Path(base)


@pytest.fixture
def call(at: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("INSTEP_DIR", str(at / "node"))

    def called(*words: object) -> tuple[int, dict[str, Any]]:
        code = run(["backup", *map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return called


def files_below(root: Path) -> dict[str, list[object]]:
    return {name: what for name, what in listing(root).items() if not name.startswith(".instep")}


@WITH_POSTGRES
def test_every_file_that_a_row_names_is_there_or_named(at: Path, call: Any, server: PostgresServer) -> None:
    root = at / "appdata"
    dsn = make_database(server, "busy")
    make_node(at, root, dsn=dsn, more=f"keep_last = {max(2, ROUNDS - 1)}")
    with BusyApplication(root, dsn) as application:
        for _ in range(ROUNDS):
            code, made = call("create")
            assert code == 0 and made["files"] >= 0, made
            assert (made["label"] == "fuzzy") == bool(made["in_doubt"])
            code, found = call("verify", made["id"])
            assert code == 0 and found["restored_database"], found
        code, refused = call("create", "--offline")
        assert (code, refused["error"]["code"]) == (4, "server_runs"), "the application is connected"
        assert application.turns > 20
    assert len(call("list")[1]["backups"]) == max(2, ROUNDS - 1), "older ones went"
    assert call("create", "--offline")[1]["label"] == "frozen"
    assert server.ask("SELECT count(*) FROM pg_database WHERE datname LIKE 'instep%'") == "0", (
        "no scratch is left"
    )


@WITH_POSTGRES
def test_a_restore_replaces_keeps_what_was_and_ends_what_was_granted(
    at: Path, call: Any, server: PostgresServer
) -> None:
    root = at / "appdata"
    dsn = make_database(server, "restored")
    node = make_node(at, root, dsn=dsn)
    (root / "docs").mkdir(parents=True)
    (root / "docs/one").write_bytes(b"1")
    (root / "now.log").write_bytes(b"ignored")
    server.ask("INSERT INTO document VALUES ('docs/one')", "restored")
    before = {name: what for name, what in files_below(root).items() if name != "now.log"}
    made = call("create")[1]
    assert made["label"] == "bracketed" and made["files"] == 1
    (root / "docs/one").write_bytes(b"later")
    (root / "docs/two").write_bytes(b"2")
    server.ask("INSERT INTO document VALUES ('docs/two')", "restored")
    era, granted = asyncio.run(lease_of(node))
    blocked = asyncio.run(blocked_restore(dsn, call, made["id"]))
    assert (blocked["code"], blocked["exit_code"]) == ("server_runs", 4)
    assert (root / "docs/two").exists() and not list((root / ".instep-restore").glob("*"))
    with node.pid.open("w") as daemon:
        fcntl.flock(daemon, fcntl.LOCK_EX)
        assert call("restore", made["id"])[1]["error"]["code"] == "daemon_runs"
    code, found = call("restore", made["id"])
    assert code == 0, found
    assert files_below(root) == {**before, "now.log": files_below(root)["now.log"]}
    kept = Path(found["replaced"]["appdata"])
    assert (kept / "docs/two").read_bytes() == b"2" and (kept / "docs/one").read_bytes() == b"later"
    assert server.ask("SELECT string_agg(path, ',') FROM document", "restored") == "docs/one"
    assert server.ask("SELECT count(*) FROM document", found["database"]) == "2"
    assert found["era"] > era and granted
    assert asyncio.run(held_leases(node)) == []
    assert "SELECT" not in str(found) and not (node.state / "restoring").exists()


async def blocked_restore(dsn: str, call: Any, backup: str) -> Any:
    """The error of a restore while a program is connected to the database."""
    connection = await asyncpg.connect(dsn)
    try:
        return (await asyncio.to_thread(call, "restore", backup))[1]["error"]
    finally:
        await connection.close()


async def lease_of(node: NodeDirectory) -> tuple[int, bool]:
    store = await open_cluster_store(SqliteAddress(node.state / "cluster.db"))
    try:
        async with store.transaction() as transaction:
            era = await current_era(transaction)
            return era.era, isinstance(
                await take_lease(transaction, era, "nightly", "main", "s", 30_000), Granted
            )
    finally:
        await store.close()


async def held_leases(node: NodeDirectory) -> list[str]:
    store = await open_cluster_store(SqliteAddress(node.state / "cluster.db"))
    try:
        async with store.transaction() as transaction:
            return [row.name for row in await lease_rows(transaction) if row.is_held]
    finally:
        await store.close()


def killed(spec: str, *words: str) -> bool:
    pid = os.fork()
    if pid == 0:
        with contextlib.suppress(BaseException):
            failpoints.arm_from_text(spec)
            with open(os.devnull, "w") as nothing, contextlib.redirect_stdout(nothing):
                run(["backup", *words, "--json"])
        os._exit(0)
    _, status = os.waitpid(pid, 0)
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def test_killed_anywhere_no_half_backup_is_listed_and_a_restore_goes_on(at: Path, call: Any) -> None:
    root = at / "appdata"
    make_node(at, root)
    for name in ("a/b/c", "a/d", "e", "gone/later"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode() * 1000)
    whole = files_below(root)
    for spec in ("backup.captured:1", "backup.captured:5", "backup.written"):
        assert killed(spec, "create"), spec
        assert call("list")[1]["backups"] == []
    made = call("create")[1]
    assert sorted(os.listdir(at / "backups")) == [".lock", made["id"]], "parts of killed ones went"
    for spec in ("backup.laid:2", "backup.switched:1", "backup.switched:3", "backup.switched:5"):
        (root / "a/d").write_bytes(b"changed")
        (root / "new").write_bytes(b"new")
        assert killed(spec, "restore", made["id"]), spec
        code, found = call("restore", made["id"])
        assert code == 0, found
        assert files_below(root) == whole, spec
        kept = Path(found["replaced"]["appdata"])
        assert (kept / "a/d").read_bytes() == b"changed" and (kept / "new").read_bytes() == b"new", spec


def test_programs_of_ones_own_dump_and_load_and_a_missing_one_is_named(at: Path, call: Any) -> None:
    database, root = at / "database", at / "appdata"
    database.write_text("rows")
    load = f'["/bin/cp", "/dev/stdin", "{database}"]'
    words = f'database = {{ dump = ["/bin/cat", "{database}"], restore = {load} }}'
    node = make_node(at, root, more=words)
    (root / "one").write_bytes(b"1")
    made = call("create")[1]
    written = node.config.read_text()
    for wrong in (f'["{at / "nothing"}"]', '["/bin/false"]'):
        database.write_text("newer rows")
        (root / "one").write_bytes(b"2")
        node.config.write_text(written.replace(load, wrong))
        code, found = call("restore", made["id"])
        assert (code, found["error"]["code"]) == (7, "backup_program"), wrong
        assert "the files are restored, the database is not" in found["error"]["reason"]
        assert (root / "one").read_bytes() == b"1" and database.read_text() == "newer rows"
        node.config.write_text(written)
        assert call("restore", made["id"])[0] == 0, "the same command goes on"
        assert database.read_text() == "rows"


def test_bad_input_is_named_and_nothing_is_changed(at: Path, call: Any) -> None:
    root = at / "appdata"
    node = make_node(at, root)
    (root / "one").write_bytes(b"1")
    assert call("verify", "20200101T000000Z")[1]["error"]["code"] == "no_backup"
    failpoints.arm_from_text("backup.captured=enospc")
    try:
        code, found = call("create")
    finally:
        failpoints.disarm_all()
    assert (code, found["error"]["code"]) == (8, "disk_full")
    assert call("list")[1]["backups"] == []
    made = call("create")[1]
    assert call("restore", made["id"], "--to", root)[1]["error"]["code"] == "inside_a_fileset"
    (at / "full").mkdir()
    (at / "full/one").write_bytes(b"1")
    assert call("restore", made["id"], "--to", at / "full")[1]["error"]["code"] == "not_empty"
    code, found = call("restore", made["id"], "--to", at / "out")
    assert code == 0 and (at / "out/appdata/one").read_bytes() == b"1"
    before = files_below(root)
    (at / "backups" / made["id"] / "files/appdata/one").write_bytes(b"2")
    for words in (("verify",), ("restore",)):
        code, found = call(*words, made["id"])
        assert (code, found["error"]["code"]) == (10, "backup_damaged"), words
        assert files_below(root) == before
        assert not (node.state / "restoring").exists() and not list((root / ".instep-restore").glob("*"))
    node.config.write_text(node.config.read_text().replace(f'"{at / "backups"}"', f'"{root / "backups"}"'))
    assert call("list")[1]["error"]["facts"]["problems"][0]["why"] == "lies in the fileset appdata"
    node.config.write_text('name = "main"\n')
    assert call("list")[1]["error"]["code"] == "no_backup_settings"
