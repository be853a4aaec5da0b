"""Which files of a plan may be merged, and the entry of a merged file.

Implements the section "Merging files" of ``docs/spec/sync.md``. An entry
comes out alike whichever sides hold the merged file already: so a run that was cut off can be repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import msgspec

from instep.core.sync.merge.document import UncleanMergeError
from instep.core.sync.merge.formats import SIZE_MAX, MergeFormat
from instep.core.sync.plan import SyncPlan
from instep.core.sync.table import Listing
from instep.model.ids import Digest
from instep.model.manifest.entry import Entry, Extra, Kind, without_chunks


class MergeCandidate(NamedTuple):
    """A file that both sides changed, of a kind with a format."""

    form: MergeFormat
    base: Entry
    left: Entry
    right: Entry

    @property
    def path(self) -> bytes:
        return self.base.path

    @property
    def versions(self) -> tuple[Entry, Entry, Entry]:
        return self.base, self.left, self.right


class MergeCandidates(NamedTuple):
    """``refused`` says of paths whose kind has a format why their files are not merged."""

    found: tuple[MergeCandidate, ...]
    refused: dict[bytes, str]


def merge_candidates(plan: SyncPlan, format_of: Callable[[bytes], MergeFormat | None]) -> MergeCandidates:
    """The collisions of a plan whose files may be merged."""
    steps = {step.path: step for step in plan.steps}
    found, refused = [], {}
    for listed in plan.listed:
        form = format_of(listed.path) if listed.why is Listing.COLLISION else None
        step = steps.get(listed.path)
        if form is None or step is None:
            continue
        versions = [each for each in (step.base, step.left, step.right) if each is not None]
        if any(each.kind is not Kind.FILE for each in versions):
            refused[listed.path] = "not each of them is a file"
        elif len(versions) < 3:
            refused[listed.path] = "both sides added it"
        elif any(each.extra is not None and each.extra.link_group is not None for each in versions):
            refused[listed.path] = "it is a hard link"
        elif max(each.size for each in versions) > SIZE_MAX:
            refused[listed.path] = f"it is larger than {SIZE_MAX} bytes"
        else:
            found.append(MergeCandidate(form, *versions))
    return MergeCandidates(tuple(found), refused)


def merged_entry(candidate: MergeCandidate, size: int, digest: Digest, chunks: Digest | None) -> Entry:
    """The entry of a merged file: the older birth, the newer time, each bit of the mode and the attributes from the
    side that changed them. ``UncleanMergeError`` for attributes that both changed. ``chunks`` is the root of a large
    file's chunk list."""
    base, left, right = candidate.versions
    extra = msgspec.structs.replace(_changed(*map(_attributes, candidate.versions)), chunks=chunks)
    return Entry(
        path=base.path,
        kind=Kind.FILE,
        mode=(left.mode & right.mode) | ((left.mode ^ right.mode) & ~base.mode),
        size=size,
        mtime_ns=max(left.mtime_ns, right.mtime_ns),
        digest=digest,
        born_ms=min(left.born_ms, right.born_ms),
        extra=extra if extra != Extra() else None,
    )


def _changed(base: Extra, left: Extra, right: Extra) -> Extra:
    if right in (base, left):
        return left
    if left == base:
        return right
    raise UncleanMergeError("both sides changed its owner or attributes")


def _attributes(entry: Entry) -> Extra:
    return msgspec.structs.replace(without_chunks(entry).extra or Extra(), sparse=False)
