"""``./run bench homes``: measure the figures of many homes and write ``bench/HOMES.md``."""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from bench.cage import NAME, Cage, remove_left_over_groups
from bench.homes.figures import FIGURES, Found
from bench.homes.rig import Rig

_COLUMNS = "| figure | value | demanded | measured | | scale, load |\n|---|---|---:|---:|---|---|\n"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="bench homes", description=__doc__, epilog="example: ./run bench homes --scale 0.02"
    )
    parser.add_argument("figures", nargs="*", choices=[*FIGURES, []], help=f"of {', '.join(FIGURES)} (all)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the full counts (default 1)")
    parser.add_argument("--seed", type=int, default=20261121, help="seed of all contents and edits")
    parser.add_argument("--timeout", type=float, default=1800.0, help="seconds that a single step may take")
    parser.add_argument("--arena", type=Path, default=Path(tempfile.gettempdir()), help="where the trees lie")
    parser.add_argument("--keep", action="store_true", help="leave the directories and logs")
    parser.add_argument("--output", type=Path, default=Path(__file__).parents[1] / "HOMES.md")
    given = parser.parse_args(argv)
    remove_left_over_groups()
    rows: list[str] = []
    missed = False
    for name in given.figures or FIGURES:
        began, load = time.monotonic(), os.getloadavg()[0]
        base = Path(tempfile.mkdtemp(prefix=f"{NAME}-{os.getpid()}-", dir=given.arena))
        with contextlib.ExitStack() as stack:
            if given.keep:
                print(f"{name}: everything is left in {base}", file=sys.stderr)
            else:
                stack.callback(shutil.rmtree, base, ignore_errors=True)
            count = iter(range(100))

            def new(stack: contextlib.ExitStack = stack, base: Path = base, count=count) -> Rig:  # type: ignore[no-untyped-def]
                place = base / str(next(count))
                place.mkdir()
                cage = stack.enter_context(Cage(f"instep-{place.name}", place))
                return Rig(cage, place, given.timeout)

            for found in FIGURES[name](new, given.seed, given.scale):
                missed = missed or _misses(found)
                rows.append(f"{_row(name, found)} {given.scale:g}, {load:.1f} |")
                print(rows[-1], flush=True)
        print(f"{name}: {time.monotonic() - began:.0f} s, load {load:.1f}", file=sys.stderr, flush=True)
    _write(given, rows)
    return 1 if missed else 0


def _misses(found: Found) -> bool:
    return found.most is not None and found.value > found.most


def _row(name: str, found: Found) -> str:
    demanded = "-" if found.most is None else f"{found.most:g} {found.unit}".strip()
    verdict = "" if found.most is None else ("**missed**" if _misses(found) else "met")
    value = f"{found.value:.4g} {found.unit}" if found.unit else f"{found.value:,.0f}"
    return f"| {name} | {found.what} | {demanded} | {value} | {verdict} |"


def _write(given: argparse.Namespace, rows: Sequence[str]) -> None:
    """Rows of figures that were not measured now stay as they are."""
    about = "\n".join(
        f"- **{name}:** {' '.join((figure.__doc__ or '').split())}" for name, figure in FIGURES.items()
    )
    present = given.output.read_text().splitlines() if given.output.exists() else []
    shown = {name: [row for row in rows if row.startswith(f"| {name} |")] for name in FIGURES}
    for name in FIGURES:
        shown[name] = shown[name] or [row for row in present if row.startswith(f"| {name} |")]
    lines = "\n".join(row for each in shown.values() for row in each)
    given.output.write_text(
        f"# Filesets of many homes\n\nMade by `./run bench homes`, on {os.cpu_count()} cores; *load* is that of the machine before "
        f"the figure.\n\n{about}\n\n{_COLUMNS}{lines}\n"
    )


if __name__ == "__main__":
    sys.exit(main())
