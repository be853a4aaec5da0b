"""Two texts line by line, as a unified difference. Pure, and bounded whatever the texts are made to be."""

from __future__ import annotations

from collections import Counter
from difflib import unified_diff

TEXT_MAX = 256 << 10
"""Bytes of a side; a larger one is named and not compared."""
LINES_MAX = 5_000
"""Lines of the answer; what follows is cut."""
PAIRS_MAX = 50_000
"""Pairs of equal lines that are tried. Texts that repeat lines more often are shown as a whole."""
COMPARED_MAX = 8_000
AROUND = 3
LINE_MAX = 2_000


def is_binary(raw: bytes) -> bool:
    return b"\0" in raw


def difference(old: bytes, new: bytes) -> tuple[tuple[str, ...], bool]:
    """Lines that begin with ``@``, a blank, ``-`` or ``+``; and whether lines were cut."""
    before, after = _lines(old), _lines(new)
    if _is_costly(before, after):
        found = [
            f"@@ -1,{len(before)} +1,{len(after)} @@", *(f"-{line}" for line in before), *(f"+{line}" for line in after)
        ]  # fmt: skip
    else:
        found = list(unified_diff(before, after, lineterm="", n=AROUND))[2:]
    return tuple(line[:LINE_MAX] for line in found[:LINES_MAX]), len(found) > LINES_MAX


def _lines(raw: bytes) -> list[str]:
    """Bytes that are no UTF-8 show as escapes; a last line without an end is marked as in other tools."""
    lines = raw.decode("utf-8", "backslashreplace").split("\n")
    if lines[-1] == "":
        return lines[:-1]
    return [*lines[:-1], f"{lines[-1]} [no end of line]"]


def _is_costly(before: list[str], after: list[str]) -> bool:
    if len(before) + len(after) > COMPARED_MAX:
        return True
    left, right = Counter(before), Counter(after)
    popular = len(after) // 100 + 1 if len(after) >= 200 else len(after)
    return sum(left[line] * count for line, count in right.items() if count <= popular) > PAIRS_MAX
