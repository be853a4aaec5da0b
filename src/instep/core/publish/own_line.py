"""The generation of a writer's own line at the position of one that a partner reports."""

from __future__ import annotations

from collections.abc import Callable

from instep.model.generation import SignedGeneration
from instep.model.ids import Digest, HeadRef

SKIPPED_MAX = 16
"""So many numbers in a row are looked past: each commit that failed took one."""


def own_at(
    ref: HeadRef,
    at: Callable[[int, int], SignedGeneration | None],
    get: Callable[[Digest], SignedGeneration | None],
) -> HeadRef | None:
    """The writer's generation with the epoch and number of ``ref``. Where a commit that failed took that number, the
    generation below, on which the next one was built: ``ref`` is no ancestor of that one then. None when the stored
    records do not say."""
    found = at(ref.epoch, ref.number)
    if found is not None:
        return found.ref()
    numbers = range(ref.number + 1, ref.number + 1 + SKIPPED_MAX)
    above = next((each for number in numbers if (each := at(ref.epoch, number)) is not None), None)
    parent = None if above is None else get(above.body().parent)
    if parent is None or parent.ref().position >= ref.position:
        return None
    return parent.ref()
