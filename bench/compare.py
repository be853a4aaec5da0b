"""Two versions of instep in turns: the checkout, and the environment of another commit."""

from __future__ import annotations

import shutil
import statistics
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.report import Results
from bench.rows import every_row

__all__ = ["other_version", "table"]

_SETUP_WITHIN_S = 900
_VALUES = (("wall_s", "s"), ("cpu_s", "CPU s"), ("sent_bytes", "bytes sent"), ("peak_bytes", "peak bytes"))


@contextmanager
def other_version(commit: str, base: Path) -> Iterator[Path]:
    """The ``instep`` command of ``commit``, built below ``base`` with that commit's own ``./run setup``.

    Raises ``subprocess.CalledProcessError`` when there is no such commit or its environment cannot be made.
    """
    checkout = base / "before"
    here = Path(__file__).parents[1]
    subprocess.run(["git", "worktree", "add", "--detach", "--force", checkout, commit], cwd=here, check=True)
    try:
        subprocess.run(["./run", "setup"], cwd=checkout, check=True, timeout=_SETUP_WITHIN_S)
        yield checkout / ".venv" / "bin" / "instep"
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", checkout], cwd=here, check=False)
        shutil.rmtree(checkout, ignore_errors=True)


def table(results: Results, commit: str) -> str:
    """Each value of each row: medians of both versions with the spread of their runs, and the ratio of the medians.

    A ratio whose spreads overlap proves nothing; the last column says so."""
    lines = [
        f"| row | value | {commit} | now | ratio | |",
        "|---|---|---:|---:|---:|---|",
    ]
    for step in every_row():
        for value, unit in _VALUES:
            before, now = (_numbers(results, step.row, peer, value) for peer in ("before", "instep"))
            if not before or not now:
                continue
            was, is_ = statistics.median(before), statistics.median(now)
            overlap = min(max(before), max(now)) >= max(min(before), min(now))
            lines.append(
                f"| {step.row} | {unit} | {_shown(before)} | {_shown(now)} | {is_ / was:.2f} | "
                f"{'spreads overlap' if overlap else ''} |"
            )
    return "\n".join(lines)


def _numbers(results: Results, row: str, peer: str, value: str) -> list[float]:
    found = (getattr(one, value) for one in results.of(row, peer) if one.error is None)
    return [number for number in found if number]


def _shown(numbers: list[float]) -> str:
    return f"{statistics.median(numbers):.4g} ({min(numbers):.4g} to {max(numbers):.4g})"
