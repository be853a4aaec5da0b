"""Which tests should see a fault of a room, quickest first; and which lines of the product they reach."""

from __future__ import annotations

import json
import os
import sys
from types import CodeType, FrameType
from typing import Any

import pytest

__all__ = ["FLOORS", "REACHED"]

REACHED = "INSTEP_REACHED"
"""Names a file to which a run of tests with this plugin writes what it reached."""

FLOORS: dict[str, tuple[tuple[str, ...], ...]] = {
    "core": (
        ("tests/unit/core", "tests/golden", "tests/property/test_core_rules.py"),
        ("tests/simulation",),
        ("tests/cluster/test_gates.py", "tests/cluster/test_rollouts.py", "tests/cluster/test_guards.py"),
    ),
    "net": (
        ("tests/unit/test_messages.py", "tests/unit/test_pki.py", "tests/unit/test_ports.py"),
        (
            "tests/unit/test_tokens_and_allow.py",
            "tests/unit/test_transfer.py",
            "tests/contract/test_network_twin.py",
        ),
        ("tests/property/test_hostile_bytes.py", "tests/golden"),
        ("tests/cluster/test_links.py", "tests/cluster/test_joining.py", "tests/cluster/test_peers.py"),
        ("tests/cluster/test_hostile_partner.py", "tests/cluster/test_hostile_writer.py"),
    ),
    "tree": (
        ("tests/unit/tree",),
        ("tests/property",),
        ("tests/contract",),
        ("tests/adversary",),
        ("tests/cluster/test_fidelity.py", "tests/cluster/test_drift.py", "tests/cluster/test_exchange.py"),
    ),
    "node": (
        ("tests/unit/node", "tests/contract/test_node_store.py", "tests/property/test_toml_lines.py"),
        ("tests/cluster/test_mirror.py", "tests/cluster/test_rollback.py", "tests/cluster/test_drift.py"),
        ("tests/cluster/test_gates.py", "tests/cluster/test_hooks.py", "tests/cluster/test_guards.py"),
        ("tests/cluster",),
    ),
}

_reached: dict[str, set[int]] = {}
_ours: dict[CodeType, str | None] = {}


def _enter(frame: FrameType, event: str, _: Any) -> Any:
    code = frame.f_code
    if code not in _ours:
        _, found, name = code.co_filename.rpartition("/src/instep/")
        _ours[code] = name if found and name.split("/")[0] in FLOORS else None
    name_ = _ours[code]
    if name_ is None:
        return None
    lines = _reached.setdefault(name_, set())
    lines.add(frame.f_lineno)

    def line(frame: FrameType, event: str, _: Any) -> Any:
        lines.add(frame.f_lineno)
        return line

    return line


def pytest_configure(config: pytest.Config) -> None:
    if os.environ.get(REACHED):
        sys.settrace(_enter)


def pytest_unconfigure(config: pytest.Config) -> None:
    where = os.environ.get(REACHED)
    if where:
        sys.settrace(None)
        with open(where, "w", encoding="utf-8") as file:
            json.dump({name: sorted(lines) for name, lines in _reached.items()}, file)
