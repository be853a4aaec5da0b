"""A layout move with real processes, killed at every failpoint and at fifty moments, and moved again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_killed_anywhere_a_move_ends_in_exactly_the_listed_layout() -> None:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as base:
        done = subprocess.run(
            [sys.executable, str(ROOT / "tests/support/killed_moves.py"), base],
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
            capture_output=True,
            text=True,
            timeout=250,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    cases = [json.loads(line) for line in done.stdout.splitlines()]
    assert [case for case in cases if case["wrong"]] == []
    at_points = {
        case["spec"].partition(":")[0] for case in cases if case["killed"] and "after" not in case["spec"]
    }
    assert len(at_points) >= 11
    moments = [case for case in cases[1:] if "after" in case["spec"]]
    assert len(moments) == 50 and sum(case["killed"] for case in moments) >= 10
