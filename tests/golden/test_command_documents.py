"""Requests and results of the control socket as they were before they had types: names, order, nulls, absent fields.

Each line of ``commands.jsonl`` is a command with its parameters and its result, recorded from daemons of small
clusters. Documents that scripts read must not change unseen, and a command line of the version before must be
understood.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instep.api.catalog import COMMANDS
from instep.api.command import as_json, command_from, result_from

RECORDED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    json.loads(line) for line in (Path(__file__).parent / "commands.jsonl").read_text("utf-8").splitlines()
]

ADDED = {"fileset_list": ("offers",)}
"""Keys that results gained since, which a result of before lacks. Nothing else may differ."""


@pytest.mark.parametrize("name", sorted({name for name, _, _ in RECORDED} & COMMANDS.keys()))
def test_what_was_recorded_is_read_and_written_the_same(name: str) -> None:
    kind = COMMANDS[name]
    for _, params, result in (line for line in RECORDED if line[0] == name):
        asked = command_from(kind, params)
        assert command_from(kind, as_json(asked)) == asked
        written = as_json(result_from(kind, result))
        for key in ADDED.get(name, ()):
            written.pop(key, None)
        assert json.dumps(written) == json.dumps(result), "the order of keys counts"
