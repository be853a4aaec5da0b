"""The pages for newcomers name places that exist: functions by their names, files and rooms by their paths."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from docs.generator.pages import ROOT
from docs.generator.room_map import HOUSE

DOCS = ROOT / "docs"
PAGES = [page for page in sorted(DOCS.rglob("*.md")) if "reference" not in page.parts]
NAMED = re.compile(rf"`((?:{'|'.join(HOUSE)}|errors)(?:\.\w+){{2,}})`")
PATH = re.compile(r"`((?:src|tests|docs|bench|packaging|examples)/[\w./-]+|(?:\w+/)+\w+\.(?:py|sql|toml))`")
OUTSIDE = re.compile(r"(?<!\w)(?:conf|conf\.d|etc|state|pki)/")
STEPS_MAX = 20
QUESTIONS_MIN = 15


def test_a_change_is_walked_in_at_most_twenty_functions() -> None:
    section = (
        (DOCS / "architecture.md").read_text().partition("## How a change travels")[2].partition("\n## ")[0]
    )
    steps = re.findall(
        r"^\| (\d+)\. [^|]+\| \[`([\w.]+)`\]\(\.\./src/instep/([\w/]+)\.py\) \|", section, re.MULTILINE
    )
    assert [int(number) for number, _, _ in steps] == list(range(1, len(steps) + 1))
    assert STEPS_MAX // 2 < len(steps) <= STEPS_MAX
    for _, name, path in steps:
        assert name.startswith(path.replace("/", ".") + "."), "the link goes to the function's own module"
        assert callable(found(name)), name


def found(name: str) -> object:
    """The object of a dotted name below ``instep``."""
    words = ["instep", *name.split(".")]
    for length in range(len(words), 0, -1):
        path = ROOT / "src" / "/".join(words[:length])
        if path.is_dir() or path.with_suffix(".py").is_file():
            value: object = importlib.import_module(".".join(words[:length]))
            for word in words[length:]:
                value = getattr(value, word)
            return value
    raise AttributeError(name)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_every_function_and_path_that_a_page_names_exists(page: Path) -> None:
    text = page.read_text()
    for name in NAMED.findall(text):
        found(name)
    lost = [
        path
        for path in PATH.findall(text)
        if not OUTSIDE.match(path)
        and not any((base / path).exists() for base in (ROOT, ROOT / "src/instep", ROOT / "tests"))
    ]
    assert not lost


def test_the_newcomers_page_answers_the_usual_questions_with_one_place_each() -> None:
    rows = re.findall(r"^\| (?!\.\.\.|-)([^|]+) \| ([^|]+) \|", (DOCS / "where.md").read_text(), re.MULTILINE)
    rows = [(question, place) for question, place in rows if question.strip("- ")]
    assert len(rows) >= QUESTIONS_MIN
    assert len({question for question, _ in rows}) == len(rows)
    many = [question for question, place in rows if len(re.findall(r"\]\(", place)) != 1]
    assert not many, "one place each"
