"""The paths that a partial scan must look at."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from instep.model.definition import Preserve
from instep.model.paths import sort_key
from instep.tree.objects.fidelity import Local


class Cover(NamedTuple):
    """The paths of a partial scan: ``trees`` with all below them, ``entries`` alone; disjoint, sorted."""

    trees: tuple[bytes, ...]
    entries: tuple[bytes, ...]

    @property
    def is_everything(self) -> bool:
        return self.trees == (b"",)


EVERYTHING = Cover((b"",), ())


def cover(trees: Iterable[bytes], entries: Iterable[bytes], local: Local) -> Cover:
    """The least that a partial scan must look at for these dirty paths.

    A tree covers what lies below it. Where hard links are kept everything is looked at, because a link made
    or removed changes entries elsewhere.
    """
    if local.keeps(Preserve.HARDLINKS):
        return EVERYTHING
    kept: list[bytes] = []
    for path in sorted(set(trees), key=sort_key):
        if not kept or not (kept[-1] == b"" or path == kept[-1] or path.startswith(kept[-1] + b"/")):
            kept.append(path)
    tops = set(kept)
    alone = [path for path in set(entries) if path and not _is_covered(path, tops)]
    return Cover(tuple(kept), tuple(sorted(alone, key=sort_key)))


def _is_covered(path: bytes, tops: set[bytes]) -> bool:
    if b"" in tops:
        return True
    while path:
        if path in tops:
            return True
        path = path.rpartition(b"/")[0]
    return False
