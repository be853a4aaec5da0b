"""Sentences with a count say one path, and two paths."""

from __future__ import annotations

import re
from pathlib import Path

from instep.model.counts import counted, which

SOURCES = Path(__file__).parents[3] / "src" / "instep"
_NOUNS = "paths|files|nodes|partners|generations|contents|batches|changes|directories|settings|differences"
_BARE = re.compile(
    rf'f"[^"]*\{{(?:len\([^}}]*\)|[a-z_.]*(?:total|count|removed|missing|laid|put|more))\}} (?:{_NOUNS})\b'
)
_LIMITS = re.compile(r"the limit is|limit\b")


def test_one_is_singular() -> None:
    assert [counted(n, "path") for n in (0, 1, 2)] == ["0 paths", "1 path", "2 paths"]
    assert counted(1, "batch", "batches") == "1 batch"
    assert counted(3, "batch", "batches") == "3 batches"
    assert (which(1, "is", "are"), which(0, "is", "are")) == ("is", "are")


def test_no_sentence_counts_by_hand() -> None:
    """A count that is shown only above a limit is never one."""
    found = [
        f"{file.relative_to(SOURCES)}: {line.strip()}"
        for file in sorted(SOURCES.rglob("*.py"))
        if "testing" not in file.parts
        for line in file.read_text("utf-8").splitlines()
        if _BARE.search(line) and not _LIMITS.search(line)
    ]
    assert not found
