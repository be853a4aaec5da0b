"""Gates that travelled, also those of a later version."""

from __future__ import annotations

import pytest

from instep.errors import RefusedError
from instep.model.definition import Definition
from instep.node.lines.gating import gates_of, known_gates


def test_an_unknown_gate_is_named_and_the_others_are_still_looked_at() -> None:
    """Goal: one gate of a later version must not hide the others from ``check``; an apply is refused by it."""
    definition = Definition(gates=("java >= 17", "java ~ 17", "path"))
    known, unknown = known_gates(definition)
    assert [gate.name for gate in known] == ["java", "path"]
    assert len(unknown) == 1
    assert "java ~ 17" in unknown[0]
    with pytest.raises(RefusedError, match="java ~ 17") as caught:
        gates_of(definition)
    assert caught.value.error_code == "gates_unknown"
