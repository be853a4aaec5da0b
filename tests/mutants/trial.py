"""A copy of the checkout in which tests run, with and without a fault."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.drawing import Mutant
from tests.mutants.floors import NOT_RUN, Floor
from tests.mutants.kinds import planted
from tests.mutants.outcomes import OUTCOMES
from tests.mutants.tracer import REACHED

__all__ = ["Baseline", "Copy", "Verdict"]

ROOT = Path(__file__).parents[2]
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")
BASELINE_S = 3600
"""For a whole floor without a fault."""
TEST_S = 120
"""For one test; one that takes longer has found the fault."""
START_S = 60
SLOWER = 4
"""A run may take this many times what its tests took without a fault, and ``START_S``: a hang is a failure."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a floor did without a fault: seconds of each test that passed, the tests that run each line, and those that
    failed, twice, and prove nothing."""

    seconds: Mapping[str, float]
    reached: Mapping[tuple[str, int], set[str]]
    red: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Verdict:
    """``killer`` is the test that saw the fault, None when it survived this floor. ``left_out`` tests that run the line
    did not fit the budget. ``unsure`` tests failed with the fault and right afterwards without it, too."""

    killer: str | None
    run: int
    left_out: int
    unsure: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Copy:
    """One copy; one run of tests at a time."""

    folder: Path

    def make(self) -> None:
        shutil.copytree(ROOT, self.folder, symlinks=True, ignore=NOT_COPIED)

    def baseline(self, floor: Floor, lines: Mapping[str, set[int]]) -> Baseline:
        """Run a floor once without a fault, and see which of these lines each of its tests runs."""
        seen = self.folder / "reached"
        seen.mkdir(mode=0o777)
        seen.chmod(0o777)  # tests of other users run in it, too
        (seen / "lines.json").write_text(json.dumps({name: sorted(found) for name, found in lines.items()}))
        custom = self.folder / "src/sitecustomize.py"
        shutil.copyfile(ROOT / "tests/mutants/tracer.py", custom)
        arguments = [*floor.folders, *(f"--ignore={name}" for name in NOT_RUN), "-n", str(floor.workers)]
        took, failed = self._pytest(arguments, BASELINE_S, {REACHED: str(seen)})
        custom.unlink()
        red = self._pytest(failed, SLOWER * TEST_S * len(failed))[1] if failed else []
        seconds = {test: took[test] for test in took if test not in red}
        reached: dict[tuple[str, int], set[str]] = {}
        for path in seen.glob("*.seen"):
            for each in path.read_text().splitlines():
                test, module, line = json.loads(each)
                reached.setdefault((module, line), set()).update(_with_sharers(self.folder, test, seconds))
        shutil.rmtree(seen)
        return Baseline(seconds, reached, tuple(red))

    def verdict(self, mutant: Mutant, floor: Floor, baseline: Baseline) -> Verdict:
        """Run the floor's tests that run this line, and stop at the first failure."""
        path = self.folder / "src/instep" / mutant.module
        source = path.read_text("utf-8")
        fault = planted(source, mutant.fault)
        here = baseline.reached.get((mutant.module, mutant.line), set()) & baseline.seconds.keys()
        picked, limit_s = _affordable(here, baseline.seconds, floor.budget_s)
        left_out, run = len(here) - len(picked), 0
        unsure: list[str] = []
        while picked:
            path.write_text(fault, "utf-8")
            try:
                took, failed = self._pytest([*picked, "-x"], limit_s)
            finally:
                path.write_text(source, "utf-8")
            run += len(took)
            if not failed:
                break
            if not floor.is_told_twice or "::" not in failed[0] or not self._pytest(failed, limit_s)[1]:
                return Verdict(failed[0], run, left_out, tuple(unsure))
            unsure += failed
            picked = [test for test in picked if test not in took and test not in failed]
        return Verdict(None, run, left_out, tuple(unsure))

    def _pytest(
        self, arguments: Sequence[str], limit_s: float, more: Mapping[str, str] | None = None
    ) -> tuple[dict[str, float], list[str]]:
        """Seconds by test, and what failed. A run that does not end within the limit fails as ``a hang``."""
        outcomes, listed = self.folder / "outcomes.json", self.folder / "arguments"
        outcomes.unlink(missing_ok=True)
        listed.write_text("\n".join(arguments))
        environment = {
            **os.environ,
            "PYTHONPATH": f"{self.folder / 'src'}{os.pathsep}{self.folder}",
            "PYTHONDONTWRITEBYTECODE": "1",
            "INSTEP_SIM_SECONDS": "5",
            "INSTEP_SIM_SEED": "1",
            "INSTEP_SUCCESSION_SECONDS": "5",
            OUTCOMES: str(outcomes),
            **(more or {}),
        }
        command = [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-p",
            "tests.mutants.outcomes",
        ]
        with open(self.folder / "pytest.log", "wb") as log:
            process = subprocess.Popen(
                [*command, f"--timeout={TEST_S}", f"@{listed}"],
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            try:
                code = process.wait(limit_s)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                return {}, ["a hang"]
        if not outcomes.exists():
            return {}, [f"pytest ended with {code}"]
        told = json.loads(outcomes.read_text())
        return told["seconds"], told["failed"]


def _affordable(
    tests: Iterable[str], seconds: Mapping[str, float], budget_s: float
) -> tuple[list[str], float]:
    """The fastest of each file first, then the second of each, within the budget (but one always); and their limit."""
    by_file: dict[str, list[str]] = {}
    for test in sorted(tests, key=lambda test: (seconds[test], test)):
        by_file.setdefault(test.partition("::")[0], []).append(test)
    ranked = sorted(
        (rank, seconds[test], test) for found in by_file.values() for rank, test in enumerate(found)
    )
    picked: list[str] = []
    total = 0.0
    for _, took, test in ranked:
        if not picked or total + took <= budget_s:
            picked.append(test)
            total += took
    return picked, SLOWER * total + START_S


def _with_sharers(folder: Path, test: str, known: Iterable[str]) -> set[str]:
    """The test; and all of its file where nodes are shared, for the daemons bear the name of the first."""
    name = test.partition("::")[0]
    path = folder / name
    if name.startswith("tests/cluster") and path.exists() and 'scope="module"' in path.read_text("utf-8"):
        return {each for each in known if each.startswith(f"{name}::")}
    return {test}
