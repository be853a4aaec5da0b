"""P7 against an owner of a tree who swaps names right before the daemon's system calls. Root only: it plays two users.

Section by section these are the classes of path faults that rsync had to mend in 2026: a parent that becomes a symlink
between check and use, and the same on ``chmod``, ``chown``, ``utime``, ``rename``, ``unlink``, ``link``, ``mkdir`` and
extended attributes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.adversary_jobs import SCENARIOS

ROOT = Path(__file__).parents[2]
IS_SOAK = bool(os.environ.get("INSTEP_SOAK"))
FIRST = int(os.environ.get("INSTEP_SEED", "1"))
SEEDS = 20 if IS_SOAK else 9

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="plays a daemon of root's and another user")

CALLS = {
    "os.chmod": "revert",
    "os.chown": "apply",
    "os.utime": "revert",
    "os.setxattr": "take",
    "os.listxattr": "apply",
    "os.remove": "exchange",
    "os.rmdir": "exchange",
    "os.rename": "exchange",
    "os.link": "exchange",
    "os.mkdir": "restore",
    "os.symlink": "take",
    "os.listdir": "put back",
    "open": "put back",
    "openat2": "recover",
    "renameat2": "apply",
}
"""Which job makes each call on names that the enemy can reach."""


def runs(at: Path, scenario: str, seeds: int, only: str | None = None) -> list[dict[str, object]]:
    done = subprocess.run(
        [
            *(
                sys.executable,
                str(ROOT / "tests/support/adversary.py"),
                str(at),
                scenario,
                f"{FIRST}-{FIRST + seeds - 1}",
            ),
            *([only] if only else []),
        ],
        env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=3_000 if IS_SOAK else 120,
        check=True,
    )
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == seeds, done.stderr
    return found


def swaps(one: dict[str, object]) -> int:
    made = one["swaps"]
    assert isinstance(made, dict)
    return sum(made.values())


def harm(found: list[dict[str, object]]) -> list[dict[str, object]]:
    return [
        one
        for one in found
        if one.get("outside") or one.get("broken") or str(one["error"]).startswith("unexpected")
    ]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_nothing_outside_changes_whatever_is_swapped_during(open_ground: Path, scenario: str) -> None:
    found = runs(open_ground, scenario, SEEDS)
    assert harm(found) == []
    assert sum(map(swaps, found)) > 0, "the enemy came to nothing"


@pytest.mark.parametrize("call", CALLS)
def test_what_a_name_leads_to_is_swapped_right_before(open_ground: Path, call: str) -> None:
    found = runs(open_ground, CALLS[call], 20 if IS_SOAK else 5, call)
    assert harm(found) == []
    assert any(call in one["calls"] for one in found), "the job makes no such call"  # type: ignore[operator]
