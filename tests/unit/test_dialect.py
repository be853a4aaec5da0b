"""Counts the dialect that ``style.md`` rules out: sentences without a named subject. The counts may only fall."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

DIALECT = {
    "a headless who": re.compile(
        r"(?:^|[.;:,(] |\b(?:and|but|or|for|by|to|of|from|that|when|if|until|before|after|with|than|asks?|tells?|as) )"
        r"[Ww]ho(?:ever|m)? (?!else\b)"
    ),
    "a headless what": re.compile(
        r"(?:^|[.;:(] |\b(?:and|but|or|for|by|to|of|from|with|than|as) )[Ww]hat "
        r"(?:is|was|are|were|has|had|have|may|must|can|comes?|goes|lies|stands?|nothing|nobody)\b"
    ),
    "tell and told": re.compile(r"\b(?:is|are|was|were|be|been|being) told\b|\b[Tt]ells?\b"),
    "somebody and nobody": re.compile(r"\b(?:[Ss]ome|[Nn]o|[Aa]ny|[Ee]very)body\b"),
    "whoever": re.compile(r"\b[Ww]hoever\b"),
}
LIMITS = {"src": 5, "tests": 9, "docs": 5}
"""How often each folder may still speak it. A change that lowers a count lowers its limit."""
RELEASED = re.compile(r"^## \d", re.MULTILINE)
"""Where the released part of the changelog begins: it is history, and stays as it was written."""
SLACK_MAX = 40
SHOWN_MAX = 15


def _files(*patterns: str) -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    names = [name for name in listed.stdout.decode().split("\0") if name]
    return [ROOT / name for name in sorted(names) if (ROOT / name).is_file()]


def sentences_of_python(source: str) -> Iterator[tuple[int, str]]:
    """Docstrings, comments, and texts of at least four words, formatted ones as a whole; with their line."""
    tree = ast.parse(source)
    parts: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            texts = [each for each in node.values if isinstance(each, ast.Constant)]
            parts.update(map(id, texts))
            whole = " … ".join(str(each.value) for each in texts)
            if len(whole.split()) >= 4:
                yield node.lineno, whole
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in parts
            and len(node.value.split()) >= 4
        ):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def sentences_of_markdown(source: str) -> Iterator[tuple[int, str]]:
    """Paragraphs and table rows, without fenced code."""
    is_code = False
    for number, line in enumerate(source.splitlines(), 1):
        if line.lstrip().startswith("```"):
            is_code = not is_code
        elif not is_code:
            yield number, line.strip().lstrip("-*|># ")


def found_in(folder: str) -> list[str]:
    """Each use of the dialect as ``file:line: kind: excerpt``."""
    found = []
    for path in _files(
        f"{folder}/*.py", f"{folder}/*.md", *(["README.md", "CHANGELOG.md"] if folder == "docs" else [])
    ):
        source = path.read_text("utf-8")
        if path.name == "CHANGELOG.md":
            source = RELEASED.split(source)[0]
        if path == Path(__file__):
            continue
        read = sentences_of_python if path.suffix == ".py" else sentences_of_markdown
        for line, text in read(source):
            flat = " ".join(text.split())
            for kind, pattern in DIALECT.items():
                for match in pattern.finditer(flat):
                    excerpt = flat[max(0, match.start() - 30) : match.end() + 40]
                    found.append(f"{path.relative_to(ROOT)}:{line}: {kind}: {excerpt}")
    return found


@pytest.mark.parametrize("folder", LIMITS)
def test_the_dialect_only_gets_rarer(folder: str) -> None:
    found = found_in(folder)
    limit = LIMITS[folder]
    assert len(found) <= limit, (
        "name the subject: peer, partner, writer, node, caller, operator, file\n"
        + "\n".join(found[:SHOWN_MAX])
    )
    assert limit - len(found) < SLACK_MAX, f"{folder} has {len(found)} by now: lower its limit from {limit}"
