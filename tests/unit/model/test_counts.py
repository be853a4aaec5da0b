"""Sentences with a count say one path, and two paths."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from instep.model.counts import counted, lasting, which

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


@pytest.mark.parametrize(
    ("ms", "words"),
    [(1, "1 ms"), (200, "0.2 s"), (1_500, "1.5 s"), (35_000, "35 s"), (119_999, "120 s"), (120_000, "2 min"),
     (330_000, "5 min 30 s"), (7_200_000, "2 h"), (7_500_000, "2 h 5 min"), (172_800_000, "2 days"),
     (604_800_000, "7 days"), (180_000_000, "2 days 2 h")],
)  # fmt: skip
def test_durations_are_for_people(ms: int, words: str) -> None:
    assert lasting(ms) == words
