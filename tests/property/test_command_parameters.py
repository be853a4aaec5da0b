"""Whatever a caller of the control socket sends is a command or a usage error, and a command is sent as it was read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.api.catalog import COMMANDS
from instep.api.command import as_json, command_from
from instep.errors import UsageError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()) | st.just("YQ=="),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


ASKED = st.sampled_from(sorted(COMMANDS)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.dictionaries(st.sampled_from(COMMANDS[name].__struct_encode_fields__), VALUES, max_size=3),
    )
)


@given(ASKED)
def test_parameters_are_a_command_or_a_usage_error(asking: tuple[str, dict[str, Any]]) -> None:
    name, params = asking
    kind = COMMANDS[name]
    try:
        asked = command_from(kind, params)
    except UsageError:
        return
    assert command_from(kind, json.loads(json.dumps(as_json(asked)))) == asked


@given(st.sampled_from(sorted(COMMANDS)), st.text())
def test_a_parameter_that_is_not_known_is_named(name: str, key: str) -> None:
    kind = COMMANDS[name]
    if key in kind.__struct_encode_fields__:
        return
    with pytest.raises(UsageError) as refused:
        command_from(kind, {key: None})
    assert refused.value.error_code == "unknown_parameter"
    assert refused.value.facts["parameters"] == [key]
