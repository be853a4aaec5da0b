"""``python -m bench``: choose rows and peers, measure them interleaved, write the results."""

from __future__ import annotations

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType

from bench import report
from bench.arena import Arena, remove_left_over_bases
from bench.cage import NAME, remove_left_over_groups
from bench.compare import other_version, table
from bench.measure import Measurement, Plan, measure
from bench.peers import every_peer
from bench.peers.base import Peer
from bench.peers.instep import Before
from bench.rows import SCENARIOS, Scenario, every_row


def main(argv: Sequence[str] | None = None) -> int:
    options = _options(argv)
    if options.compare:
        return _compare(options)
    return _run(options, every_peer())


def _compare(options: argparse.Namespace) -> int:
    options.peers = ",".join(filter(None, (options.peers, "instep", "before")))
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-{os.getpid()}-", dir=options.arena) as base:
        try:
            with other_version(options.compare, Path(base)) as command:
                return _run(options, [Before(command), *every_peer()])
        except subprocess.CalledProcessError as failure:
            print(f"bench: --compare {options.compare}: {failure}", file=sys.stderr)
            return 2


def _run(options: argparse.Namespace, peers: Sequence[Peer]) -> int:
    if options.list:
        _list(peers)
        return 0
    wanted = options.peers.split(",") if options.peers else [peer.name for peer in peers]
    rows = options.rows.split(",") if options.rows else [step.row for step in every_row()]
    for given, known in ((wanted, [peer.name for peer in peers]), (rows, [step.row for step in every_row()])):
        for name in given:
            if name not in known:
                print(f"bench: no such name: {name}; known: {', '.join(known)}", file=sys.stderr)
                return 2
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _interrupt)
    present = [peer for peer in peers if peer.name in wanted and peer.missing() is None]
    for peer in peers:
        if peer.name in wanted and (why := peer.missing()):
            print(f"left out: {peer.title}: {why}", file=sys.stderr)
    options.arena.mkdir(parents=True, exist_ok=True)
    results = report.Results(
        seed=options.seed,
        scale=options.scale,
        runs=options.runs,
        peers={peer.name: peer.version() for peer in present},
        absent={peer.name: why for peer in peers if (why := peer.missing())},
        note=options.note,
    )
    if options.add:
        results.take_over(options.output / "results.json")
    code = 0
    remove_left_over_groups()
    remove_left_over_bases(options.arena)
    with tempfile.TemporaryDirectory(prefix=f"{NAME}-{os.getpid()}-", dir=options.arena) as base:
        arena = Arena(Path(base))
        results.describe_machine(arena.is_fresh)
        plan = Plan(options.seed, options.scale, frozenset(rows), options.timeout, Path(base))
        try:
            _measure_all(arena, plan, options, present, results)
        except KeyboardInterrupt:
            print("interrupted: the measurements so far are written", file=sys.stderr)
            code = 130
        finally:
            with contextlib.suppress(OSError):
                arena.clear()
        if results.has_failures() and options.keep:
            kept = options.output / "failed"
            report.keep_logs(Path(base), kept)
    if options.compare:
        print(table(results, options.compare))
        return code or (1 if results.has_failures() else 0)
    options.output.mkdir(parents=True, exist_ok=True)
    report.write(results, peers, options.output)
    print(f"written: {options.output}/RESULTS.md, results.json, results.svg", file=sys.stderr)
    return code or (1 if results.has_failures() else 0)


def _measure_all(
    arena: Arena, plan: Plan, options: argparse.Namespace, peers: Sequence[Peer], results: report.Results
) -> None:
    """The tools take turns, and another one begins each time: what drifts on the machine drifts for all of them."""
    began = time.monotonic()

    def note(taken: Measurement) -> None:
        results.add(taken)
        print(f"{time.monotonic() - began:7.0f} s  {report.one_line(taken)}", file=sys.stderr, flush=True)

    for scenario in SCENARIOS:
        if not arena.has(scenario.file_system):
            continue
        for run in range(min(options.runs, scenario.runs or options.runs)):
            for peer in _turn(peers, run):
                if _is_due(scenario, peer, run, options, plan):
                    measure(arena, plan, scenario, peer, run, note)


def _turn(peers: Sequence[Peer], run: int) -> list[Peer]:
    at = run % max(1, len(peers))
    return [*peers[at:], *peers[:at]]


def _is_due(scenario: Scenario, peer: Peer, run: int, options: argparse.Namespace, plan: Plan) -> bool:
    if scenario.only and peer.name not in scenario.only:
        return False
    if peer.is_slow and run >= options.slow_runs:
        return False
    return any(step.row in plan.rows for step in scenario.steps)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _list(peers: Sequence[Peer]) -> None:
    print("rows:")
    for step in every_row():
        print(f"  {step.row:16} {step.title}")
    print("peers:")
    for peer in peers:
        print(f"  {peer.name:16} {peer.missing() or peer.version()}")


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="bench", description=__doc__, epilog="example: ./run bench --scale 0.05 --runs 1"
    )
    parser.add_argument("--rows", help="only these, comma separated; see --list")
    parser.add_argument("--peers", help="only these, comma separated; see --list")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of the full sizes and counts (default 1)"
    )
    parser.add_argument("--runs", type=int, default=3, help="runs of each row, the median counts (default 3)")
    parser.add_argument(
        "--slow-runs", type=int, default=1, help="the same for Syncthing and csync2 (default 1)"
    )
    parser.add_argument("--seed", type=int, default=20261121, help="seed of all contents and edits")
    parser.add_argument("--timeout", type=float, default=900.0, help="seconds that a single step may take")
    parser.add_argument(
        "--arena",
        type=Path,
        default=Path(tempfile.gettempdir()),
        help="where the image files lie (needs up to 30 GiB)",
    )
    parser.add_argument("--output", type=Path, default=Path(__file__).parent, help="where the results go")
    parser.add_argument(
        "--add",
        action="store_true",
        help="keep what OUTPUT/results.json has of the same seed and scale, and add to it",
    )
    parser.add_argument(
        "--compare",
        metavar="COMMIT",
        help="measure that commit's instep beside this one, in turns, and print a table; the results stay as they are",
    )
    parser.add_argument(
        "--note", default="", help="a line for the results: what else the machine did meanwhile"
    )
    parser.add_argument("--keep", action="store_true", help="keep the logs of failed steps in OUTPUT/failed")
    parser.add_argument("--list", action="store_true", help="name rows and peers and end")
    return parser.parse_args(argv)


if __name__ == "__main__":
    sys.exit(main())
