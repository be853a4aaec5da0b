"""Contents of a union: each is asked of the nodes that have its line, by its address in that line's own manifest."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace

from instep.errors import DamagedError, InstepError, NotAllowedError, PeerError, UnavailableError
from instep.model.counts import counted
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.manifest.entry import Entry
from instep.model.manifest.leaves import Leaf
from instep.model.manifest.walk import Reader
from instep.model.paths import shown, sort_key
from instep.net.service import PeerCalls
from instep.net.transfer import AnswerStatus, TransferAnswer
from instep.node.following.pulling import STALL_S, Puller
from instep.node.replica.laid import Laid
from instep.node.trees.fileset_tree import FilesetTree
from instep.tree.stage.stage import Stage, Want

BATCH_ENTRIES = 4_000
BATCH_BYTES = 16 << 20
NAMED_MAX = 5


_OF_SOURCES = (UnavailableError, PeerError, NotAllowedError, DamagedError)
_OF_ONE_ENTRY = ("superseded", "contents_denied")


class MissingContentsError(UnavailableError):
    """Some contents of a union cannot be had now; all others are laid. ``absent`` are the lines of which none can be
    had, ``entries`` the ones that are missing, as the union shows them."""

    code = "contents_missing"

    def __init__(
        self, absent: Mapping[NodeName, InstepError], entries: Sequence[tuple[NodeName, Entry]]
    ) -> None:
        single = [entry for origin, entry in entries if origin not in absent]
        said = [f"{origin}: {error.reason}" for origin, error in sorted(absent.items())]
        if single:
            first = ", ".join(shown(entry.path) for entry in single[:NAMED_MAX])
            said.append(f"{counted(len(single), 'file')} cannot be had: {first}")
        super().__init__("; ".join(said), hint="it is tried again by itself")
        self.absent = absent
        self.entries = entries


class LinePuller(Puller):
    """Lays those contents of a stage that are of one line."""

    def __init__(
        self,
        tree: FilesetTree,
        stage: Stage,
        line: LineId,
        head: HeadRef,
        clients: Sequence[PeerCalls],
        contents: Mapping[Digest, bytes],
        link_of: Callable[[Entry], bytes | None] | None,
    ) -> None:
        super().__init__(tree, stage, head, clients, contents, link_of)
        self._line = line

        self.missing: list[Want] = []
        """Contents that no source has, though each answers."""

    def _stall_s(self) -> float:
        """Other lines wait behind the only source of this one."""
        return STALL_S

    async def lay(self, wants: list[Want]) -> None:
        """Lay these contents, whose addresses are in the line's manifest; those that no source has are in ``missing``
        then. Raises the error of the first source when none answers."""
        small = await self._lay_known([want for want in wants if not want.is_large])
        if small:
            await self._small(small)
        refused, self.missing = self.missing, []
        for client in self._clients[1:] if refused else ():
            self._clients = [client, *(each for each in self._clients if each is not client)]
            await self._small(refused)
            refused, self.missing = self.missing, []
        self.missing = refused
        for want in wants:
            if want.is_large:
                await self._large_or_missing(want)

    async def _large_or_missing(self, want: Want) -> None:
        clients = list(self._clients)
        try:
            await self._large(want)
        except UnavailableError as error:
            if error.error_code not in _OF_ONE_ENTRY:
                raise
            self._clients = clients  # They answer, and have the others.
            self.missing.append(want)

    async def _lay(
        self, client: PeerCalls, wants: Sequence[Want], answers: Sequence[TransferAnswer], laid: set[int]
    ) -> None:
        """A content that is refused keeps no other one back."""
        refused = [answer.want for answer in answers if answer.status is not AnswerStatus.WHOLE]
        self.missing += (wants[number] for number in refused)
        laid.update(refused)
        whole = [answer for answer in answers if answer.status is AnswerStatus.WHOLE]
        await super()._lay(client, wants, whole, laid)


class UnionPuller(Puller):
    """Lays everything that a stage of a union wants. ``puller_of`` gives the puller of one line, once each."""

    def __init__(
        self,
        tree: FilesetTree,
        stage: Stage,
        union: Laid,
        puller_of: Callable[[NodeName, HeadRef], LinePuller],
    ) -> None:
        super().__init__(tree, stage, _ref(union), (), {})
        self._union = union
        self._puller_of = puller_of
        self._pullers: dict[NodeName, LinePuller] = {}
        self._readers: dict[NodeName, Reader] = {}

    @property
    def fetched_bytes(self) -> int:
        return sum(puller.fetched_bytes for puller in self._pullers.values())

    @fetched_bytes.setter
    def fetched_bytes(self, _: int) -> None:
        """The pullers of the lines count."""

    async def run(self) -> None:
        absent: dict[NodeName, InstepError] = {}
        missing: list[tuple[NodeName, Want]] = []
        while wants := await self._worker.run(self._stage.wants, BATCH_ENTRIES, BATCH_BYTES):
            by_line: dict[NodeName, list[Want]] = {}
            for origin, want in await self._worker.run(self._addressed, wants):
                by_line.setdefault(origin, []).append(want)
            for origin, asked in by_line.items():
                try:
                    if origin not in absent:
                        await self._of(origin).lay(asked)
                        missing += ((origin, want) for want in self._of(origin).missing)
                        continue
                except _OF_SOURCES as error:
                    absent[origin] = error
                missing += ((origin, want) for want in asked)
        if absent or missing:
            raise MissingContentsError(absent, [(origin, want.entry) for origin, want in missing])

    def _of(self, origin: NodeName) -> LinePuller:
        puller = self._pullers.get(origin)
        if puller is None:
            head = self._union.part_of(origin)
            assert head is not None
            puller = self._pullers[origin] = self._puller_of(origin, head)
        return puller

    def _addressed(self, wants: Sequence[Want]) -> list[tuple[NodeName, Want]]:
        """The wants with the address that their line knows them by, in its order."""
        found = []
        for want in wants:
            sources = self._union.ownership.of(want.entry.path)
            if not sources:
                raise UnavailableError(f"no line of the union has {shown(want.entry.path)}", code="no_source")
            origin, path = sources[0].origin, sources[0].path
            line = self._union.lines.by_origin[origin]
            reader = self._readers.setdefault(origin, Reader(line.get))
            page, index = address_in(reader, line.root, path)
            found.append((origin, replace(want, page=page, index=index)))
        return sorted(found, key=lambda each: (each[0], each[1].page, each[1].index))


class OwnContents:
    """A source of a stage for these contents of the own line, which lie anywhere in ``tree``, its history or archive: a
    user renamed, changed or removed the file where the union shows it, and that is not published."""

    def __init__(self, tree: FilesetTree, digests: Collection[Digest]) -> None:
        self._contents = tree.contents()
        self._digests = digests

    def __call__(self, entry: Entry) -> int | None:
        if entry.digest not in self._digests:
            return None
        self._contents.expect((entry,))
        return self._contents(entry)


def address_in(reader: Reader, root: Digest, path: bytes) -> tuple[Digest, int]:
    """The leaf that has a path of the line, and the position in it."""
    key, digest = sort_key(path), root
    page = reader.page(digest)
    while not isinstance(page, Leaf):
        digest = page.children[bisect_left(page.keys, key)].digest
        page = reader.page(digest)
    return digest, bisect_left(page.keys, key)


def _ref(union: Laid) -> HeadRef:
    ref = union.ref
    assert ref is not None, "nothing is fetched for a union of no lines"
    return ref
