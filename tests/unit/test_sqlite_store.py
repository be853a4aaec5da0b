"""Faults that only a file can suffer: loss, rot, a full disk's cousin, a kill, a newer version, a second process."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import apsw
import pytest

from instep.errors import DamagedError, InstepError, RefusedError, ResourceError, UnavailableError
from instep.model.ids import Digest, FilesetName, LineId, NodeName
from instep.model.statrow import StatRow
from instep.store import database, stat_table
from instep.store.sqlite import SqliteStore

LINE = LineId(FilesetName("catalog"), NodeName("main"))


def code_of(error: pytest.ExceptionInfo[InstepError]) -> str:
    return error.value.error_code


def test_what_was_written_is_there_after_reopening_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.save_line(LINE, b"state")
    assert {file.stat().st_mode & 0o777 for file in tmp_path.iterdir()} == {0o600}
    store.close()
    again = SqliteStore(path)
    assert again.load_line(LINE) == b"state"
    again.close()


def test_another_store_on_the_same_file_sees_the_writes(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")
    other = SqliteStore(tmp_path / "state.db", is_checked=True)
    store.put("k", b"v")
    assert other.get("k") == b"v"
    reader = SqliteStore(tmp_path / "state.db", read_only=True)
    assert reader.get("k") == b"v"
    with pytest.raises(ResourceError) as caught:
        reader.put("k", b"w")
    assert code_of(caught) == "state_not_writable"
    for one in (store, other, reader):
        one.close()


WRITER = """
import sys
from pathlib import Path
from instep.model.ids import Digest, FilesetName, LineId, NodeName
from instep.store.sqlite import SqliteStore
store = SqliteStore(Path(sys.argv[1]))
line = LineId(FilesetName("catalog"), NodeName("main"))
number = 0
while True:
    number += 1
    with store.transaction():
        store.put_pages([(Digest(b"%032d" % number), b"page" * 100)])
        store.put("newest page", b"%032d" % number)
    store.save_line(line, b"%d" % number)
    print(number, flush=True)
"""


def test_a_kill_loses_nothing_that_was_acknowledged(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, env=env
    ) as child:
        assert child.stdout is not None
        for _ in range(20):
            told = int(child.stdout.readline())
        child.send_signal(signal.SIGKILL)
        told = max([told, *map(int, child.stdout.read().split())])
    store = SqliteStore(path)
    state = store.load_line(LINE)
    newest = store.get("newest page")
    assert state is not None
    assert newest is not None
    assert int(state) >= told
    assert int(newest) in (int(state), int(state) + 1)
    assert store.get_page(Digest(newest)) is not None
    store.close()


def test_damage_is_named_at_start_and_the_file_can_be_set_aside(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.put_pages((Digest(b"%032d" % n), os.urandom(2000)) for n in range(300))
    store.close()
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xa5" * 20_000)
    with pytest.raises(DamagedError) as caught:
        SqliteStore(path)
    assert code_of(caught) == "state_damaged"
    aside = database.set_aside(path)
    assert aside.stat().st_size == size
    assert not path.exists()
    SqliteStore(path).close()


def test_a_file_of_something_else_is_damage_not_a_crash(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"certainly not a database" * 100)
    with pytest.raises(DamagedError) as caught:
        SqliteStore(path)
    assert code_of(caught) == "state_damaged"


def test_a_removed_file_is_noticed_by_the_next_durable_write(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = SqliteStore(path)
    store.check()
    for file in tmp_path.iterdir():
        file.unlink()
    with pytest.raises(DamagedError) as caught:
        store.save_line(LINE, b"state")
    assert code_of(caught) == "state_lost"
    store.close()
    SqliteStore(path).close()


def test_a_newer_form_is_refused_and_an_older_one_is_not_read_only(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    SqliteStore(path).close()
    connection = apsw.Connection(str(path))
    connection.execute("PRAGMA user_version = 999")
    with pytest.raises(RefusedError) as refused:
        SqliteStore(path)
    assert code_of(refused) == "state_newer"
    connection.execute("PRAGMA user_version = 0")
    connection.close()
    with pytest.raises(UnavailableError) as older:
        SqliteStore(path, read_only=True)
    assert code_of(older) == "state_older"


def test_a_migration_that_fails_leaves_the_old_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state.db"
    SqliteStore(path).close()
    good = database._migrations("migrations")
    bad = (len(good) + 1, "CREATE TABLE half (a); CREATE TABLE line (a);")
    monkeypatch.setattr(database, "_migrations", lambda _: [*good, bad])
    with pytest.raises(apsw.SQLError):
        SqliteStore(path)
    monkeypatch.undo()
    store = SqliteStore(path)
    store.put("k", b"v")
    store.close()


def test_a_write_waits_for_another_connection_and_then_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database, "BUSY_MS", 20)
    store = SqliteStore(tmp_path / "state.db")
    other = SqliteStore(tmp_path / "state.db", is_checked=True)
    with other.transaction(), pytest.raises(UnavailableError) as caught:
        store.put("k", b"v")
    assert code_of(caught) == "state_busy"
    store.put("k", b"v")
    store.close()
    other.close()


def test_threads_may_share_one_store(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "state.db")

    def write(name: str) -> None:
        for n in range(50):
            with store.transaction(durable=False):
                store.put(f"{name} {n}", b"1")
                store.put(f"{name} {n}", b"2")

    threads = [threading.Thread(target=write, args=(f"thread {n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert all(store.get(f"thread {t} {n}") == b"2" for t in range(4) for n in range(50))
    store.close()


def test_durable_transactions_sync_fully_and_caches_do_not(tmp_path: Path) -> None:
    store = database.Database(tmp_path / "state.db")

    def synchronous() -> object:
        return store.connection.execute("PRAGMA synchronous").get

    with store.write(durable=False):
        assert synchronous() == 1
        with store.write(durable=True):
            pass
    barrier = store.connection.execute("SELECT value FROM counter WHERE name = 'barrier'").get
    assert barrier == 1  # the durable part inside made the whole durable
    with store.write(durable=True):
        assert synchronous() == 2
    assert synchronous() == 1
    store.close()


def test_a_full_disk_undoes_the_change_and_the_next_one_works(tmp_path: Path) -> None:
    state = database.Database(tmp_path / "node.db")
    store = SqliteStore(tmp_path / "node.db", is_checked=True)
    assert store.get("key") is None
    pages = state.connection.execute("PRAGMA page_count").get
    state.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ResourceError) as caught, state.write(durable=True) as connection:
        connection.execute("INSERT INTO blob VALUES (?, ?)", (b"small", b"x"))
        connection.execute("INSERT INTO blob VALUES (?, ?)", (b"large", bytes(1 << 20)))
    assert caught.value.error_code == "store_full"
    assert caught.value.facts["need_bytes"]
    assert str(tmp_path) in caught.value.reason
    # A part that fails and is taken for passing cannot make the rest look kept.
    with (
        pytest.raises(ResourceError),
        state.write(durable=True),
        contextlib.suppress(ResourceError),
        state.write(durable=True) as inner,
    ):
        inner.execute("INSERT INTO blob VALUES (?, ?)", (b"large", bytes(1 << 20)))
    state.connection.execute("PRAGMA max_page_count = 100000")
    with state.write(durable=True) as connection:
        connection.execute("INSERT INTO blob VALUES (?, ?)", (b"after", b"y"))
    assert [row[0] for row in state.connection.execute("SELECT digest FROM blob")] == [b"after"]


def test_the_rows_of_a_path_go_without_a_look_at_all_others() -> None:
    connection = apsw.Connection(":memory:")
    connection.execute((Path(stat_table.__file__).parent / "migrations" / "0001_begin.sql").read_text())
    fileset, many = FilesetName("catalog"), 3_000
    stat_table.write(
        connection,
        fileset,
        [StatRow(b"f%05d" % number, number, 1, 0, 0, 0, b"", b"", 0) for number in range(many)],
    )
    steps: list[int] = []
    connection.trace_v2(
        apsw.SQLITE_TRACE_PROFILE,
        lambda seen: steps.append(seen["stmt_status"]["SQLITE_STMTSTATUS_VM_STEP"]),
    )
    stat_table.delete_trees(connection, fileset, [b"f01500"])
    connection.trace_v2(0, None)
    assert sum(steps) < many
    assert stat_table.read_one(connection, fileset, b"f01500") is None
