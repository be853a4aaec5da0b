"""A writer's own past: contents by digest. Implements section 6 of ``docs/spec/journal.md``.

Small contents are packed, because 20,000 files of 4 KiB cost an inode each otherwise; larger ones are files of
their own, by reflink where the file system can. Nothing counts before ``sync``: the caller names a content in a
generation only afterwards. Everything read is hashed again. Several threads may ask: the tree's
worker writes, requests of peers read, one at a time.

The disk may change synced bytes. A bad record costs its own content and no other; ``damage`` names it. A content
that turns out to be other bytes is forgotten, so that it can be put anew, and its file is kept under another name.

Longer than 400 lines: packs, large files and the index of both change together, under one lock.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Kind
from instep.tree.archive.history_pack import (
    PACK_NAME,
    PACKED_MAX,
    RECORD_MAX,
    At,
    HistoryDamage,
    Packed,
    decoded,
    drop_file,
    encode,
    fsync_name,
    large_files,
    mismatch,
    open_large,
    pack_name,
    read_and_close,
)
from instep.tree.objects.digest import digest_bytes
from instep.tree.objects.large import copy_whole, digest_of_fd
from instep.tree.objects.laying import SYNC_SINGLY_MAX
from instep.tree.root.beneath import syncfs
from instep.tree.root.control_folder import open_folder
from instep.tree.root.descriptors import Tolerated
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.root.records import (
    HEAD_BYTES,
    MAGIC,
    Damage,
    cut_tail,
    file_beside,
    framed,
    mend_beginning,
    scan_records,
    write_all,
)

log = logging.getLogger(__name__)

_PUT = register("history.put")
_SYNCING = register("history.syncing")
_SYNCED = register("history.synced")
_COLLECTING = register("history.collecting")

PACK_MAX = 64 << 20
"""A pack that is longer gets no more; packs are rewritten one by one when they hold too little that lives."""
_HELD_MAX = 1 << 20


P = ParamSpec("P")
R = TypeVar("R")


def _alone(method: Callable[Concatenate[History, P], R]) -> Callable[Concatenate[History, P], R]:
    """One call at a time, whichever thread it comes from."""

    @functools.wraps(method)
    def locked(self: History, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self.lock:
            return method(self, *args, **kwargs)

    return locked


class History:
    """The store below ``control/history``; its index of packed contents is read from the packs at the start."""

    def __init__(self, place: Place) -> None:
        self.place = place
        self.lock = threading.RLock()
        self._fd = open_folder(place, b"history")
        self._path = b"/proc/self/fd/%d" % self._fd
        self._index: dict[Digest, int] = {}
        self._packs: dict[int, int] = {}
        """Open packs by number."""
        self._held: list[bytes] = []
        self._held_bytes = 0
        self._last = 0
        self._end = 0
        self._unsynced: dict[bytes, None] = {}
        """Large contents still under their new names, in order; an empty name stands for a new pack."""
        self._dirty: set[int] = set()
        self.damage: list[HistoryDamage] = []
        """The damage found since this history was opened and not mended yet."""
        self._load()
        # A killed daemon may have left contents that are not durable yet: the first sync is for them, too.
        self._dirty.update(self._packs)
        self._unsynced[b""] = None
        self._is_inherited = True

    def _load(self) -> None:
        for number in self._numbers():
            self._last = number
            self._load_pack(number)

    def _load_pack(self, number: int) -> None:
        fd = self._pack(number)
        self._end = len(MAGIC)
        found: list[Damage] = []

        def note(damage: Damage) -> None:
            found.append(damage)
            if not damage.is_tail:
                self._end = damage.offset + damage.length

        for offset, payload in scan_records(fd, note, RECORD_MAX):
            packed = decoded(payload)
            # Behind bad bytes a record may be one that lies inside of a content: it counts when it says the truth.
            if packed is None or (found and digest_bytes(packed.data) != packed.digest):
                note(Damage(offset, len(payload), False))
            else:
                self._index[Digest(packed.digest)] = At(number, offset, len(payload)).number()
            self._end = offset + len(payload) + HEAD_BYTES
        self.damage += [HistoryDamage(pack_name(number).decode(), *damage) for damage in found]

    def _numbers(self) -> list[int]:
        matches = (PACK_NAME.fullmatch(os.fsencode(name)) for name in os.listdir(self._fd))
        return sorted(int(match[1]) for match in matches if match is not None)

    def _pack(self, number: int) -> int:
        fd = self._packs.get(number)
        if fd is None:
            name = pack_name(number)
            fd = os.open(name, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=self._fd)
            if os.fstat(fd).st_size < len(MAGIC):
                os.ftruncate(fd, 0)
                os.pwrite(fd, MAGIC, 0)
            self._packs[number] = fd
        return fd

    # --- writing -----------------------------------------------------------------------------------------------

    @_alone
    def has(self, digest: Digest) -> bool:
        """Whether it was put, be it synced or not."""
        if digest in self._index or self._relative(digest) + b".new" in self._unsynced:
            return True
        return os.path.lexists(self._path + b"/" + self._relative(digest))

    @_alone
    def put(self, digest: Digest, data: bytes, *, is_hashed: bool = False) -> None:
        """Keep ``data``; ``DamagedError`` ``content_mismatch`` when it is not what ``digest`` names. ``is_hashed``:
        the caller took the digest of these very bytes a moment ago."""
        if digest in self._index:
            return
        if not is_hashed and digest_bytes(data) != digest:
            raise mismatch(digest)
        if len(data) > PACKED_MAX:
            if not self.has(digest):
                self._put_large(digest, lambda fd: write_all(fd, data))
            return
        if self._last == 0 or self._end > PACK_MAX:
            self._flush()
            self._last += 1
            self._end = len(MAGIC)
        if self._last not in self._packs:
            self._pack(self._last)
            self._unsynced[b""] = None
        payload = encode(Packed(digest, data))
        record = framed(payload)
        self._index[digest] = At(self._last, self._end, len(payload)).number()
        self._end += len(record)
        self._held.append(record)
        self._held_bytes += len(record)
        self._dirty.add(self._last)
        if self._held_bytes > _HELD_MAX:
            self._flush()
        failpoint(_PUT)

    @_alone
    def put_file(self, digest: Digest, fd: int, size_bytes: int | None = None) -> None:
        """Keep the first ``size_bytes`` (all) of an open file, by reflink where possible, hashed on this side of
        the copy."""
        if self.has(digest):
            return
        if size_bytes is None:
            size_bytes = os.fstat(fd).st_size
        if size_bytes <= PACKED_MAX:
            self.put(digest, os.pread(fd, size_bytes, 0))
            return

        def copy(to: int) -> None:
            copy_whole(fd, to, size_bytes, is_sparse=os.fstat(fd).st_blocks * 512 < size_bytes)
            if digest_of_fd(to) != digest:
                raise mismatch(digest)

        self._put_large(digest, copy)

    def _put_large(self, digest: Digest, fill: Callable[[int], None]) -> None:
        name = self._relative(digest)
        directory = os.path.dirname(name)
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700, dir_fd=self._fd)
        new = name + b".new"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = os.open(new, flags, 0o400, dir_fd=self._fd)
        try:
            fill(fd)
        except BaseException:
            os.unlink(new, dir_fd=self._fd)
            raise
        finally:
            os.close(fd)
        self._unsynced[new] = None

    @_alone
    def sync(self) -> None:
        """Make all that was put durable."""
        failpoint(_SYNCING)
        self._flush()
        large = [name for name in self._unsynced if name]
        if len(large) > SYNC_SINGLY_MAX:
            syncfs(self._fd)
        else:
            for name in large:
                fsync_name(name, self._fd)
        for number in sorted(self._dirty):
            os.fsync(self._packs[number])
        self._dirty.clear()
        for name in large:
            os.rename(name, name.removesuffix(b".new"), src_dir_fd=self._fd, dst_dir_fd=self._fd)
        inherited = self._directories() if self._is_inherited else []
        for directory in sorted({*inherited, *map(os.path.dirname, large)}):
            fsync_name(directory, self._fd)
        if self._unsynced:
            os.fsync(self._fd)
        self._unsynced.clear()
        self._is_inherited = False
        failpoint(_SYNCED)

    def _flush(self) -> None:
        if not self._held:
            return
        data = b"".join(self._held)
        fd = self._pack(self._last)
        start = self._end - len(data)
        aside = cut_tail(fd, start, pack_name(self._last), self._fd)
        if aside is not None:
            log.warning("a torn end of a history pack was cut off and kept as %s", os.fsdecode(aside))
            self.damage = [each for each in self.damage if not each.is_tail]
        mend_beginning(fd)
        os.lseek(fd, start, os.SEEK_SET)
        write_all(fd, data)
        self._held.clear()
        self._held_bytes = 0

    # --- reading -----------------------------------------------------------------------------------------------

    @_alone
    def get(self, digest: Digest) -> bytes | None:
        """The content, hashed again, or None, also when the disk changed it: then it is forgotten, and ``damage``
        names it."""
        number = self._index.get(digest)
        if number is not None:
            data: bytes | None = self._packed(At.of(number))
        else:
            data = None if (fd := self._open_file(digest)) is None else read_and_close(fd)
        if data is None or digest_bytes(data) == digest:
            return data
        self.forget_rotten(digest)
        return None

    def _packed(self, at: At) -> bytes:
        """The content of the record, empty when it cannot be read."""
        self._flush()
        packed = None
        with Tolerated(errno.EIO):
            packed = decoded(os.pread(self._pack(at.pack), at.length, at.offset + HEAD_BYTES))
        return packed.data if packed is not None else b""

    @_alone
    def forget_rotten(self, digest: Digest) -> None:
        """The content turned out to be other bytes: it is not here any more, and can be put anew."""
        number = self._index.pop(digest, None)
        if number is not None:
            at = At.of(number)
            self.damage.append(HistoryDamage(pack_name(at.pack).decode(), at.offset, at.length))
            return
        name = self._relative(digest)
        if self._unsynced.pop(name + b".new", b"") is None:
            os.unlink(name + b".new", dir_fd=self._fd)
            return
        size = os.stat(name, dir_fd=self._fd).st_size
        aside = file_beside(name, b".damaged", self._fd)
        os.unlink(name, dir_fd=self._fd)
        self.damage.append(HistoryDamage(os.fsdecode(aside), 0, size))

    @_alone
    def open(self, digest: Digest) -> int | None:
        """A descriptor, owned by the caller, of the content, or None. The reader hashes what it reads."""
        if digest not in self._index:
            return self._open_file(digest)
        data = self.get(digest)
        if data is None:
            return None
        fd = os.memfd_create("instep-history", os.MFD_CLOEXEC)
        write_all(fd, data)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd

    def __call__(self, entry: Entry) -> int | None:
        """As a source of contents for a stage."""
        return self.open(entry.digest) if entry.kind is Kind.FILE else None

    def _open_file(self, digest: Digest) -> int | None:
        return open_large(self._relative(digest), self._fd)

    def _relative(self, digest: Digest) -> bytes:
        text = digest.hex().encode()
        return text[:2] + b"/" + text

    @_alone
    def files(self) -> frozenset[bytes]:
        """The names of all packs and of all large contents that are synced."""
        packs = (pack_name(number) for number in self._numbers())
        return frozenset((*packs, *(name for _, name in large_files(self._directories(), self._path))))

    @_alone
    def damage_now(self) -> list[HistoryDamage]:
        """The damage by the disk, or by a program that removed files, that is not mended yet."""
        self.look_at_packs()
        return list(self.damage)

    def look_at_packs(self) -> None:
        """A pack that was removed by name is damage: it can still be read here, and is gone with this process."""
        for number, fd in self._packs.items():
            found = os.fstat(fd)
            if found.st_nlink == 0 and not self._is_damaged(number):
                self.damage.append(HistoryDamage(pack_name(number).decode(), 0, found.st_size))

    def digests(self) -> Iterator[Digest]:
        """All that is kept and synced or packed."""
        yield from self._index
        yield from (digest for digest, _ in large_files(self._directories(), self._path))

    def _directories(self) -> list[bytes]:
        return sorted(name for name in map(os.fsencode, os.listdir(self._fd)) if len(name) == 2)

    # --- collecting ----------------------------------------------------------------------------------------------

    @_alone
    def drop(self, digest: Digest, keeps: Callable[[int], bool]) -> None:
        """Remove one large content, unless ``keeps`` wants its size kept. Packed ones go with their generations."""
        drop_file(self._relative(digest), self._fd, self._unsynced, keeps)

    @_alone
    def collect(self, is_live: Callable[[Digest], bool]) -> int:
        """Remove contents that no kept generation names; the bytes that were freed. A pack is rewritten when less
        than half of it lives."""
        self.sync()
        freed = 0
        for digest, name in list(large_files(self._directories(), self._path)):
            if not is_live(digest):
                failpoint(_COLLECTING)
                freed += os.stat(name, dir_fd=self._fd).st_size
                os.unlink(name, dir_fd=self._fd)
        live: dict[int, list[Digest]] = {number: [] for number in self._numbers()}
        live_bytes = dict.fromkeys(live, 0)
        for digest, packed in self._index.items():
            at = At.of(packed)
            if is_live(digest):
                live[at.pack].append(digest)
                live_bytes[at.pack] += at.length
        for number in sorted(live, reverse=True):  # the last first: other packs' contents go behind it
            digests = live[number]
            size = os.fstat(self._pack(number)).st_size
            # A pack with bad bytes is written anew, so that only whole records are left in use.
            if live_bytes[number] * 2 < size or self._is_damaged(number):
                freed += self._rewrite(number, digests, size)
        os.fsync(self._fd)
        return freed

    def _rewrite(self, number: int, digests: list[Digest], size: int) -> int:
        before = self._end if digests else 0
        contents = [(digest, self.get(digest)) for digest in digests]
        if number == self._last:
            self._last += 1
            self._end = len(MAGIC)
        for digest, data in contents:
            if data is not None:  # else it was found to be rotten just now
                del self._index[digest]
                self.put(digest, data)
        self.sync()
        failpoint(_COLLECTING)
        name = pack_name(number)
        if self._is_damaged(number):
            with contextlib.suppress(FileNotFoundError):  # the damage may be that it has no name any more
                aside = file_beside(name, b".damaged", self._fd)
                log.warning(
                    "a damaged history pack was written anew; the old one is kept as %s", os.fsdecode(aside)
                )
            self.damage = [each for each in self.damage if each.file != name.decode()]
        os.close(self._packs.pop(number))
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name, dir_fd=self._fd)
        for digest in [d for d, packed in self._index.items() if At.of(packed).pack == number]:
            del self._index[digest]
        return max(0, size - max(0, self._end - before))

    @_alone
    def kept_aside(self) -> list[str]:
        """Files that were damaged or torn, kept for a look."""
        return sorted(name for name in os.listdir(self._fd) if ".damaged-" in name or ".torn-" in name)

    def _is_damaged(self, number: int) -> bool:
        return any(each.file == pack_name(number).decode() and not each.is_tail for each in self.damage)

    @_alone
    def close(self) -> None:
        """Close; contents that were not synced may be lost."""
        for fd in self._packs.values():
            os.close(fd)
        self._packs.clear()
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
