"""``python -m tests.mutants --seed N [--count N] [--rooms core,net] [--floors quick]``: plant faults, say what saw them."""

from __future__ import annotations

import argparse
import difflib
import json
import queue
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.mutants.drawing import Mutant, candidates, chosen
from tests.mutants.floors import FLOORS, ROOMS, Floor
from tests.mutants.kinds import KINDS, planted
from tests.mutants.trial import ROOT, Baseline, Copy, Verdict

SOURCE = ROOT / "src/instep"


def diff_of(mutant: Mutant, root: Path = ROOT) -> str:
    source = (root / "src/instep" / mutant.module).read_text("utf-8")
    old, new = source.splitlines(), planted(source, mutant.fault).splitlines()
    name = f"src/instep/{mutant.module}"
    return "\n".join(difflib.unified_diff(old, new, name, f"{name} ({mutant.fault.kind})", lineterm="", n=2))


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def baselines(
    copy: Copy, floors: Sequence[Floor], lines: dict[str, set[int]], kept: Path | None
) -> list[Baseline]:
    """What each floor does without a fault, from the folder of kept ones where it was run with these lines before."""
    wanted = {name: sorted(found) for name, found in sorted(lines.items())}
    found = []
    for floor in floors:
        file = kept / f"{floor.name}.json" if kept else None
        if file and file.exists():
            told = json.loads(file.read_text())
            if told["lines"] == wanted:
                reached = {(module, line): set(tests) for module, line, tests in told["reached"]}
                found.append(Baseline(told["seconds"], reached, tuple(told["red"])))
                continue
            say(f"{file} was made with other faults in mind; the floor runs again")
        begun = time.monotonic()
        made = copy.baseline(floor, lines)
        found.append(made)
        say(f"{floor.name}: {len(made.seconds)} tests without a fault, {time.monotonic() - begun:.0f} s")
        if file:
            reached_ = [[module, line, sorted(tests)] for (module, line), tests in made.reached.items()]
            told = {"lines": wanted, "seconds": made.seconds, "red": made.red, "reached": reached_}
            file.write_text(json.dumps(told))
    return found


def try_all(
    copies: Sequence[Copy], mutants: Sequence[Mutant], floors: Sequence[Floor], known: Sequence[Baseline]
) -> dict[Mutant, Verdict]:
    """Every fault on every floor until one sees it, as many at a time as there are copies."""
    waiting: queue.SimpleQueue[tuple[int, Mutant]] = queue.SimpleQueue()
    for number, mutant in enumerate(mutants, 1):
        waiting.put((number, mutant))
    verdicts: dict[Mutant, Verdict] = {}

    def work(copy: Copy) -> None:
        while True:
            try:
                number, mutant = waiting.get_nowait()
            except queue.Empty:
                return
            begun = time.monotonic()
            whole = Verdict(None, 0, 0, ())
            for floor, baseline in zip(floors, known, strict=True):
                each = copy.verdict(mutant, floor, baseline)
                run, left_out = whole.run + each.run, whole.left_out + each.left_out
                whole = Verdict(each.killer, run, left_out, whole.unsure + each.unsure)
                if whole.killer:
                    break
            verdicts[mutant] = whole
            unsure = "".join(f"\n    failed without it, too: {test}" for test in whole.unsure)
            took = f"{time.monotonic() - begun:.0f} s, {whole.run} tests"
            if whole.killer:
                say(f"{number:3} {mutant.where}: {whole.killer} ({took}){unsure}")
            else:
                rest = f", {whole.left_out} left out for the time they take" if whole.left_out else ""
                say(
                    f"{number:3} {mutant.where}: SURVIVED ({took}{rest}){unsure}\n{diff_of(mutant, copy.folder)}"
                )

    threads = [threading.Thread(target=work, args=(copy,)) for copy in copies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return verdicts


def summary(verdicts: Mapping[Mutant, Verdict], seed: int, minutes: float) -> int:
    """Print a table by kind and by room; the number of survivors."""
    kinds: Counter[tuple[str, bool]] = Counter()
    rooms: Counter[tuple[str, bool]] = Counter()
    for mutant, verdict in verdicts.items():
        kinds[mutant.fault.kind, verdict.killer is not None] += 1
        rooms[mutant.room, verdict.killer is not None] += 1
    say(f"{'':22} found survived")
    for table, names in ((kinds, tuple(KINDS)), (rooms, ROOMS)):
        for name in names:
            say(f"{name:22} {table[name, True]:5} {table[name, False]:8}")
    survived = sum(verdict.killer is None for verdict in verdicts.values())
    say(f"seed {seed}: {len(verdicts)} faults, {survived} survived, {minutes:.0f} min")
    return survived


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--seed", default="1", help="one, or several separated by commas")
    parser.add_argument("--count", type=int, default=40, help="faults of each seed")
    parser.add_argument("--rooms", default=",".join(ROOMS), help="separated by commas (default: all)")
    parser.add_argument("--floors", default=",".join(floor.name for floor in FLOORS), help="the same")
    parser.add_argument("--at-once", type=int, default=2, help="faults that are tried at the same time")
    parser.add_argument("--baselines", type=Path, help="folder for what the floors did without a fault")
    parser.add_argument("--list", action="store_true", help="show the places that are drawn, run nothing")
    parser.add_argument("--kinds", action="store_true", help="show the kinds of faults")
    options = parser.parse_args()
    if options.kinds:
        say("\n".join(KINDS))
        return 0
    rooms = options.rooms.split(",")
    floors = [floor for floor in FLOORS if floor.name in options.floors.split(",")]
    seeds = [int(each) for each in options.seed.split(",")]
    pools = {seed: candidates(SOURCE, seed, options.count // len(rooms) + 1, rooms) for seed in seeds}
    lines: dict[str, set[int]] = {}
    for pool in pools.values():
        for mutant in (each for mutants in pool.values() for each in mutants):
            lines.setdefault(mutant.module, set()).add(mutant.line)
            if options.list:
                say(diff_of(mutant))
    if options.list:
        return 0
    if options.baselines:
        options.baselines.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="instep-mutants-") as folder:
        Path(folder).chmod(0o755)
        copies = [Copy(Path(folder) / f"copy{number}") for number in range(options.at_once)]
        for copy in copies:
            copy.make()
        known = baselines(copies[0], floors, lines, options.baselines)
        red = [test for baseline in known for test in baseline.red]
        if red:
            say("red without a fault, and left out: " + ", ".join(red))
        if not all(baseline.seconds for baseline in known):
            say("a floor without a test that passes proves nothing")
            return 2
        reached = {key: True for baseline in known for key in baseline.reached}
        worst = 0
        for seed in seeds:
            begun = time.monotonic()
            mutants = chosen(pools[seed], reached, options.count)
            verdicts = try_all(copies, mutants, floors, known)
            worst = max(worst, summary(verdicts, seed, (time.monotonic() - begun) / 60))
    return 1 if worst > options.count // 20 else 0


if __name__ == "__main__":
    sys.exit(main())
