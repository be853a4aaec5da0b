"""P7 against two processes of the tree's owner that swap names all the time: seconds here, minutes in the soak."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SECONDS = int(os.environ.get("INSTEP_SOAK_SECONDS", "4"))


@pytest.mark.skipif(os.geteuid() != 0, reason="plays a daemon of root's and another user")
def test_whatever_the_owner_of_the_tree_swaps_nothing_outside_changes(open_ground: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "tests/support/racer.py"), str(open_ground), str(SECONDS)],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=SECONDS + 120,
        check=True,
    )
    told = json.loads(done.stdout)
    assert (told["outside"], told["added"], told["broken"]) == ([], [], []), told
    assert told["racers"] == 2
    assert told["turns"] > 0
