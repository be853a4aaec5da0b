"""Paths that an apply leaves alone, because what was changed there was offered to the line's writer.

A stage is made of the differences between what the tree holds and what it shall hold. A kept path counts as if the
tree held the target there already: then no step touches it, and an accepted change is not archived when it comes back.
"""

from __future__ import annotations

from collections.abc import Iterable

from instep.model.ids import Digest
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import iterate
from instep.model.manifest.pages import GetPage, PutPage
from instep.model.manifest.walk import Reader
from instep.model.paths import is_below, parent_of, sort_key


def as_in(root: Digest, target: Digest, paths: Iterable[bytes], get: GetPage, put: PutPage) -> Digest:
    """``root`` with ``paths`` as ``target`` has them. Left out are directories that cease to be one with something in
    them that is not kept: such a change takes other paths along."""
    reader = Reader(get)
    changes: dict[bytes, Entry | None] = {}
    rising = sorted(set(paths), key=sort_key)
    for path in reversed(rising):  # paths below a directory come before it
        held, wanted = reader.lookup(root, path), reader.lookup(target, path)
        is_end = _ends(held, wanted)
        if (wanted is None or is_end) and (not is_end or _is_emptied(root, path, changes, get)):
            changes[path] = wanted
    for path in rising:
        held, wanted = reader.lookup(root, path), reader.lookup(target, path)
        if wanted is not None and not _ends(held, wanted):
            above = _above(reader, root, target, path, changes)
            if above is not None:
                changes |= {**above, path: wanted}
    ordered = sorted(changes.items(), key=lambda item: sort_key(item[0]))
    return edit(root, ordered, get, put)


def _ends(held: Entry | None, wanted: Entry | None) -> bool:
    """Whether a directory ceases to be one."""
    if held is None or held.kind is not Kind.DIR:
        return False
    return wanted is None or wanted.kind is not Kind.DIR


def _is_emptied(root: Digest, path: bytes, changes: dict[bytes, Entry | None], get: GetPage) -> bool:
    """Whether everything below the directory goes with these changes."""
    for entry in iterate(root, get, after=path):
        if not is_below(entry.path, path):
            return True
        if changes.get(entry.path, entry) is not None:
            return False
    return True


def _above(
    reader: Reader, root: Digest, target: Digest, path: bytes, changes: dict[bytes, Entry | None]
) -> dict[bytes, Entry | None] | None:
    """The directories above ``path`` that only ``target`` has; None where something else lies in their place."""
    found: dict[bytes, Entry | None] = {}
    above = parent_of(path)
    while above:
        entry = changes[above] if above in changes else reader.lookup(root, above)
        if entry is not None:
            return found if entry.kind is Kind.DIR else None
        found[above] = reader.lookup(target, above)
        above = parent_of(above)
    return found
