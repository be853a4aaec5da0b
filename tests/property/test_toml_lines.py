"""Whatever a document holds, every key is found on a line that shows it."""

from __future__ import annotations

import tomllib
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from instep.node.config.toml_lines import KeyPath, element, key_lines

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs")), max_size=8) | st.sampled_from(
    ["#", "a.b", "[x]", '"', "'", "=", "\\", "{", "}", "new\nline", '"""', "\t"]
)
SCALARS = st.integers(-9, 9) | st.booleans() | TEXT | st.floats(allow_nan=False, allow_infinity=False)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


def paths(value: Any, path: KeyPath = ()) -> list[KeyPath]:
    if isinstance(value, list):
        return [path, *(found for i, each in enumerate(value) for found in paths(each, (*path, element(i))))]
    if not isinstance(value, dict):
        return [path]
    return [path, *(found for key, below in value.items() for found in paths(below, (*path, key)))]


@given(st.dictionaries(TEXT, VALUES, max_size=5), st.booleans())
def test_every_key_has_its_line(document: dict[str, Any], has_comments: bool) -> None:
    text = tomlkit.dumps(document)
    if has_comments:
        text = "# [not] = a table\n\n" + text
    assert tomllib.loads(text) == document
    lines = key_lines(text)
    rows = text.split("\n")
    for path in paths(document):
        if path and path[-1].startswith("[") and path[-1] in (element(0), element(1), element(2)):
            assert lines[path] >= lines[path[:-1]]
        elif path:
            row = rows[lines[path] - 1]
            assert path[-1] in row or '"' in row or "'" in row, (path, row)
