"""Contents that came with changes from elsewhere: received beside the tree, hashed, and kept until the set is answered.

Each set has a folder of its own in ``offered`` of the control folder; a start clears them all. Synchronous but for
``receive``.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import AsyncIterator, Iterator, Sequence

from instep.errors import DamagedError, PeerError, ResourceError, UnavailableError
from instep.model.counts import counted
from instep.model.ids import Digest
from instep.model.manifest.entry import CHUNKED_OVER, Entry, Kind
from instep.model.paths import shown
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.node.runtime.runtime import Worker
from instep.node.trees.fileset_tree import FilesetTree
from instep.node.trees.space import require_free_twice
from instep.tree.archive.contents import Contents
from instep.tree.objects.digest import digest_fd
from instep.tree.objects.laying import remove_object
from instep.tree.root.control_folder import open_folder
from instep.tree.root.descriptors import LIST, READ, closing_fd
from instep.tree.root.failpoints import failpoint, register
from instep.tree.root.place import Place
from instep.tree.stage.stage import Stage

_RECEIVED = register("offered.received")

_FOLDER = b"offered"
_PART = b".part"
_NEW = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_GIVES = frozenset({AnswerStatus.WHOLE, AnswerStatus.PIECE})


class OfferedContents:
    """The received contents of one change set, by digest. Also a ``Source`` for ``Stage``."""

    def __init__(self, place: Place, change_id: Digest) -> None:
        self._place = place
        self._name = change_id.hex()[:32].encode()

    async def receive(
        self,
        contents: AsyncIterator[list[TransferAnswer]],
        sizes: Sequence[tuple[Digest, int]],
        worker: Worker,
    ) -> None:
        """Write what comes, and hash it. ``PeerError`` for other bytes than announced, ``UnavailableError``
        ``contents_gone`` when the sender lacks one, ``ResourceError``."""
        await worker.run(self._begin, sizes)
        count = 0
        async for answers in contents:
            count += await worker.run(self._take, answers, sizes)
        if count != len(sizes):
            raise PeerError(f"{count} of {counted(len(sizes), 'content')} came", code="contents_missing")

    def _begin(self, sizes: Sequence[tuple[Digest, int]]) -> None:
        require_free_twice(self._place, sum(size for _, size in sizes))
        with self._folder() as folder, contextlib.suppress(FileExistsError):
            os.mkdir(self._name, 0o700, dir_fd=folder)

    @contextlib.contextmanager
    def _folder(self) -> Iterator[int]:
        with closing_fd(open_folder(self._place, _FOLDER)) as folder:
            yield folder

    @contextlib.contextmanager
    def _own(self) -> Iterator[int]:
        with self._folder() as folder, closing_fd(os.open(self._name, LIST, dir_fd=folder)) as own:
            yield own

    def _take(self, answers: Sequence[TransferAnswer], sizes: Sequence[tuple[Digest, int]]) -> int:
        """How many contents are whole now."""
        done = 0
        with self._own() as own:
            for answer in answers:
                digest, size = sizes[answer.want]
                if answer.status not in _GIVES:
                    raise UnavailableError(
                        "the node that submitted the change has not its contents any more",
                        code="contents_gone",
                    )
                done += _written(own, digest, size, answer)
        return done

    @functools.cached_property
    def _names(self) -> frozenset[str]:
        """The contents that came, looked at once: an applier is made when all are here."""
        try:
            with self._own() as own:
                return frozenset(os.listdir(own))
        except FileNotFoundError:
            return frozenset()

    def has(self, digest: Digest) -> bool:
        return digest.hex() in self._names

    def open(self, digest: Digest) -> int | None:
        """A descriptor, owned by the caller; None when it did not come."""
        if not self.has(digest):
            return None
        with self._own() as own:
            return os.open(digest.hex(), READ, dir_fd=own)

    def read(self, digest: Digest, size: int) -> bytes | None:
        fd = self.open(digest)
        if fd is None:
            return None
        with closing_fd(fd):
            return os.pread(fd, size + 1, 0)

    def __call__(self, entry: Entry) -> int | None:
        return self.open(entry.digest) if entry.kind is Kind.FILE else None

    def drop(self) -> None:
        """Remove them; again is harmless."""
        with self._folder() as folder:
            remove_object(folder, self._name)


def clear_offered(place: Place) -> None:
    """Remove the contents of sets that were under way before a restart: they come again with the set."""
    with closing_fd(open_folder(place, _FOLDER)) as folder:
        for name in os.listdir(folder):
            remove_object(folder, os.fsencode(name))


def lay_offered(stage: Stage, offered: OfferedContents, contents: Contents) -> None:
    """Lay what is no file of its own here: targets of symlinks, and large attributes. The stage copies the files."""
    while wants := stage.wants():
        for want in wants:
            data = None
            if want.which or want.entry.kind is Kind.SYMLINK:
                data = offered.read(want.digest, want.size_bytes)
                if data is None and not want.which:
                    data = contents.target(want.entry)
            if data is None:
                path = shown(want.entry.path)
                raise UnavailableError(
                    f"the contents of {path} did not come with the change, and are not here",
                    hint="submit the change again",
                    code="contents_missing",
                    path=path,
                )
            stage.lay(want, data)


def _written(own: int, digest: Digest, size: int, answer: TransferAnswer) -> int:
    name = digest.hex().encode()
    end = answer.offset + len(answer.data)
    if end > size or (answer.status is AnswerStatus.WHOLE and end != size):
        raise PeerError("a content has another length than announced", code="content_mismatch")
    with closing_fd(os.open(name + _PART, _NEW, 0o600, dir_fd=own)) as fd:
        if os.pwrite(fd, answer.data, answer.offset) != len(answer.data):
            raise ResourceError("the disk took only a part of a content", code="disk_full")
        if end < size:
            return 0
        if digest_fd(fd) != (digest, size):
            raise DamagedError(
                "a content that came with a change has another digest", code="content_mismatch"
            )
    os.rename(name + _PART, name, src_dir_fd=own, dst_dir_fd=own)
    failpoint(_RECEIVED)
    return 1


def missing_here(tree: FilesetTree, contents: Sequence[tuple[Digest, int]]) -> tuple[int, ...]:
    """The positions of those contents that are nowhere on this node. Small contents are looked for in the history only:
    to find them in the tree costs more than they do."""
    lost = [i for i, (digest, _) in enumerate(contents) if not tree.history.has(digest)]
    large = [_file_of(*contents[i]) for i in lost if contents[i][1] > CHUNKED_OVER]
    if not large:
        return tuple(lost)
    gone = {entry.digest for entry in tree.contents().missing_of(large)}
    return tuple(i for i in lost if contents[i][1] <= CHUNKED_OVER or contents[i][0] in gone)


def _file_of(digest: Digest, size: int) -> Entry:
    return Entry(b"", Kind.FILE, 0, size, 0, digest, 0)
