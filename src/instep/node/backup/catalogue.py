"""The directory of backups: one folder for each whole backup, which holds its files, its dump and two records.

A backup is made in a folder whose name begins with ``.partial-`` and gets its name when everything is on the disk. So a
backup that is listed is whole.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec

from instep.core.backup import BackupLabel
from instep.errors import ContentionError, DamagedError, InstepError, ResourceError, UsageError
from instep.model.counts import sized
from instep.model.ids import DIGEST_BYTES, Count, Digest, FilesetName, fileset_name
from instep.model.manifest.entry import Kind
from instep.model.paths import parent_of, shown, sort_key, validated
from instep.tree.objects.laying import remove_object
from instep.tree.root.beneath import syncfs
from instep.tree.root.descriptors import LIST, READ, closing_fd
from instep.tree.root.os_errors import help_for

RECORD, INDEX, DUMP, FILES = "backup.json", "index", "database.dump", "files"
PARTIAL = ".partial-"
_LOCK = ".lock"
_ID = re.compile(r"\d{8}T\d{6}Z(?:-\d+)?")
INDEX_LINE_MAX = 1 << 16
RECORD_BYTES_MAX = 256 << 20
"""A backup of which everything is in doubt names each path."""
_HexDigest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class BackupRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What ``backup.json`` says. ``in_doubt`` are fileset and path; digests are BLAKE3 in hex.

    A directory of backups may come from elsewhere: names that become part of a path are checked as it is decoded.
    """

    id: str
    node: str
    created_at: str
    label: BackupLabel
    in_doubt: tuple[tuple[str, str], ...] = ()
    filesets: dict[FilesetName, str] = {}
    """Fileset to its root at that time."""
    files: Count
    bytes: Count
    index: _HexDigest
    database: str | None = None
    """Which database, without secrets."""
    dump: _HexDigest | None = None

    def __post_init__(self) -> None:
        with _as_value_error():
            for name in self.filesets:
                fileset_name(name)


class IndexedObject(msgspec.Struct, frozen=True, array_like=True):
    """A line of the index. The digest of a directory is empty."""

    fileset: FilesetName
    path: bytes
    kind: Kind
    size: Count
    digest: Annotated[Digest, msgspec.Meta(max_length=DIGEST_BYTES)]

    def __post_init__(self) -> None:
        with _as_value_error():
            validated(self.path)


@contextlib.contextmanager
def _as_value_error() -> Iterator[None]:
    """The decoder takes no other error of a check."""
    try:
        yield
    except InstepError as error:
        raise ValueError(error.reason) from error


class Catalogue:
    """All backups below one directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ids(self) -> list[str]:
        """Whole backups, oldest first."""
        with named_disk(self.folder, "listed"):
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
        """``DamagedError`` ``backup_damaged`` when it cannot be read, or is not the record of this backup."""
        with opened_file(self.place(backup), RECORD, backup) as fd:
            size = os.fstat(fd).st_size
            if size > RECORD_BYTES_MAX:
                raise damaged(backup, f"{RECORD} has {sized(size)}, the limit is {sized(RECORD_BYTES_MAX)}")
            try:
                record = msgspec.json.decode(os.pread(fd, size, 0), type=BackupRecord)
            except (OSError, RecursionError, ValueError) as error:
                raise damaged(backup, f"{RECORD} cannot be read: {error}") from error
        if record.id != backup:
            raise damaged(backup, f"{RECORD} is the record of {record.id!r}")
        return record

    def listed(self) -> tuple[list[BackupRecord], list[DamagedError]]:
        """The records of all backups, oldest first, and of each damaged one the error."""
        records: list[BackupRecord] = []
        errors: list[DamagedError] = []
        for backup in self.ids():
            try:
                records.append(self.record(backup))
            except DamagedError as error:
                errors.append(error)
        return records, errors

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


def index_of(place: Path, record: BackupRecord) -> Iterator[IndexedObject]:
    """The objects of a backup, in the order in which directories come first. ``DamagedError`` ``backup_damaged`` when
    they are in another one."""
    decoder = msgspec.json.Decoder(IndexedObject)
    last: dict[str, bytes] = dict.fromkeys(record.filesets, b"")
    directories = {(name, b"") for name in record.filesets}
    with opened_file(place, INDEX, record.id) as fd, open(fd, "rb", closefd=False) as lines:
        try:
            while line := lines.readline(INDEX_LINE_MAX):
                each = decoder.decode(line)
                key = sort_key(each.path)
                if each.fileset not in last:
                    raise ValueError(f"fileset {each.fileset!r} is not in {RECORD}")
                if key <= last[each.fileset] or (each.fileset, parent_of(each.path)) not in directories:
                    raise ValueError(f"{each.fileset}: {shown(each.path)} is at the wrong place")
                last[each.fileset] = key
                if each.kind is Kind.DIR:
                    directories.add((each.fileset, each.path))
                yield each
        except (OSError, RecursionError, ValueError) as error:
            raise damaged(record.id, f"its index cannot be read: {error}") from error


@contextlib.contextmanager
def opened_file(place: Path, name: str, backup: str) -> Iterator[int]:
    """A descriptor of a plain file of the backup in ``place``. ``DamagedError`` ``backup_damaged`` for any other
    object: no pipe is waited for, and no link is followed."""
    try:
        fd = os.open(place / name, READ)
    except OSError as error:
        raise damaged(backup, f"{name} cannot be read: {error.strerror}") from error
    with closing_fd(fd):
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise damaged(backup, f"{name} is no plain file")
        yield fd


def damaged(backup: str, why: str) -> DamagedError:
    return DamagedError(
        f"backup {backup}: {why}",
        hint="take another one: instep backup list",
        code="backup_damaged",
        backup=backup,
    )


@contextlib.contextmanager
def named_disk(folder: Path, doing: str = "written") -> Iterator[None]:
    """An ``OSError`` of the block as one about this folder, with the operation, as in "cannot be written"."""
    try:
        yield
    except OSError as error:
        code, step = help_for(error.errno or 0, folder)
        raise ResourceError(
            f"{folder} cannot be {doing}: {error.strerror or error}",
            hint=f"{step}; then repeat the command",
            code=code,
            path=str(folder),
            errno=error.errno,
        ) from error
