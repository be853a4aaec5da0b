"""Where a tree and a manifest differ: a merge of two sorted streams, holding one item of each.

At a writer a difference is *unpublished*, at a partner *drift*; the caller maps the manifest through
``fidelity.expected_local`` first, so that both sides speak of this node's form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from instep.model.manifest.entry import Entry, same_but_for_times_of_directories
from instep.model.paths import is_below, sort_key
from instep.tree.scan.cover import Cover
from instep.tree.scan.listing import Problem
from instep.tree.scan.scan import Scanned

_HIDES_WHAT_IS_BELOW = frozenset(("unreadable", "mount"))


class Difference(msgspec.Struct, frozen=True, gc=False):
    """``expected`` and ``found`` are None where the path is missing. A ``problem`` stands for a path that
    could not be looked at; then ``found`` is None and means nothing."""

    path: bytes
    expected: Entry | None
    found: Entry | None
    problem: Problem | None = None


def compare(
    manifest: Iterable[Entry],
    scanned: Iterable[Scanned | Problem],
    on_scanned: Callable[[Scanned], None] | None = None,
) -> Iterator[Difference]:
    """The differences in path order; ``born`` and times of directories do not count.

    Expected paths below an unreadable directory or a mount are not reported: nothing shows whether they are
    there. ``on_scanned`` sees every scanned item as it passes (the caller saves its rows).
    """
    expected_items = iter(manifest)
    expected = next(expected_items, None)
    hidden_below: bytes | None = None

    def missing(before: bytes | None) -> Iterator[Difference]:
        nonlocal expected
        while expected is not None and (before is None or sort_key(expected.path) < before):
            if hidden_below is None or not is_below(expected.path, hidden_below):
                yield Difference(expected.path, expected, None)
            expected = next(expected_items, None)

    for item in scanned:
        if isinstance(item, Scanned):
            path, found, problem = item.entry.path, item.entry, None
            if on_scanned is not None:
                on_scanned(item)
        else:
            path, found, problem = item.path, None, item
        if expected is None or expected.path != path:
            yield from missing(sort_key(path))
        if expected is not None and expected.path == path:
            if found is None or not same_but_for_times_of_directories(expected, found):
                yield Difference(path, expected, found, problem)
            expected = next(expected_items, None)
        else:
            yield Difference(path, None, found, problem)
        if problem is not None and problem.what in _HIDES_WHAT_IS_BELOW:
            hidden_below = path
    yield from missing(None)


def entries_of(
    covered: Cover, lookup: Callable[[bytes], Entry | None], after: Callable[[bytes], Iterator[Entry]]
) -> Iterator[Entry]:
    """The entries of a manifest that a partial scan of ``covered`` should meet, in path order.

    ``lookup`` finds one entry, ``after`` iterates from behind a path (``manifest.lookup``, ``iterate``).
    """
    trees = set(covered.trees)
    for path in sorted((*covered.trees, *covered.entries), key=sort_key):
        entry = lookup(path) if path else None
        if entry is not None:
            yield entry
        if path not in trees:
            continue
        for below in after(path):
            if not is_below(below.path, path):
                break
            yield below
