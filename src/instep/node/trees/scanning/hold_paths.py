"""Paths of ``hold_while``: the first that exists below a root."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterable, Sequence

from instep.tree.root.beneath import NOT_BENEATH, Root
from instep.tree.root.descriptors import Tolerated

_WILD = frozenset(b"*?[")


def first_there(root: Root, patterns: Iterable[bytes]) -> bytes | None:
    """The first path that one of the patterns names; a star stands for a part of one name. Links are not followed."""
    return next((found for pattern in patterns if (found := _first(root, b"", pattern.split(b"/")))), None)


def _first(root: Root, above: bytes, parts: Sequence[bytes]) -> bytes | None:
    first, *rest = parts
    names = [first]
    if not _WILD.isdisjoint(first):
        names = []
        with Tolerated(*NOT_BENEATH):
            names = fnmatch.filter(root.names(above), first)
    for name in names:
        path = above + b"/" + name if above else name
        if rest and (found := _first(root, path, rest)) is not None:
            return found
        if not rest and root.stat_or_none(path) is not None:
            return path
    return None
