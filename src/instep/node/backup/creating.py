"""A backup made: files and database captured around one moment, with a label that says how they belong together."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from instep.core.backup import ATTEMPTS, label_of, to_remove
from instep.errors import RefusedError, ResourceError, UnavailableError
from instep.fleet.database import ApplicationDatabase
from instep.model.counts import sized
from instep.model.definition import Definition
from instep.model.ids import FilesetName
from instep.model.manifest.entry import Kind
from instep.model.paths import shown, sort_key
from instep.node.backup.catalogue import DUMP, FILES, INDEX, RECORD, BackupRecord, Catalogue, IndexedObject
from instep.node.backup.own_program import failure_of
from instep.node.backup.sources import backup_settings, database_of, filesets_of
from instep.node.cluster.address_file import cluster_address
from instep.node.config.settings import Settings
from instep.node.directory import NodeDirectory
from instep.store.cluster.leases import lease_rows
from instep.store.cluster.opening import open_cluster_store
from instep.tree.backup.capture import Capture
from instep.tree.objects.digest import digest_bytes, digest_fd
from instep.tree.root.descriptors import READ, closing_fd
from instep.tree.root.failpoints import failpoint, register

_DUMPED = register("backup.dumped")
_WRITTEN = register("backup.written")


class BackupMaker:
    """One run of ``backup create``."""

    def __init__(self, node: NodeDirectory, settings: Settings, say: Callable[[str], None]) -> None:
        self._node, self._settings, self._say = node, settings, say
        self._backup = backup_settings(settings)
        self._database = database_of(self._backup)
        self._catalogue = Catalogue(self._backup.to)

    def run(self, *, is_offline: bool) -> BackupRecord:
        filesets = filesets_of(self._settings, self._backup)
        if is_offline:
            asyncio.run(self._refuse_running())
        with self._catalogue.locked():
            self._check_room([Path(each.path) for each in filesets.values()])
            now = datetime.now(UTC)
            backup = self._catalogue.free_id(now.strftime("%Y%m%dT%H%M%SZ"))
            with self._catalogue.partial(backup) as folder, ExitStack() as stack:
                captures = {}
                for name, fileset in filesets.items():
                    into = folder / FILES / name
                    into.mkdir(mode=0o700, parents=True)
                    capture = Capture(Path(fileset.path), fileset.definition or Definition(), into)
                    captures[name] = stack.enter_context(capture)
                frozen = is_offline or self._backup.freeze is not None
                dump = self._around_the_dump(folder, captures)
                if is_offline:
                    asyncio.run(self._refuse_running())
                record = self._written(folder, backup, now, captures, dump, is_frozen=frozen)
            for old in to_remove(self._catalogue.ids(), self._backup.keep_last):
                self._catalogue.remove(old)
        return record

    def _around_the_dump(self, folder: Path, captures: dict[FilesetName, Capture]) -> str | None:
        """The digest of the dump. Without doubts, or after so many attempts."""
        with self._frozen():
            for capture in captures.values():
                capture.look()
            digest = None
            for attempt in range(1, ATTEMPTS + 1):
                digest = asyncio.run(self._attempt(folder, captures))
                if not any(capture.in_doubt() for capture in captures.values()) or attempt == ATTEMPTS:
                    break
                self._say("files changed at the moment of the dump: once more")
            for capture in captures.values():
                capture.finish()
        return digest

    @contextlib.contextmanager
    def _frozen(self) -> Iterator[None]:
        if self._backup.freeze is None or self._backup.thaw is None:
            yield
            return
        try:
            self._program(self._backup.freeze)
            yield
        finally:
            self._program(self._backup.thaw)

    async def _attempt(self, folder: Path, captures: dict[FilesetName, Capture]) -> str | None:
        for capture in captures.values():
            capture.before_snapshot()
        if self._database is None:
            digest = None
            if self._backup.database is not None and self._backup.database.dump is not None:
                with self._dump_file(folder) as fd:
                    self._program(self._backup.database.dump, output=fd)
                digest = _digest_of(folder / DUMP)
            for capture in captures.values():
                capture.after_snapshot()
            return digest
        async with self._database.snapshot() as snapshot:
            for capture in captures.values():
                capture.after_snapshot()
            with self._dump_file(folder) as fd:
                await asyncio.to_thread(self._database.dump, fd, snapshot)
        failpoint(_DUMPED)
        return _digest_of(folder / DUMP)

    @staticmethod
    @contextlib.contextmanager
    def _dump_file(folder: Path) -> Iterator[int]:
        with closing_fd(
            os.open(folder / DUMP, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        ) as fd:
            yield fd

    def _program(self, words: tuple[str, ...], output: int = subprocess.DEVNULL) -> None:
        why = failure_of(words, subprocess.DEVNULL, output)
        if why is not None:
            raise UnavailableError(
                f"{words[0]} {why}",
                hint=f"run it by hand: {words[0]}",
                code="backup_program",
                program=list(words),
            )

    def _written(
        self,
        folder: Path,
        backup: str,
        now: datetime,
        captures: dict[FilesetName, Capture],
        dump: str | None,
        *,
        is_frozen: bool,
    ) -> BackupRecord:
        doubts = [(name, path) for name, capture in captures.items() for path in capture.in_doubt()]
        label = label_of(is_frozen=is_frozen, in_doubt=[path for _, path in doubts])
        lines, files, size = [], 0, 0
        for name, capture in captures.items():
            for path in sorted(capture.objects, key=sort_key):
                each = capture.objects[path]
                lines.append(
                    msgspec.json.encode(IndexedObject(name, path, each.kind, each.size, each.digest))
                )
                files += each.kind is not Kind.DIR
                size += each.size
        index = b"".join(line + b"\n" for line in lines)
        (folder / INDEX).write_bytes(index)
        record = BackupRecord(
            id=backup, node=self._settings.name, created_at=now.strftime("%Y-%m-%dT%H:%M:%SZ"), label=label,
            in_doubt=tuple((name, shown(path)) for name, path in doubts),
            filesets={name: str(self._settings.filesets[name].path) for name in captures},
            files=files, bytes=size, index=digest_bytes(index).hex(),
            database=_shown(self._database, dump), dump=dump,
        )  # fmt: skip
        (folder / RECORD).write_bytes(msgspec.json.format(msgspec.json.encode(record)) + b"\n")
        failpoint(_WRITTEN)
        return record

    def _check_room(self, roots: list[Path]) -> None:
        needed = 0
        for root in roots:
            for folder, _, names in os.walk(root):
                for name in names:
                    with contextlib.suppress(OSError):
                        needed += os.lstat(os.path.join(folder, name)).st_blocks * 512
        room = os.statvfs(self._backup.to)
        free = room.f_bavail * room.f_frsize
        if needed > free:
            raise ResourceError(
                f"{self._backup.to} has no room: the files have {sized(needed)}, {sized(free)} are free",
                hint=f"free space: df -h {self._backup.to}; or keep fewer backups by keep_last",
                code="no_room",
                needed_bytes=needed,
                free_bytes=free,
            )

    async def _refuse_running(self) -> None:
        """``RefusedError`` ``server_runs`` while a server uses the database or holds a lease."""
        found = [] if self._database is None else await self._database.sessions()
        store = await open_cluster_store(cluster_address(self._settings, self._node))
        try:
            async with store.transaction() as transaction:
                running = await transaction.rows(
                    "SELECT subject, node FROM instep_run WHERE state = 'running'"
                )
                found += [f"{node} with a run of {subject}" for subject, node in running]
                rows = await lease_rows(transaction)
                found += [f"{row.holder} with the lease {row.name}" for row in rows if row.is_held]
        finally:
            await store.close()
        if found:
            raise RefusedError(
                f"an offline backup needs all servers stopped, and there is {'; '.join(found[:5])}",
                hint="stop them, or make an online backup: instep backup create",
                code="server_runs",
                running=found,
            )


def _shown(database: ApplicationDatabase | None, dump: str | None) -> str | None:
    if database is not None:
        return database.shown
    return None if dump is None else "by a program"


def _digest_of(path: Path) -> str:
    with closing_fd(os.open(path, READ)) as fd:
        return digest_fd(fd)[0].hex()
