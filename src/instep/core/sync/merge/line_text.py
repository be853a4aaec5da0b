"""Merging text line by line: changes that do not touch each other are taken together.

After Khanna, Kunal and Pierce, "A formal investigation of diff3" (2007): stretches that all three have are stable,
the lines between them are taken from the side that changed them.
"""

from __future__ import annotations

from collections.abc import Iterator
from difflib import SequenceMatcher

from instep.core.sync.merge.document import UncleanMergeError

LINES_MAX = 20_000
EQUAL_MAX = 2_000_000
"""Pairs of equal lines that a comparison may look at."""


def merge_lines(base: bytes, left: bytes, right: bytes) -> bytes:
    """Both changes in one. ``UncleanMergeError`` where they touch, for NUL, and for texts too long to compare."""
    texts = [text.splitlines(keepends=True) for text in (base, left, right)]
    if any(b"\0" in text for text in (base, left, right)) or any(len(text) > LINES_MAX for text in texts):
        raise UncleanMergeError(f"no text of at most {LINES_MAX} lines")
    merged: list[bytes] = []
    at = (0, 0, 0)
    for stable, length in _stable(*texts):
        merged += _between(*(text[a:b] for text, a, b in zip(texts, at, stable, strict=True)))
        merged += texts[0][stable[0] : stable[0] + length]
        at = tuple(each + length for each in stable)  # type: ignore[assignment]
    return b"".join(merged)


def _between(base: list[bytes], left: list[bytes], right: list[bytes]) -> list[bytes]:
    if right in (base, left):
        return left
    if left == base:
        return right
    raise UncleanMergeError("both sides changed the same lines")


def _stable(
    base: list[bytes], left: list[bytes], right: list[bytes]
) -> Iterator[tuple[tuple[int, int, int], int]]:
    """The stretches that all three have, in order: where they begin in each, and how long they are; at the end an empty
    one."""
    ours = {a + i: b + i for a, b, n in _matches(base, left) for i in range(n)}
    theirs = {a + i: b + i for a, b, n in _matches(base, right) for i in range(n)}
    start = 0
    while start < len(base):
        if start not in ours or start not in theirs:
            start += 1
            continue
        length = 1
        while (
            ours.get(start + length) == ours[start] + length
            and theirs.get(start + length) == theirs[start] + length
        ):
            length += 1
        yield (start, ours[start], theirs[start]), length
        start += length
    yield (len(base), len(left), len(right)), 0


def _matches(base: list[bytes], side: list[bytes]) -> list[tuple[int, int, int]]:
    counts: dict[bytes, int] = {}
    for line in side:
        counts[line] = counts.get(line, 0) + 1
    if sum(counts.get(line, 0) for line in base) > EQUAL_MAX:
        raise UncleanMergeError("too many equal lines")
    matcher = SequenceMatcher(None, base, side, autojunk=False)
    return [(block.a, block.b, block.size) for block in matcher.get_matching_blocks()]
