"""A document as nested, keyed items with all of its bytes, and the three-way merge of such documents.

A reader of a format cuts its bytes into containers of items. Every byte belongs to exactly one part, so an unchanged
document is written as it was read, comments, order and white space included. Documents are compared by meaning.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

Key = Hashable


class UncleanMergeError(Exception):
    """Two changes that do not fit together, or bytes that are not of the format: the file is a collision."""


@dataclass(frozen=True, slots=True)
class Value:
    """A part that is never merged inside. ``meaning`` compares equal where only the writing differs."""

    raw: bytes
    meaning: Hashable

    def written(self) -> bytes:
        return self.raw


@dataclass(frozen=True, slots=True)
class DocumentItem:
    """``lead`` are the bytes in front of it, ``remark`` what of them people wrote (comments)."""

    key: Key
    lead: bytes
    remark: bytes
    body: Value | Container

    @property
    def meaning(self) -> Hashable:
        return self.key, self.remark, self.body.meaning

    def written(self) -> bytes:
        return self.lead + self.body.written()


@dataclass(frozen=True, slots=True)
class Container:
    """Items between ``head`` and ``tail``, separated by ``separator``; their keys are distinct. ``remark``: the meaning
    of head and tail."""

    kind: Hashable
    head: bytes
    items: tuple[DocumentItem, ...]
    tail: bytes
    remark: Hashable
    separator: bytes = b""

    @property
    def meaning(self) -> Hashable:
        return self.kind, self.remark, tuple(item.meaning for item in self.items)

    def written(self) -> bytes:
        return self.head + self.separator.join(item.written() for item in self.items) + self.tail


Part = Value | Container


def merged(base: Part, left: Part, right: Part) -> Part:
    """Both changes in one, in the left's writing. ``UncleanMergeError`` where both changed one value or its place."""
    if right.meaning in (base.meaning, left.meaning):
        return left
    if left.meaning == base.meaning:
        return right
    if not (
        isinstance(base, Container)
        and isinstance(left, Container)
        and isinstance(right, Container)
        and base.kind == left.kind == right.kind
    ):
        raise UncleanMergeError("both sides changed one value")
    if left.remark != right.remark and base.remark not in (left.remark, right.remark):
        raise UncleanMergeError("both sides changed one remark")
    frame = right if left.remark == base.remark != right.remark else left
    items = _merged_items(base.items, left.items, right.items)
    return replace(left, head=frame.head, items=_spaced(items, left), tail=frame.tail, remark=frame.remark)


def _merged_items(
    base: Sequence[DocumentItem], left: Sequence[DocumentItem], right: Sequence[DocumentItem]
) -> list[DocumentItem]:
    ours, theirs = {item.key: item for item in left}, {item.key: item for item in right}
    before = {item.key: item for item in base}
    _refuse_reordering(base, left, right)
    kept: dict[Key, DocumentItem] = {}
    for key in ours.keys() | theirs.keys() | before.keys():
        item = _merged_item(before.get(key), ours.get(key), theirs.get(key))
        if item is not None:
            kept[key] = item
    order = [item.key for item in left if item.key in kept]
    for item in right:
        if item.key in kept and item.key not in ours:
            order.insert(_place(item.key, right, order), item.key)
    return [kept[key] for key in order]


def _merged_item(
    base: DocumentItem | None, left: DocumentItem | None, right: DocumentItem | None
) -> DocumentItem | None:
    values = [item.meaning if item is not None else None for item in (base, left, right)]
    if values[2] in (values[0], values[1]):
        return left
    if values[1] == values[0]:
        return right
    if base is None or left is None or right is None:
        raise UncleanMergeError("both sides added or removed one item differently")
    if left.remark != right.remark and base.remark not in (left.remark, right.remark):
        raise UncleanMergeError("both sides changed one remark")
    frame = right if left.remark == base.remark != right.remark else left
    return replace(frame, body=merged(base.body, left.body, right.body))


def _place(key: Key, right: Sequence[DocumentItem], order: Sequence[Key]) -> int:
    """Behind the nearest item before it on the right that is there."""
    keys = [item.key for item in right]
    for before in reversed(keys[: keys.index(key)]):
        if before in order:
            return order.index(before) + 1
    return 0


def _refuse_reordering(
    base: Sequence[DocumentItem], left: Sequence[DocumentItem], right: Sequence[DocumentItem]
) -> None:
    """Items that all three have stand in one order: a change of order beside another change has no certain outcome."""
    common = {item.key for item in base} & {item.key for item in left} & {item.key for item in right}
    orders = [[item.key for item in side if item.key in common] for side in (base, left, right)]
    if not orders[0] == orders[1] == orders[2]:
        raise UncleanMergeError("one side changed the order, the other something else")


def _spaced(items: Sequence[DocumentItem], left: Container) -> tuple[DocumentItem, ...]:
    """An item that comes without bytes in front of it takes the white space of its neighbours."""
    if not items or not left.items:
        return tuple(items)
    usual = next(
        (i.lead for i in left.items[1:] if not i.remark),
        left.items[0].lead if not left.items[0].remark else b"",
    )
    spaced = []
    for at, item in enumerate(items):
        if at and not item.lead and usual and not item.remark:
            item = replace(item, lead=usual)
        spaced.append(item)
    return tuple(spaced)
