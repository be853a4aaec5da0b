"""The directory of backups: one folder for each whole backup, which holds its files, its dump and two records.

A backup is made in a folder whose name begins with ``.partial-`` and gets its name when everything is on the disk. So a
backup that is listed is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from instep.errors import ContentionError, DamagedError, ResourceError, UsageError
from instep.tree.objects.laying import remove_object
from instep.tree.root.beneath import syncfs
from instep.tree.root.descriptors import LIST, closing_fd
from instep.tree.root.os_errors import help_for

RECORD, INDEX, DUMP, FILES = "backup.json", "index", "database.dump", "files"
PARTIAL = ".partial-"
_LOCK = ".lock"
_ID = re.compile(r"\d{8}T\d{6}Z(?:-\d+)?")
INDEX_LINE_MAX = 1 << 16


class BackupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What ``backup.json`` says. ``in_doubt`` are fileset and path; digests are BLAKE3 in hex."""

    id: str
    node: str
    created_at: str
    label: str
    in_doubt: tuple[tuple[str, str], ...] = ()
    filesets: dict[str, str] = {}
    """Fileset to its root at that time."""
    files: int
    bytes: int
    index: str
    database: str | None = None
    """Which database, without secrets."""
    dump: str | None = None


class IndexedObject(msgspec.Struct, frozen=True, array_like=True):
    """A line of the index."""

    fileset: str
    path: bytes
    kind: int
    size: int
    digest: bytes


class Catalogue:
    """All backups below one directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ids(self) -> list[str]:
        """Whole backups, oldest first."""
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return []
        return sorted(name for name in names if _ID.fullmatch(name))

    def place(self, backup: str) -> Path:
        """The folder of one backup; ``UsageError`` ``no_backup`` when there is none."""
        if backup not in self.ids():
            raise UsageError(
                f"there is no backup {backup} in {self.folder}",
                hint="instep backup list",
                code="no_backup",
                backup=backup,
            )
        return self.folder / backup

    def record(self, backup: str) -> BackupRecord:
        """``DamagedError`` ``backup_damaged`` when it cannot be read."""
        place = self.place(backup)
        try:
            return msgspec.json.decode((place / RECORD).read_bytes(), type=BackupRecord)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
            raise damaged(backup, f"{RECORD} cannot be read: {error}") from error

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One program at a time changes the directory. Parts of backups that were cut off are removed first."""
        with named_disk(self.folder):
            self.folder.mkdir(mode=0o700, parents=False, exist_ok=True)
            fd = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with closing_fd(fd):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ContentionError(
                    f"another program works on the backups in {self.folder}",
                    hint="wait until it ends, then repeat the command",
                    code="backup_runs",
                ) from None
            for name in os.listdir(self.folder):
                if name.startswith(PARTIAL):
                    self._remove(name)
            yield

    def free_id(self, now: str) -> str:
        """An id that no backup has."""
        taken = self.ids()
        return next(each for each in (now, *(f"{now}-{n}" for n in range(2, 10_000))) if each not in taken)

    @contextlib.contextmanager
    def partial(self, backup: str) -> Iterator[Path]:
        """A folder that becomes the backup at the end of the block, and is removed by an error."""
        name = PARTIAL + backup
        with named_disk(self.folder):
            (self.folder / name).mkdir(mode=0o700)
            try:
                yield self.folder / name
                with closing_fd(os.open(self.folder, LIST)) as fd:
                    syncfs(fd)
                    os.rename(name, backup, src_dir_fd=fd, dst_dir_fd=fd)
                    os.fsync(fd)
            except BaseException:
                self._remove(name)
                raise

    def remove(self, backup: str) -> None:
        """First it stops to be listed."""
        os.rename(self.folder / backup, self.folder / (PARTIAL + backup))
        self._remove(PARTIAL + backup)

    def _remove(self, name: str) -> None:
        with closing_fd(os.open(self.folder, LIST)) as fd:
            remove_object(fd, os.fsencode(name))


def index_of(place: Path, backup: str) -> Iterator[IndexedObject]:
    """The objects of a backup, in the order in which directories come first."""
    decoder = msgspec.json.Decoder(IndexedObject)
    try:
        with (place / INDEX).open("rb") as lines:
            while line := lines.readline(INDEX_LINE_MAX):
                yield decoder.decode(line)
    except (OSError, msgspec.DecodeError, msgspec.ValidationError) as error:
        raise damaged(backup, f"its index cannot be read: {error}") from error


def damaged(backup: str, why: str) -> DamagedError:
    return DamagedError(
        f"backup {backup}: {why}",
        hint="take another one: instep backup list",
        code="backup_damaged",
        backup=backup,
    )


@contextlib.contextmanager
def named_disk(folder: Path) -> Iterator[None]:
    """An ``OSError`` of the block as one about this folder."""
    try:
        yield
    except OSError as error:
        code, step = help_for(error.errno or 0, folder)
        raise ResourceError(
            f"{folder} cannot be written: {error.strerror or error}",
            hint=f"{step}; then repeat the command",
            code=code,
            path=str(folder),
            errno=error.errno,
        ) from error
