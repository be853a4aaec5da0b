"""P2, P3 and P5 with real processes: killed at every failpoint of stage, switch and archive, recovered by another."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    "options",
    [(), ("--no-renameat2",), ("--exchange",), ("--compared",), ("--compared", "--no-renameat2")],
    ids=["renameat2", "without renameat2", "the root exchanged", "compared", "compared, without renameat2"],
)
def test_killed_anywhere_a_tree_is_one_generation_and_nothing_is_lost(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/killed_applies.py"), str(tmp_path), *options],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=250,
        check=True,
    )
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    killed = [case for case in cases if case.get("killed")]
    assert [case for case in cases if case.get("status")] == [], done.stderr
    assert len({case["spec"].partition(":")[0] for case in killed}) >= 20
    assert {case["kind"] for case in killed} == {"nothing", "undone", "finished"}
    for case in killed:
        assert case["exact"], case
        assert case["torn"] == [], case
        assert case["left"] == [], case
        assert case["not_kept"] == {}, case
        assert not case["journal_left"], case
        assert case["trees_left"] == [], case
