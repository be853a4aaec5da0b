"""Contents of a union: each is asked of the nodes that have its line, by its address in that line's own manifest."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from instep.errors import UnavailableError
from instep.model.ids import Digest, HeadRef, LineId, NodeName
from instep.model.manifest.entry import Entry
from instep.model.manifest.walk import Leaf, Reader
from instep.model.paths import shown, sort_key
from instep.net.service import PeerCalls
from instep.node.following.pulling import Puller
from instep.node.replica.laid import Laid
from instep.node.runtime.one_task import OneTask
from instep.node.trees.fileset_tree import FilesetTree
from instep.tree.stage.stage import Stage, Want

BATCH_ENTRIES = 4_000
BATCH_BYTES = 16 << 20


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

    async def lay(self, wants: list[Want]) -> None:
        """Lay these contents, whose addresses are in the line's manifest."""
        small = await self._lay_known([want for want in wants if not want.is_large])
        async with OneTask() as smalls:
            if small:
                smalls.begin(self._small(small))
            for want in wants:
                if want.is_large:
                    await self._large(want)


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
        while wants := await self._worker.run(self._stage.wants, BATCH_ENTRIES, BATCH_BYTES):
            by_line: dict[NodeName, list[Want]] = {}
            for origin, want in await self._worker.run(self._addressed, wants):
                by_line.setdefault(origin, []).append(want)
            for origin, asked in by_line.items():
                await self._of(origin).lay(asked)

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
