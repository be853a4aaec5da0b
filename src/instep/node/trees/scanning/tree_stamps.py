"""The stamps of a writer's tree as its last looks saw it, and the manifest that has the tree just so."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from instep.model.ids import Digest
from instep.node.trees.scanning.scan_tally import PATHS_KEPT_MAX
from instep.node.trees.scanning.writer_scan import WriterScanned
from instep.tree.scan.stamps import RESTLESS_MAX, Stamps

_Kept = tuple[Digest, Digest, Path, Stamps]
"""A manifest, the definition that the look went by, the root directory, and the stamps."""


@dataclass(slots=True)
class TreeStamps:
    """Where the tree has these stamps, it is as the manifest says: that stays true for good, for whatever is changed
    gets another stamp. ``_new`` is of the last look, whose manifest may become a generation or not."""

    _kept: _Kept | None = None
    _new: _Kept | None = None

    def of(self, base: Digest, definition: Digest, root: Path) -> Stamps | None:
        """Those that belong to the manifest ``base``, which a look is about to be compared with."""
        if self._new is not None and self._new[0] == base:
            self._kept = self._new
        self._new = None
        if self._kept is None or self._kept[:3] != (base, definition, root):
            return None
        return self._kept[3]

    def looked(self, known: Stamps | None, definition: Digest, root: Path, found: WriterScanned) -> None:
        """A look ended; ``known`` are the stamps that belong to its base."""
        stamps = found.stamps
        if stamps is not None:
            stamps = _with_restless(stamps, found.restless)
        elif known is not None and len(found.paths) < PATHS_KEPT_MAX:
            stamps = _with_restless(known, found.restless | frozenset(found.paths))
        self._new = (found.summary.root, definition, root, stamps) if stamps is not None else None


def _with_restless(stamps: Stamps, restless: Collection[bytes]) -> Stamps | None:
    """None where these are too many."""
    every = stamps.restless.union(restless)
    return Stamps(stamps.now_ns, stamps.by_directory, every) if len(every) <= RESTLESS_MAX else None
