"""``python -m tests.mutants --seed N [--count N] [--rooms core,net,tree,node]``: plant, run, and show what survived."""

from __future__ import annotations

import argparse
import difflib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.mutants.floors import FLOORS, REACHED
from tests.mutants.kinds import KINDS, Fault, faults_in, planted

ROOT = Path(__file__).parents[2]
TIMEOUT_S = 900
"""Of one floor; a fault that makes it hang is found."""
QUICK = {room: floors[0] for room, floors in FLOORS.items()}
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", ".*_cache", ".hypothesis")


@dataclass(frozen=True, slots=True)
class Mutant:
    """One fault in one module of a room."""

    room: str
    module: str
    fault: Fault


def reached_lines(copy: Path, rooms: Sequence[str]) -> dict[str, set[int]]:
    """Lines that the quick floors of these rooms run, by module."""
    found: dict[str, set[int]] = {}
    for room in rooms:
        where = copy / f"reached-{room}.json"
        arguments = [*QUICK[room], "-p", "tests.mutants.floors", "--timeout=600"]
        run_tests(copy, arguments, {REACHED: str(where)})
        for name, lines in json.loads(where.read_text()).items():
            found.setdefault(name, set()).update(lines)
    return found


def run_tests(copy: Path, arguments: Sequence[str], more: dict[str, str] | None = None) -> int:
    """Run tests in the copy; the exit code of pytest, 1 when they take too long."""
    environment = {
        **os.environ,
        "PYTHONPATH": f"{copy / 'src'}{os.pathsep}{copy}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "INSTEP_SIM_SECONDS": "10",
        "INSTEP_SUCCESSION_SECONDS": "10",
        **(more or {}),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *arguments]
    try:
        done = subprocess.run(
            command,
            cwd=copy,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return 1
    return done.returncode


def draw(rng: random.Random, count: int, rooms: Sequence[str], reached: dict[str, set[int]]) -> list[Mutant]:
    """Rooms and kinds in turn, so that each has its share; places by chance, each module and line once."""
    places: dict[tuple[str, str], list[Mutant]] = {}
    for module, lines in sorted(reached.items()):
        room = module.split("/")[0]
        if room not in rooms:
            continue
        for fault in faults_in((ROOT / "src/instep" / module).read_text("utf-8")):
            if fault.begin[0] in lines:
                places.setdefault((room, fault.kind), []).append(Mutant(room, module, fault))
    chosen: list[Mutant] = []
    used: set[tuple[str, int]] = set()
    turns = [(room, kind) for kind in KINDS for room in rooms]
    while len(chosen) < count and turns:
        rng.shuffle(turns)
        for turn in list(turns):
            left = [m for m in places.get(turn, []) if (m.module, m.fault.begin[0]) not in used]
            if not left:
                turns.remove(turn)
            elif len(chosen) < count:
                mutant = rng.choice(left)
                used.add((mutant.module, mutant.fault.begin[0]))
                chosen.append(mutant)
    return chosen


def try_one(copy: Path, mutant: Mutant) -> str | None:
    """Where the fault was found; None when it survived."""
    path = copy / "src/instep" / mutant.module
    source = path.read_text("utf-8")
    path.write_text(planted(source, mutant.fault), "utf-8")
    try:
        for floor in FLOORS[mutant.room]:
            if run_tests(copy, [*floor, "--timeout=300"]) != 0:
                return floor[0]
        return None
    finally:
        path.write_text(source, "utf-8")


def diff_of(mutant: Mutant) -> str:
    source = (ROOT / "src/instep" / mutant.module).read_text("utf-8")
    old, new = source.splitlines(), planted(source, mutant.fault).splitlines()
    name = f"src/instep/{mutant.module}"
    return "\n".join(difflib.unified_diff(old, new, name, f"{name} ({mutant.fault.kind})", lineterm="", n=2))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--rooms", default=",".join(FLOORS), help="separated by commas (default: all)")
    parser.add_argument("--list", action="store_true", help="show the faults, plant none")
    options = parser.parse_args()
    rooms = options.rooms.split(",")
    with tempfile.TemporaryDirectory(prefix="instep-mutants-") as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, symlinks=True, ignore=NOT_COPIED)
        mutants = draw(random.Random(options.seed), options.count, rooms, reached_lines(copy, rooms))
        if options.list:
            for mutant in mutants:
                say(diff_of(mutant))
            return 0
        table: Counter[tuple[str, bool]] = Counter()
        for number, mutant in enumerate(mutants, 1):
            begun = time.monotonic()
            found = try_one(copy, mutant)
            table[mutant.fault.kind, found is not None] += 1
            where = f"{mutant.module}:{mutant.fault.begin[0]} {mutant.fault.kind}"
            say(f"{number:3} {where}: {found or 'SURVIVED'} ({time.monotonic() - begun:.0f} s)")
            if found is None:
                say(diff_of(mutant))
    say(f"{'kind':22} found survived")
    for kind in KINDS:
        say(f"{kind:22} {table[kind, True]:5} {table[kind, False]:8}")
    survived = sum(count for (_, is_found), count in table.items() if not is_found)
    say(f"{len(mutants)} faults, {survived} survived, seed {options.seed}")
    return 1 if survived > max(2, len(mutants) // 20) else 0


if __name__ == "__main__":
    sys.exit(main())
