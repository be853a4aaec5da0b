"""A manifest with some paths as another manifest has them. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from instep.model.ids import Digest
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import GetPage
from instep.model.manifest.pages import PutPage
from instep.model.manifest.walk import Reader, entries_below
from instep.model.paths import is_below, parent_of, sort_key


def graft(base: Digest, other: Digest, paths: Sequence[bytes], get: GetPage, put: PutPage) -> Digest:
    """``base`` with everything at and below ``paths`` as ``other`` has it. Directories above a path that ``base`` does
    not have come along; a file that stands where one of them has to be makes room."""
    changes: dict[bytes, Entry | None] = {}
    reader = Reader(get)
    for path in _topmost(paths):
        for old in _at_and_below(base, path, get, reader):
            changes[old.path] = None
        found = list(_at_and_below(other, path, get, reader))
        changes.update((entry.path, entry) for entry in found)
        above = parent_of(path)
        while found and above:
            here = reader.lookup(base, above)
            if here is None or here.kind is not Kind.DIR:
                changes.setdefault(above, reader.lookup(other, above))
            above = parent_of(above)
    ordered = sorted(changes.items(), key=lambda item: sort_key(item[0]))
    return edit(base, ordered, get, put)


def _topmost(paths: Sequence[bytes]) -> list[bytes]:
    """The paths in order, less paths that lie below another one."""
    tops: list[bytes] = []
    for path in sorted(set(paths), key=sort_key):
        if not tops or not is_below(path, tops[-1]):
            tops.append(path)
    return tops


def _at_and_below(root: Digest, path: bytes, get: GetPage, reader: Reader) -> Iterator[Entry]:
    entry = reader.lookup(root, path)
    if entry is not None:
        yield entry
        yield from entries_below(root, path, get)
