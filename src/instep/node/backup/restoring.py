"""A backup verified in a scratch database, laid out in a folder, or put in the place of files and database."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
import stat
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from instep.errors import InstepError, RefusedError, ResourceError, UnavailableError, UsageError
from instep.fleet.database import ApplicationDatabase
from instep.model.counts import sized
from instep.model.definition import Definition
from instep.model.ids import FilesetName
from instep.model.manifest.entry import Kind
from instep.model.paths import shown
from instep.node.backup.catalogue import (
    DUMP,
    FILES,
    INDEX,
    BackupRecord,
    Catalogue,
    IndexedObject,
    damaged,
    index_of,
    named_disk,
    opened_file,
)
from instep.node.backup.own_program import failure_of
from instep.node.backup.sources import backup_settings, database_of, filesets_of, require_outside
from instep.node.cluster.address_file import cluster_address
from instep.node.config.filesets import FilesetSettings
from instep.node.config.settings import Settings
from instep.node.directory import NodeDirectory
from instep.store.cluster.eras import begin_era_after_restore
from instep.store.cluster.opening import open_cluster_store
from instep.store.cluster.port import Transaction
from instep.tree.backup.replacing import Object, discard, lay_beside, lay_out, put_in_place
from instep.tree.objects.digest import digest_fd, digest_in
from instep.tree.objects.large import copy_whole
from instep.tree.objects.laying import remove_contents
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import CREATE, LIST, READ, closing_fd
from instep.tree.scan.rules import Rules

NAMED_MAX = 1000


class BackupRestorer:
    """``backup verify`` and ``backup restore`` of one backup."""

    def __init__(
        self, node: NodeDirectory, settings: Settings, backup: str, say: Callable[[str], None]
    ) -> None:
        self._node, self._settings, self._say = node, settings, say
        self._backup = backup_settings(settings)
        self._database = database_of(self._backup)
        self._catalogue = Catalogue(self._backup.to)
        self.record: BackupRecord = self._catalogue.record(backup)
        self._place = self._catalogue.place(backup)
        self._suffix = backup.lower().replace("-", "_")

    # Verify -----------------------------------------------------------------------------------------------------

    def verify(self) -> dict[str, Any]:
        """Read every byte again, and restore the dump into a scratch database. ``DamagedError`` ``backup_damaged``."""
        self._check_file(INDEX, self.record.index)
        seen: dict[str, set[str]] = {name: set() for name in self.record.filesets}
        files = 0
        with contextlib.ExitStack() as opened:
            trees = {name: opened.enter_context(self._files(name)) for name in self.record.filesets}
            for each in index_of(self._place, self.record):
                seen[each.fileset].add(os.fsdecode(each.path))
                files += each.kind is not Kind.DIR
                self._check_object(trees[each.fileset], each)
        missing: list[tuple[str, str]] = []
        has_scratch = self.record.dump is not None and self._database is not None
        if self.record.dump is not None:
            self._check_file(DUMP, self.record.dump)
            if self._database is not None:
                missing = asyncio.run(self._named_rows(self._database, seen))
        return {
            "backup": self.record.id, "label": self.record.label.value, "files": files,
            "database": self.record.database, "restored_database": has_scratch,
            "missing": [list(each) for each in missing[:NAMED_MAX]],
            "in_doubt": [list(each) for each in self.record.in_doubt],
        }  # fmt: skip

    @contextlib.contextmanager
    def _files(self, fileset: FilesetName) -> Iterator[Root]:
        """The files of one fileset in the backup. Its folders are the backup's own: no link of a hostile one is
        followed."""
        path = os.path.join(os.fsencode(FILES), os.fsencode(fileset))
        with contextlib.ExitStack() as opened:
            try:
                place = opened.enter_context(Root(os.path.realpath(self._place)))
                tree = opened.enter_context(place.below(path))
            except OSError as error:
                raise damaged(self.record.id, f"{shown(path)} cannot be read: {error.strerror}") from error
            yield tree

    def _check_object(self, tree: Root, each: IndexedObject) -> None:
        try:
            if each.kind is Kind.DIR:
                with closing_fd(tree.open_dir(each.path)):
                    return
            found = digest_in(tree, each.path)
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
            raise damaged(self.record.id, f"{each.fileset}: {shown(each.path)} {why}") from error
        if found != each.digest:
            raise damaged(self.record.id, f"{each.fileset}: {shown(each.path)} does not have its digest")

    async def _named_rows(
        self, database: ApplicationDatabase, seen: dict[str, set[str]]
    ) -> list[tuple[str, str]]:
        """The paths that rows of the restored dump name and that the backup lacks."""
        scratch = f"instep_verify_{self._suffix}"
        await database.drop(scratch)
        await self._filled(database, scratch)
        try:
            missing = []
            for fileset, query in self._backup.references.items():
                named = await database.texts(scratch, query)
                missing += [(fileset, path) for path in sorted(named - seen.get(fileset, set()))]
            return missing
        finally:
            await database.drop(scratch)

    async def _filled(self, database: ApplicationDatabase, name: str) -> None:
        """A new database of this name with the backup's dump; none where that fails."""
        await database.create(name)
        try:
            with self._opened_dump() as fd:
                await asyncio.to_thread(database.load, fd, name)
        except BaseException:
            await database.drop(name)
            raise

    def _opened_dump(self) -> contextlib.AbstractContextManager[int]:
        return opened_file(self._place, DUMP, self.record.id)

    def _check_file(self, name: str, digest: str) -> None:
        with opened_file(self._place, name, self.record.id) as fd:
            try:
                found = digest_fd(fd)[0].hex()
            except OSError as error:
                raise damaged(self.record.id, f"{name} cannot be read: {error.strerror}") from error
        if found != digest:
            raise damaged(self.record.id, f"{name} does not have its digest")

    # Restore ----------------------------------------------------------------------------------------------------

    def restore_to(self, folder: Path) -> dict[str, Any]:
        """Lay the files and the dump out in a new or empty folder, which no fileset carries."""
        require_outside(folder, self._settings)
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} is not an empty directory", hint="name a new one", code="not_empty")
        if not folder.parent.is_dir():
            raise UsageError(
                f"{folder.parent} is not there", hint=f"mkdir -p {folder.parent}", code="not_empty"
            )
        self._check_file(INDEX, self.record.index)
        is_new = not folder.exists()
        try:
            with _with_room(folder, self.record.bytes):
                folder.mkdir(mode=0o700, exist_ok=True)
                dump = self._laid_out(folder)
        except BaseException:
            if folder.is_dir():
                with closing_fd(os.open(folder, LIST)) as fd:
                    remove_contents(fd)
                if is_new:
                    folder.rmdir()
            raise
        return {
            "backup": self.record.id, "to": str(folder), "dump": None if dump is None else str(dump), "replaced": {},
            "database": None, "era": None,
        }  # fmt: skip

    def _laid_out(self, folder: Path) -> Path | None:
        """The file of the dump, which gives way to a fileset of its name."""
        dump = DUMP
        while dump in self.record.filesets:
            dump += ".file"
        for name in self.record.filesets:
            (folder / name).mkdir(mode=0o755)
            with self._files(name) as files:
                lay_out(files, self._objects(name), folder / name)
        if self.record.dump is not None:
            self._check_file(DUMP, self.record.dump)
            with self._opened_dump() as fd, closing_fd(os.open(folder / dump, CREATE, 0o600)) as to:
                copy_whole(fd, to, os.fstat(fd).st_size, is_sparse=False)
                os.fsync(to)
            return folder / dump
        return None

    def restore(self) -> dict[str, Any]:
        """Replace the files and the database, keep what was there, and begin a new era of the cluster's database."""
        filesets = filesets_of(self._settings, self._backup)
        absent = sorted(self.record.filesets.keys() - filesets.keys())
        if absent:
            raise RefusedError(
                f"the backup has {', '.join(absent)}, which [backup] of this node does not name",
                hint="add it to filesets of [backup], or lay it out: instep backup restore ID --to DIR",
                code="backup_other_filesets",
                filesets=absent,
            )
        with self._without_daemon(), self._unfinished(filesets) as run:
            self._check_written_here(filesets)
            self._check_file(INDEX, self.record.index)
            before = asyncio.run(self._era())
            kept_database = None
            for name in self.record.filesets:
                self._say(f"{name}: restoring to {filesets[name].path}")
                self._lay_beside(name, filesets[name], run)
            if self.record.dump is not None:
                self._check_file(DUMP, self.record.dump)
                if self._database is not None:
                    kept_database = asyncio.run(self._replaced_database(self._database, run))
            replaced = {
                name: str(put_in_place(Path(filesets[name].path), run)) for name in self.record.filesets
            }
            self._by_program()
            era = asyncio.run(self._new_era(before))
        return {
            "backup": self.record.id, "to": None, "dump": None, "replaced": replaced, "database": kept_database,
            "era": era,
        }  # fmt: skip

    def _objects(self, fileset: str) -> list[Object]:
        objects = index_of(self._place, self.record)
        return [(each.path, each.kind, each.digest) for each in objects if each.fileset == fileset]

    def _lay_beside(self, name: FilesetName, fileset: FilesetSettings, run: str) -> None:
        objects, root = self._objects(name), Path(fileset.path)
        rules = Rules(fileset.definition or Definition())
        in_backup = {path for path, _, _ in objects}
        with Root(root) as tree, self._files(name) as files, _with_room(root, self.record.bytes):

            def stays(path: bytes) -> bool:
                """Ignored, and not in the backup: it is the application's own."""
                found = tree.stat_or_none(path)
                is_dir = found is not None and stat.S_ISDIR(found.st_mode)
                return path not in in_backup and rules.ignored(path, is_dir)

            lay_beside(root, run, lambda into: lay_out(files, objects, into), stays)

    async def _replaced_database(self, database: ApplicationDatabase, run: str) -> str:
        """The name under which the replaced database is kept. A run that was cut off goes on."""
        new, kept = self._names(database, run)
        if not await database.exists(kept):
            running = await database.sessions()
            if running:
                raise RefusedError(
                    f"the database {database.shown} is in use by {'; '.join(running[:5])}",
                    hint="stop what uses it, then repeat the command",
                    code="server_runs",
                    running=running,
                )
            await database.drop(new)
            await self._filled(database, new)
        await database.replace(new, kept)
        return kept

    def _by_program(self) -> None:
        keys = self._backup.database
        if keys is None or keys.restore is None or self.record.dump is None:
            return
        with self._opened_dump() as fd:
            why = failure_of(keys.restore, fd, subprocess.DEVNULL)
        if why is not None:
            raise UnavailableError(
                f"{keys.restore[0]} failed: {why}; the files are restored, the database is not",
                hint=f"run it by hand, with {self._place / DUMP} as its input",
                code="backup_program",
                program=list(keys.restore),
            )

    @contextlib.contextmanager
    def _without_daemon(self) -> Iterator[None]:
        """No daemon of this node runs until the end of the block."""
        with closing_fd(os.open(self._node.pid, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)) as fd:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise RefusedError(
                    "the daemon of this node runs, and would publish a tree that is half restored",
                    hint="instep stop",
                    code="daemon_runs",
                ) from None
            yield

    @contextlib.contextmanager
    def _unfinished(self, filesets: dict[FilesetName, FilesetSettings]) -> Iterator[str]:
        """The name of this run, noted until it is done: the same command again goes on with it. An error before
        anything was replaced leaves nothing."""
        note = self._node.state / "restoring"
        backup_id, run = self.record.id, f"{self.record.id}-{secrets.token_hex(4)}"
        if note.exists():
            backup_id, run = note.read_text().split()
        if backup_id != self.record.id:
            raise RefusedError(
                f"the restore of {backup_id} was cut off",
                hint=f"end it first: instep backup restore {backup_id}",
                code="restore_unfinished",
                backup=backup_id,
            )
        pending = note.with_suffix(".new")
        pending.write_text(f"{backup_id} {run}\n")
        with closing_fd(os.open(pending, READ)) as fd:
            os.fsync(fd)
        os.replace(pending, note)
        try:
            yield run
        except (InstepError, OSError):
            if asyncio.run(self._is_undone(run, filesets)):
                note.unlink()
            raise
        note.unlink()

    async def _is_undone(self, run: str, filesets: dict[FilesetName, FilesetSettings]) -> bool:
        """Remove what was laid out, unless something was replaced already."""
        if self._database is not None and self.record.dump is not None:
            new, kept = self._names(self._database, run)
            try:
                if await self._database.exists(kept):
                    return False
                await self._database.drop(new)
            except UnavailableError:
                return False  # not known; the same command finds out
        are_gone = [discard(Path(filesets[name].path), run) for name in self.record.filesets]
        return all(are_gone)

    @staticmethod
    def _names(database: ApplicationDatabase, run: str) -> tuple[str, str]:
        """Of the database that is filled, and of the one that it replaces, which is kept."""
        suffix = run.lower().replace("-", "_")
        return f"instep_restored_{suffix}", f"{database.name}_before_{suffix}"

    def _check_written_here(self, filesets: dict[FilesetName, FilesetSettings]) -> None:
        followed = [name for name in self.record.filesets if not filesets[name].is_written_here]
        if followed:
            raise RefusedError(
                f"{followed[0]} is written on another node, which would put its own files back",
                hint=f"restore it on {filesets[followed[0]].writer}",
                code="not_the_writer",
            )

    async def _era(self) -> int:
        async with self._cluster() as transaction:
            row = await transaction.row("SELECT era FROM instep_era")
            return 0 if row is None else int(row[0])

    async def _new_era(self, before: int) -> int:
        async with self._cluster() as transaction:
            return await begin_era_after_restore(transaction, before)

    @contextlib.asynccontextmanager
    async def _cluster(self) -> AsyncIterator[Transaction]:
        store = await open_cluster_store(cluster_address(self._settings, self._node))
        try:
            async with store.transaction() as transaction:
                yield transaction
        finally:
            await store.close()


@contextlib.contextmanager
def _with_room(folder: Path, needed: int) -> Iterator[None]:
    """``ResourceError`` ``no_room`` before the block, and the step that helps when the disk says no in it."""
    at = next(each for each in (folder, *folder.parents) if each.is_dir())
    room = os.statvfs(at)
    free = room.f_bavail * room.f_frsize
    if needed > free:
        raise ResourceError(
            f"{at} has no room: the files have {sized(needed)}, {sized(free)} are free",
            hint=f"free space: df -h {at}",
            code="no_room",
            needed_bytes=needed,
            free_bytes=free,
        )
    with named_disk(folder):
        yield
