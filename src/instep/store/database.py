"""One SQLite file: opened, checked, migrated, written in transactions; the library's errors become ours here.

WAL with ``synchronous=NORMAL`` for caches: a commit is atomic and ordered, and a power cut can take the last
ones. A durable transaction runs with ``synchronous=FULL``, which syncs the log up to its end, and so everything
before it. apsw brings its own SQLite: never open the file with the standard library's in the same process, for
closing one drops the other's locks.
"""

from __future__ import annotations

import importlib.resources
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import apsw

from instep.errors import DamagedError, InstepError, RefusedError, ResourceError, UnavailableError
from instep.model.counts import sized

BUSY_MS = 10_000
"""How long a write waits for another connection's."""
CHECKPOINT_PAGES = 10_000
PAGES_NEEDED_BYTES = 64 << 10
"""With less free an error of SQLite counts as one of space: its shared memory alone grows by 32 KiB at once."""
ROOM_NEEDED_BYTES = 1 << 20
"""The least space that a hint asks an operator to free: a small generation with its pages and events."""
_REBUILD = "stop the node, move the file away and start: state is rebuilt from the tree and the partners"


class Database:
    """A connection with its lock. ``read_only`` neither creates, checks nor migrates; ``is_checked`` says that
    this process has checked and migrated the file already."""

    def __init__(
        self,
        path: Path,
        *,
        read_only: bool = False,
        is_checked: bool = False,
        migrations: str = "migrations",
    ) -> None:
        """``migrations`` is the folder of this room whose numbered files make the tables."""
        self.path = path
        self._migrations = migrations
        self.is_read_only = read_only
        self._is_checked = is_checked
        self._lock = threading.RLock()
        self._depth = 0
        self._durable_due = False
        with translated(path):
            self.connection = _opened(path, read_only=read_only)
            try:
                self._prepare()
                self._inode = _inode(path)
            except BaseException:
                self.connection.close()
                raise

    def _prepare(self) -> None:
        connection = self.connection
        connection.set_busy_timeout(BUSY_MS)
        connection.execute("PRAGMA cache_size = -16384")
        if self.is_read_only:
            _check_version(self.path, connection, self._migrations, may_migrate=False)
            return
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = NORMAL")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        if not self._is_checked:
            _check_integrity(self.path, connection)
            _check_version(self.path, connection, self._migrations, may_migrate=True)

    def check_present(self) -> None:
        """``DamagedError`` (``state_lost``) when the file was removed or replaced: SQLite would go on writing
        to one that no restart finds."""
        if _inode(self.path) != self._inode:
            raise DamagedError(
                f"state {self.path} was removed or replaced while it was open",
                code="state_lost",
                hint="it is rebuilt from the tree and the partners when the node opens it again",
                path=str(self.path),
            )

    def close(self) -> None:
        with self._lock, translated(self.path):
            self.connection.close()

    @contextmanager
    def held(self) -> Iterator[apsw.Connection]:
        """The connection, alone, for one reading call."""
        if not self._lock.acquire(timeout=BUSY_MS / 1000):
            raise _busy(self.path)
        try:
            with translated(self.path):
                yield self.connection
        finally:
            self._lock.release()

    @contextmanager
    def write(self, *, durable: bool) -> Iterator[apsw.Connection]:
        """A transaction, or a savepoint in the one that this thread has open. The whole is durable if any
        part is."""
        with self.held() as connection:
            outermost = self._depth == 0
            if outermost:
                self._durable_due = False
                if durable:
                    self.check_present()
                    connection.execute("PRAGMA synchronous = FULL")
            self._durable_due = self._durable_due or durable
            try:
                connection.execute("BEGIN IMMEDIATE" if outermost else f"SAVEPOINT part{self._depth}")
                self._depth += 1
                try:
                    yield connection
                except BaseException:
                    self._undo(connection)
                    raise
                self._keep(connection)
            finally:
                if outermost and durable:
                    connection.execute("PRAGMA synchronous = NORMAL")
            if outermost and self._durable_due and not durable:
                with self.write(durable=True):
                    connection.execute("UPDATE counter SET value = value + 1 WHERE name = 'barrier'")

    def _undo(self, connection: apsw.Connection) -> None:
        self._depth -= 1
        if not connection.in_transaction:
            return  # SQLite undid it already, as it does when the disk is full
        if self._depth == 0:
            connection.execute("ROLLBACK")
        else:
            connection.execute(f"ROLLBACK TO part{self._depth}; RELEASE part{self._depth}")

    def _keep(self, connection: apsw.Connection) -> None:
        self._depth -= 1
        if self._depth:
            connection.execute(f"RELEASE part{self._depth}")
            return
        if not connection.in_transaction:  # SQLite undid it at an error that a part of it took for passing
            raise ResourceError(
                f"state {self.path} undid a change of which a part failed",
                code="state_io",
                path=str(self.path),
            )
        try:
            connection.execute("COMMIT")
        except apsw.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def set_aside(path: Path) -> Path:
    """Rename a damaged state file and its log out of the way, keeping them for a look; the new name."""
    for attempt in range(1, 1000):
        target = path.with_name(f"{path.name}.damaged-{attempt}")
        if not target.exists():
            break
    else:
        raise ResourceError(f"{path} was set aside 999 times", code="state_set_aside", path=str(path))
    try:
        for suffix in ("-wal", "-shm", ""):
            source = path.with_name(path.name + suffix)
            if source.exists():
                source.rename(target.with_name(target.name + suffix))
    except OSError as error:
        raise ResourceError(f"cannot move {path} away: {error.strerror}", code="state_set_aside") from error
    return target


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Errors of SQLite as errors of ours."""
    try:
        yield
    except (apsw.CorruptError, apsw.NotADBError, apsw.FormatError) as error:
        raise _damaged(path, str(error)) from error
    except (apsw.BusyError, apsw.LockedError) as error:
        raise _busy(path) from error
    except apsw.FullError as error:
        raise _full(path) from error
    except (apsw.ReadOnlyError, apsw.PermissionsError, apsw.CantOpenError) as error:
        raise _full_or(
            path, "state_not_writable", f"state {path} cannot be opened or written: {error}"
        ) from error
    except (apsw.IOError, apsw.NoMemError) as error:
        raise _full_or(path, "state_io", f"state {path} cannot be read or written: {error}") from error
    except apsw.ConnectionClosedError as error:
        raise UnavailableError(f"state {path} is closed", code="state_closed") from error


def _opened(path: Path, *, read_only: bool) -> apsw.Connection:
    if read_only:
        return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    try:
        # SQLite gives its log the mode of the file, so making the file privately is enough.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise ResourceError(
            f"state {path} cannot be opened: {error.strerror}", code="state_not_writable"
        ) from error
    return apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)


def _inode(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResourceError(f"state {path} cannot be looked at: {error.strerror}", code="state_io") from error
    return found.st_dev, found.st_ino


def _check_integrity(path: Path, connection: apsw.Connection) -> None:
    findings = [str(row[0]) for row in connection.execute("PRAGMA quick_check(5)")]
    if findings != ["ok"]:
        raise _damaged(path, "; ".join(findings))


def _check_version(path: Path, connection: apsw.Connection, folder: str, *, may_migrate: bool) -> None:
    migrations = _migrations(folder)
    newest = migrations[-1][0]
    have = _version(connection)
    if have > newest:
        raise RefusedError(
            f"state {path} has form {have}, this instep knows forms up to {newest}",
            code="state_newer",
            hint="a newer instep wrote it: install that one",
        )
    if have == newest:
        return
    if not may_migrate:
        raise UnavailableError(
            f"state {path} has form {have}, this instep reads form {newest}",
            code="state_older",
            hint="start the node once: it brings its state up to date",
        )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("BEGIN IMMEDIATE")
    try:
        have = _version(connection)  # another connection may have been first
        for number, sql in migrations:
            if number > have:
                connection.execute(sql)
                connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    connection.execute("PRAGMA synchronous = NORMAL")


def _version(connection: apsw.Connection) -> int:
    value = connection.execute("PRAGMA user_version").get
    assert isinstance(value, int)
    return value


def _migrations(folder: str) -> list[tuple[int, str]]:
    """The numbered files, in order; their numbers have no gap."""
    found = sorted(
        (int(file.name[:4]), file.read_text("utf-8"))
        for file in (importlib.resources.files("instep.store") / folder).iterdir()
        if file.name.endswith(".sql")
    )
    assert [number for number, _ in found] == list(range(1, len(found) + 1))
    return found


_HINTS = {
    "state_not_writable": "check owner and mode of the node directory and that its file system is writable; "
    "it goes on by itself",
    "state_io": "look at the kernel log: the disk of the node directory reports errors; it goes on by itself",
}


def _full_or(path: Path, code: str, reason: str) -> InstepError:
    """SQLite calls a full disk an input or output error where it cannot even lengthen a file of its own."""
    usage = _usage(path)
    if usage is not None and usage.free < PAGES_NEEDED_BYTES:
        return _full(path)
    return ResourceError(reason, code=code, hint=_HINTS[code], path=str(path))


def _full(path: Path) -> InstepError:
    usage = _usage(path)
    free = usage.free if usage is not None else 0
    return ResourceError(
        f"no space for the state in {path.parent}: {sized(free)} are free, {sized(ROOM_NEEDED_BYTES)} are needed",
        code="store_full",
        hint=f"free space on the file system of {path.parent}; it goes on by itself",
        path=str(path.parent),
        need_bytes=ROOM_NEEDED_BYTES,
        free_bytes=free,
    )


def _usage(path: Path) -> shutil._ntuple_diskusage | None:
    try:
        return shutil.disk_usage(path.parent)
    except OSError:
        return None


def _damaged(path: Path, what: str) -> InstepError:
    return DamagedError(
        f"state {path} is damaged: {what}", code="state_damaged", hint=_REBUILD, path=str(path)
    )


def _busy(path: Path) -> InstepError:
    return UnavailableError(
        f"state {path} was busy for {BUSY_MS // 1000} s",
        code="state_busy",
        hint="another instep command holds it",
    )
