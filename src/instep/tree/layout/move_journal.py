"""The journal of a move, in a folder of the destination: one move at a time, and what a later attempt must know.

A record says what is about to become true: the digest of each object that gets its name in the destination next. An
object there with that digest is ours, so that a later attempt may replace it when its original has changed.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path
from typing import Self

import msgspec

from instep.errors import ContentionError, RefusedError
from instep.model.ids import Digest
from instep.tree.objects.laying import remove_contents
from instep.tree.root.beneath import Root
from instep.tree.root.descriptors import LIST, READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.records import RecordWriter, append_records, read_records, sync_dir

FOLDER = b".instep-layout"
PENDING = b"new"
_FILE = b"journal"
_FIRST = b"journal.new"
_BEGAN = register("layout.began")
_FINISHING = register("layout.finishing")


class MoveBegan(msgspec.Struct, frozen=True, array_like=True, tag=1):
    layout: str
    form: str
    source: bytes
    made_destination: bool


class MoveStopped(msgspec.Struct, frozen=True, array_like=True, tag=2):
    """The application ran, and this move stops it: it is started at the end."""


class MoveLaid(msgspec.Struct, frozen=True, array_like=True, tag=3):
    """These objects get their names next. A directory has no digest."""

    objects: tuple[tuple[bytes, Digest], ...]


class MovePointed(msgspec.Struct, frozen=True, array_like=True, tag=4):
    """Every copy is verified, and the application's own setting names the destination next: the digests of its file
    before and after."""

    digests: tuple[Digest, ...] = ()


_Record = MoveBegan | MoveStopped | MoveLaid | MovePointed
_decoder = msgspec.msgpack.Decoder(_Record)
_encode = msgspec.msgpack.Encoder().encode


class JournalState:
    """What the records of a journal say together."""

    def __init__(self, began: MoveBegan) -> None:
        self.began = began
        self.laid: dict[bytes, Digest] = {}
        self.was_stopped = False
        self.is_pointed = False
        self.set_digests: tuple[Digest, ...] = ()

    def take(self, record: _Record) -> None:
        match record:
            case MoveBegan():
                self.began = record
            case MoveStopped():
                self.was_stopped = True
            case MoveLaid(objects):
                self.laid.update(objects)
            case MovePointed(digests):
                self.is_pointed = True
                self.set_digests += digests


class MoveJournal:
    """The open journal of one move; holds the folder's lock."""

    def __init__(self, dest: Root, began: MoveBegan) -> None:
        self.dest = dest
        self.folder = _locked_folder(dest)
        self.state = JournalState(began)
        try:
            self._open(began)
        except BaseException:
            os.close(self.folder)
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.folder >= 0:
            os.close(self.folder)
            self.folder = -1

    def _open(self, began: MoveBegan) -> None:
        try:
            fd = os.open(_FILE, READ, dir_fd=self.folder)
        except FileNotFoundError:
            self._begin(began)
            return
        with closing_fd(fd):
            for payload in read_records(fd):
                self.state.take(_decoder.decode(payload))
        was = self.state.began
        if (was.layout, was.form, was.source) != (began.layout, began.form, began.source):
            source, dest = os.fsdecode(was.source), os.fsdecode(self.dest.path)
            raise RefusedError(
                f"another move into {dest} has not ended: {was.layout} from {source}",
                hint=f"end it with: instep layout move {source} {dest} --layout {was.layout}",
                code="other_move",
                source=source,
                layout=was.layout,
                form=was.form,
            )

    def _begin(self, began: MoveBegan) -> None:
        with RecordWriter(_FIRST, self.folder) as writer:
            writer.add(_encode(began))
            writer.sync()
        os.rename(_FIRST, _FILE, src_dir_fd=self.folder, dst_dir_fd=self.folder)
        sync_dir(self.folder)
        sync_dir(self.dest.fd)
        failpoint(_BEGAN)

    def add(self, record: _Record) -> None:
        """Durable when this returns."""
        append_records(_FILE, self.folder, (_encode(record),))
        self.state.take(record)

    def empty_pending(self) -> int:
        """A descriptor of the folder for objects without their names yet, without what an earlier attempt left."""
        with contextlib.suppress(FileExistsError):
            os.mkdir(PENDING, 0o700, dir_fd=self.folder)
        fd = os.open(PENDING, LIST, dir_fd=self.folder)
        remove_contents(fd)
        return fd

    def end(self) -> None:
        """The move is done: remove the journal and its folder."""
        failpoint(_FINISHING)
        sync_dir(self.dest.fd)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(_FILE, dir_fd=self.folder)
        failpoint(_FINISHING)
        remove_contents(self.folder)
        os.rmdir(FOLDER, dir_fd=self.dest.fd)
        sync_dir(self.dest.fd)


def _locked_folder(dest: Root) -> int:
    with contextlib.suppress(FileExistsError):
        os.mkdir(FOLDER, 0o700, dir_fd=dest.fd)
    fd = os.open(FOLDER, LIST, dir_fd=dest.fd)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        raise ContentionError(
            f"another move into {os.fsdecode(dest.path)} runs now",
            hint="wait until it ends, then repeat the command",
            code="move_runs",
        ) from None
    return fd


def unfinished_move(dest: Path, layout: str, source: bytes) -> JournalState | None:
    """A move of this layout and source into ``dest`` that has not ended; None where there is none."""
    try:
        with Root(dest) as root, closing_fd(root.open(FOLDER + b"/" + _FILE, READ)) as fd:
            records = [_decoder.decode(payload) for payload in read_records(fd)]
    except FileNotFoundError:
        return None
    began = records[0] if records else None
    if not isinstance(began, MoveBegan) or (began.layout, began.source) != (layout, source):
        return None
    state = JournalState(began)
    for record in records:
        state.take(record)
    return state
