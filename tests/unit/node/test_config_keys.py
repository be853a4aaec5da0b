"""The declarations of keys: a kind reads the values that it writes, and no travelling or documented key is left out."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import instep
from docs.generator.pages import TABLES
from instep.model.definition import Definition
from instep.model.rollout import RolloutPolicy
from instep.node.config.definitions import RolloutKeys, TravellingKeys
from instep.node.config.keys import Key, keys_of, sections_of
from instep.node.config.kinds import BadValue
from instep.node.config.settings import Settings
from tests.golden.configuration_cases import TRIED

RAWS = [tomllib.loads(f"v = {one}")["v"] for row in TRIED.strip().splitlines() for one in row.split(" | ")]
KEYS = [
    pytest.param(key, id=f"{table.__name__}.{key.name}") for _, _, table in TABLES for key in keys_of(table)
]


@pytest.mark.parametrize("key", KEYS)
def test_what_a_kind_writes_it_reads_again(key: Key) -> None:
    """Goal: an editor that writes a value back loses nothing. Method: all that the golden transcripts try."""
    tried = 0
    for raw in RAWS:
        try:
            value = key.kind(raw)
        except BadValue:
            continue
        tried += 1
        assert key.kind(key.kind.write(value)) == value
    assert tried, "no value that the transcripts try is right: add one"
    for word in key.kind.words:
        key.kind(_typed(word, key))


def _typed(word: str, key: Key) -> object:
    value = {"true": True, "false": False}.get(word, word)
    return [value] if key.kind.is_list else value


def _below(table: type) -> Iterator[type]:
    yield table
    for section in sections_of(table):
        yield from _below(section.table)


def test_every_table_of_the_file_is_on_the_reference_page() -> None:
    documented = {table for _, _, table in TABLES}
    assert {table for table in _below(Settings) if keys_of(table)} <= documented


def test_a_key_is_declared_for_every_field_that_travels() -> None:
    """A field without a key would be lost when another node becomes the writer."""
    travelling = {key.field for key in keys_of(TravellingKeys)} | {
        s.name for s in sections_of(TravellingKeys)
    }
    assert travelling == {*Definition.__struct_fields__} - {"version"}
    assert {key.field for key in keys_of(RolloutKeys)} == {*RolloutPolicy.__struct_fields__} - {"version"}
    assert all(key.travels for table in (RolloutKeys, TravellingKeys) for key in keys_of(table))
    assert not any(key.travels for key in keys_of(Settings))


def test_the_configuration_knows_nothing_else_of_a_node() -> None:
    found = set()
    for path in (Path(instep.__file__).parent / "node/config").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("instep.node"):
                found.add(".".join((node.module or "").split(".")[:3]))
    assert found <= {"instep.node.config", "instep.node.directory"}
