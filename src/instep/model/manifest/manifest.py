"""Manifests: the sorted entries of a generation, as a Merkle tree of pages named by its root.

Implements the section "Manifests" of ``docs/spec/manifest.md``. This module is the door: it builds, and
names what the rooms beside it do (``walk`` reads, ``edit`` changes, ``diff`` compares, ``check`` judges
what a peer sent).
"""

from __future__ import annotations

from collections.abc import Iterable
from zlib import crc32

from instep.model.ids import Digest
from instep.model.limits import INLINE_XATTR_MAX
from instep.model.manifest.check import build_difference, check_diff, check_tree, missing
from instep.model.manifest.cutter import SPEC, Shape, Stack
from instep.model.manifest.diff import Change, diff
from instep.model.manifest.edit import edit
from instep.model.manifest.entry import Entry
from instep.model.manifest.pages import PAGE_MAX_BYTES, GetPage, PageMissing, PutPage, digest_of, encode_page
from instep.model.manifest.walk import Reader, Totals, iterate, lookup, totals

__all__ = [
    "EMPTY_ROOT",
    "Change",
    "GetPage",
    "PageMissing",
    "PutPage",
    "Reader",
    "Totals",
    "build",
    "build_difference",
    "check_diff",
    "check_tree",
    "diff",
    "edit",
    "iterate",
    "lookup",
    "missing",
    "totals",
]

EMPTY_ROOT = digest_of(encode_page(0, []))
"""The root of a tree without entries."""

_HEAVY = PAGE_MAX_BYTES // INLINE_XATTR_MAX
"""After this many inline extended attributes a page can be full before it has its number of entries."""


def build(entries: Iterable[Entry], put: PutPage, shape: Shape = SPEC) -> Digest:
    """The root of the manifest of ``entries``, which come sorted and without duplicates (anything else is
    a bug of the caller and stops it). Streams: one open page a level is held. ``put`` gets every page,
    children before parents."""
    stack = Stack(put, shape)
    leaves = stack.leaves
    mask, max_items = shape.mask, shape.max_items
    items = leaves.items
    heavy = 0
    for entry in entries:
        items.append(entry)
        if entry.extra is not None:
            heavy += len(entry.extra.xattrs)
            if heavy > _HEAVY:
                heavy = 0
                leaves.close(final=False)
                items = leaves.items
        if items and (not crc32(entry.path) & mask or len(items) >= max_items):
            leaves.close(final=False)
            items = leaves.items
    return stack.finish()
