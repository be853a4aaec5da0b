"""Change sets as another node makes them, handed to the home of a line without a connection between."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping

from instep.model.change import ChangeAnswer, ChangeSet, Fence, PathChange, wanted_contents
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.walk import Reader
from instep.model.paths import sort_key
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.node.runtime.driver import wall_ms
from instep.node.writing.writer import WriterService
from instep.tree.objects.digest import digest_bytes
from tests.support.services import ServiceNode

__all__ = ["Offerer", "entry_of", "writer_of"]

DATA = FilesetName("data")
MTIME_NS = 1_700_000_000_000_000_000


def writer_of(node: ServiceNode) -> WriterService:
    service = node.node.services[DATA]
    assert isinstance(service, WriterService)
    return service


def entry_of(
    path: str, what: str | bytes | None, *, mode: int = 0o644, kind: Kind = Kind.FILE
) -> Entry | None:
    """A file (or symlink) with these bytes; a directory for ``Kind.DIR``; None for None."""
    if kind is Kind.DIR:
        return Entry(path.encode(), Kind.DIR, 0o755, 0, MTIME_NS, EMPTY_DIGEST, 0)
    if what is None:
        return None
    data = what.encode() if isinstance(what, str) else what
    mode = 0o777 if kind is Kind.SYMLINK else mode
    return Entry(path.encode(), kind, mode, len(data), MTIME_NS, digest_bytes(data), 0)


class Offerer:
    """The node ``s1``, which has the generation ``seen`` and changes paths of it."""

    def __init__(self, home: ServiceNode, name: str = "s1") -> None:
        self.home = home
        self.name = NodeName(name)
        self.seen: HeadRef | None = None

    def see(self) -> None:
        """Get the head as it is now."""
        self.seen = writer_of(self.home).head

    def base(self, path: str) -> Entry | None:
        if self.seen is None:
            return None
        return Reader(writer_of(self.home).tree.get_page).lookup(self.seen.root, path.encode())

    def changes(
        self,
        files: Mapping[str, str | bytes | Entry | None],
        *,
        whole: bool = False,
        token: Fence | None = None,
        bases: Mapping[str, Entry | None] | None = None,
    ) -> ChangeSet:
        """A set that makes these paths so (None: removed)."""
        made = []
        for path, what in files.items():
            new = what if isinstance(what, Entry) else entry_of(path, what)
            base = bases[path] if bases is not None and path in bases else self.base(path)
            made.append(PathChange(path.encode(), base, new))
        made.sort(key=lambda change: sort_key(change.path))
        line, nonce = writer_of(self.home).line, secrets.token_bytes(16)
        return ChangeSet(
            1, line.fileset, line.origin, nonce, "ann", "by ann", wall_ms(), tuple(made), token, whole
        )

    async def submit(
        self,
        change_set: ChangeSet,
        *data: str | bytes,
        releases: bool = False,
        accepts_deletions: bool = False,
    ) -> ChangeAnswer:
        """Submit with these contents, however many the set wants."""
        by_digest = {
            digest_bytes(each): each for each in (d.encode() if isinstance(d, str) else d for d in data)
        }
        sizes = [(digest, size) for digest, size in wanted_contents(change_set) if digest in by_digest]
        home = writer_of(self.home).changes
        return await home.submit(
            self.name,
            change_set,
            sent([by_digest[d] for d, _ in sizes]),
            sizes=sizes,
            releases=releases,
            accepts_deletions=accepts_deletions,
        )

    async def offer(self, files: Mapping[str, str | None], *, whole: bool = False) -> ChangeAnswer:
        """Change these paths of the head that was seen, and submit."""
        change_set = self.changes(files, whole=whole)
        return await self.submit(change_set, *(text for text in files.values() if text is not None))


async def sent(contents: list[bytes]) -> AsyncIterator[list[TransferAnswer]]:
    for want, data in enumerate(contents):
        yield [TransferAnswer(want, AnswerStatus.WHOLE, 0, data)]


def digest_of(text: str) -> Digest:
    return digest_bytes(text.encode())
