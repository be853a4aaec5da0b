"""Whatever stands at a key, the file is read or refused with problems that name their line; nothing breaks off."""

from __future__ import annotations

import tomllib
from typing import Any

import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from instep.errors import ConfigError
from instep.node.config.keys import keys_of, sections_of
from instep.node.config.loading import parse
from instep.node.config.settings import Settings
from tests.golden.configuration_cases import TRIED

RAWS = [tomllib.loads(f"v = {one}")["v"] for row in TRIED.strip().splitlines() for one in row.split(" | ")]
ODD = st.recursive(
    st.text(max_size=6) | st.integers() | st.floats() | st.booleans() | st.dates() | st.sampled_from(RAWS),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)
NAMES = st.sampled_from(["main", "s1", "maps", "docs", "A b", "version"])


def tables(table: type) -> st.SearchStrategy[dict[str, Any]]:
    """A table with some of its keys, most of them right, and some of the tables below it."""
    fields: dict[str, st.SearchStrategy[Any]] = {}
    for key in keys_of(table):
        usual = st.just(key.default) if key.default is not None and not key.is_required else ODD
        fields[key.name] = st.sampled_from(RAWS) | usual | ODD
    for section in sections_of(table):
        one = tables(section.table)
        if section.is_named:
            fields[section.name] = st.dictionaries(NAMES, one | ODD, max_size=2) | ODD
        else:
            fields[section.name] = (one | st.lists(one, max_size=2) | ODD) if section.is_listed else one | ODD
    return st.lists(st.sampled_from(sorted(fields)), unique=True, max_size=5).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )


@given(tables(Settings))
def test_a_document_is_settings_or_problems(document: dict[str, Any]) -> None:
    try:
        settings = parse(tomlkit.dumps({"name": "main", **document}))
    except ConfigError as error:
        problems: Any = error.facts["problems"]
        assert problems
        assert all(problem["line"] and problem["why"] for problem in problems), problems
    else:
        assert settings.name == document.get("name", "main")
