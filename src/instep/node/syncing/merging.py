"""Files that both sides changed, merged by the format of their kind and checked by its ``validate`` hook.

The merged files lie below the node directory while the run lasts. A dry run makes them too, for it shows what the run
does; so does a run after one that was cut off: the outcome depends on the three versions alone.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import AsyncIterable, Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from instep.core.sync.merge.document import UncleanMergeError
from instep.core.sync.merge.formats import merge_file
from instep.core.sync.mergeable import MergeCandidate, merge_candidates, merged_entry
from instep.core.sync.plan import SyncPlan
from instep.core.sync.reconcile import Merges
from instep.fleet.hooks.hooks import run_hook
from instep.fleet.hooks.spec import HookCall
from instep.model.ids import Digest, FilesetName
from instep.model.limits import PATH_MAX
from instep.model.manifest.entry import CHUNKED_OVER, Entry
from instep.net.transfer import PIECE_BYTES, AnswerStatus, TransferAnswer
from instep.node.config.sync import SyncSettings
from instep.node.lines.hook_calls import spec_of
from instep.node.runtime.runtime import Runtime
from instep.node.syncing.kinds import format_of, kinds_of
from instep.store.port import NodeStore
from instep.tree.objects.chunking import chunk_file
from instep.tree.objects.digest import digest_bytes
from instep.tree.root.descriptors import closing_fd

_AT_ONCE, _AT_ONCE_BYTES = 256, 32 << 20
"""Files whose three versions are in memory together; a larger one is alone."""
Reading = Callable[[Sequence[Entry]], AsyncIterable[Sequence[TransferAnswer]]]
"""The contents of entries, in their order."""
_BASE_GONE = "what both sides had before is kept on neither side any more"


class MergedFile(NamedTuple):
    """Where it lies."""

    file: Path
    size: int


class Merging:
    """The merged files of one run, and what of them a home lacks. ``fileset`` is this home's side."""

    def __init__(self, runtime: Runtime, profile: SyncSettings, fileset: FilesetName) -> None:
        self._runtime = runtime
        self._profile = profile
        self._fileset = fileset
        self._kind_of, self._format_of = kinds_of(profile), format_of(profile)
        self._folder = runtime.directory.path / "merged" / profile.name
        self._made: dict[Digest, MergedFile] = {}

    async def merged(self, plan: SyncPlan, base: Reading, left: Reading, right: Reading) -> Merges:
        """What becomes of the collisions of a plan whose kinds have a format. The readers give the three versions."""
        await asyncio.to_thread(self.clear)
        found, refused = merge_candidates(plan, self._format_of)
        outcomes: dict[bytes, Entry | str] = dict(refused)
        for some in _batches(found):
            versions = [
                await _read(read, [each.versions[at] for each in some])
                for at, read in enumerate((base, left, right))
            ]
            for candidate, *raws in zip(some, *versions, strict=True):
                folder = self._folder / str(len(outcomes))
                outcomes[candidate.path] = await self._one(candidate, raws, folder)
        return outcomes

    def clear(self) -> None:
        """Remove what was merged, also by a run that was killed."""
        self._made.clear()
        shutil.rmtree(self._folder, ignore_errors=True)

    async def _one(
        self, candidate: MergeCandidate, raws: Sequence[bytes | None], folder: Path
    ) -> Entry | str:
        base, left, right = raws
        if base is None:
            return _BASE_GONE
        if left is None or right is None:
            return "it changed while the run read it"
        try:
            raw = await asyncio.to_thread(merge_file, candidate.form, base, left, right)
            entry = await asyncio.to_thread(self._laid, candidate, raw, folder)
        except UncleanMergeError as error:
            return str(error)
        return await self._refusal(entry, folder) or entry

    def _laid(self, candidate: MergeCandidate, raw: bytes, folder: Path) -> Entry:
        """The merged file as a view for a hook: it lies under its own path in a folder of its own."""
        file = folder / os.fsdecode(candidate.path)
        if len(os.fsencode(file)) >= PATH_MAX:
            raise UncleanMergeError("its path is too long for a view of it")
        file.parent.mkdir(mode=0o700, parents=True)
        file.write_bytes(raw)
        digest, chunks = digest_bytes(raw), None
        if len(raw) > CHUNKED_OVER:
            chunks = _chunks(file, len(raw), self._runtime.store)
        entry = merged_entry(candidate, len(raw), digest, chunks)
        self._made[digest] = MergedFile(file, len(raw))
        return entry

    async def _refusal(self, entry: Entry, folder: Path) -> str | None:
        """Why the kind's ``validate`` hook does not take the file."""
        kind = self._kind_of(entry.path)
        if kind is None or kind.validate is None:
            return None
        seen = {"INSTEP_STAGED": str(folder), "INSTEP_SYNC": self._profile.name}
        call = HookCall("validate", self._fileset, None, None, (entry.path,), seen)
        outcome = await run_hook(spec_of(kind.validate), call)
        return None if outcome.ok else f"validate of {kind.name}: {outcome.explained}"

    # --- as a source of contents --------------------------------------------------------------------------------

    def has(self, digest: Digest) -> bool:
        return digest in self._made

    def contents(self, digests: Sequence[Digest], first: int) -> Iterator[TransferAnswer]:
        """Merged files in this order, as answers from number ``first`` on; pulled in threads."""
        for number, digest in enumerate(digests, first):
            made = self._made[digest]
            with made.file.open("rb") as file:
                if made.size <= PIECE_BYTES:
                    yield TransferAnswer(number, AnswerStatus.WHOLE, 0, file.read())
                    continue
                for offset in range(0, made.size, PIECE_BYTES):
                    yield TransferAnswer(number, AnswerStatus.PIECE, offset, file.read(PIECE_BYTES))


def _batches(found: Sequence[MergeCandidate]) -> Iterator[list[MergeCandidate]]:
    batch: list[MergeCandidate] = []
    size = 0
    for each in found:
        more = sum(version.size for version in each.versions)
        if batch and (len(batch) == _AT_ONCE or size + more > _AT_ONCE_BYTES):
            yield batch
            batch, size = [], 0
        batch.append(each)
        size += more
    if batch:
        yield batch


async def _read(read: Reading, entries: Sequence[Entry]) -> list[bytes | None]:
    """The contents of small files; None for those that are not there any more."""
    parts: list[list[bytes]] = [[] for _ in entries]
    async for answers in read(entries):
        for answer in answers:
            parts[answer.want].append(bytes(answer.data))
    found = [b"".join(part) for part in parts]
    return [
        raw if digest_bytes(raw) == entry.digest else None for raw, entry in zip(found, entries, strict=True)
    ]


def _chunks(file: Path, size: int, store: NodeStore) -> Digest:
    pages: dict[Digest, bytes] = {}
    with closing_fd(os.open(file, os.O_RDONLY | os.O_CLOEXEC)) as fd:
        root = chunk_file(fd, size, pages.__setitem__)[1]
    store.put_pages(pages.items())
    return root
