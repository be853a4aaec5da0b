"""The long runs by name: ``./run soak [kill|power|adversary|simulation|union|failover|reconcile|sync|all] [--minutes N] [--seed N]``.

Each lasts about that long, with fresh seeds, and prints one closing line; the exit code is 1 when any of them failed.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence

from tests.support.power.explore import RUNS, soak

__all__ = ["main"]

ROUND_SECONDS = 60
"""So long a round of the simulation or of the races lasts before the next one has another seed."""
MARGIN_S = 900
"""So much longer than its time a round may take: it ends what it has begun."""

Soak = Callable[[float, int], int]


def kill(minutes: float, seed: int) -> int:
    """Writer and partner are killed at random moments while a reader reads."""
    return in_rounds("kill", minutes, seed, ["tests/cluster/test_crash_random.py"])


def adversary(minutes: float, seed: int) -> int:
    """The tree's owner swaps names: right before a call, and all the time."""
    return in_rounds("adversary", minutes, seed, ["tests/adversary"])


def simulation(minutes: float, seed: int) -> int:
    """Simulated clusters, with and without changes of the writer, homes that take changes from elsewhere, homes of one fileset,
    sync runs."""

    return in_rounds("simulation", minutes, seed, ["tests/simulation", "-k", "fresh_seeds"])


def power(minutes: float, seed: int) -> int:
    """The power fails at every place of each run that changes a tree."""
    return soak(list(RUNS), minutes, seed)


def union(minutes: float, seed: int) -> int:
    """Drawn lines against the naive twin of their union, 20,000 examples of each law a round."""
    return in_rounds("union", minutes, seed, ["tests/property/test_union.py"])


def reconcile(minutes: float, seed: int) -> int:
    """Drawn bases and sides of a sync run against the naive twin, 20,000 examples of each law a round."""
    return in_rounds("reconcile", minutes, seed, ["tests/property/test_reconcile.py"])


def sync(minutes: float, seed: int) -> int:
    """The nodes of a sync run are killed at each phase and at 50 random moments a round."""
    return in_rounds("sync", minutes, seed, ["tests/cluster/test_sync.py", "-k", "killed"])


def failover(minutes: float, seed: int) -> int:
    """The cluster's database loses its primary with the last grants, two times a round."""
    return in_rounds("failover", minutes, seed, ["tests/cluster/test_cluster_failover.py", "-k", "overlap"])


SOAKS: dict[str, Soak] = {
    "kill": kill, "power": power, "adversary": adversary, "simulation": simulation, "union": union,
    "failover": failover, "reconcile": reconcile, "sync": sync,
}  # fmt: skip


def in_rounds(name: str, minutes: float, seed: int, arguments: Sequence[str]) -> int:
    """Tests of a floor with one seed after another; the first round that fails ends it and is shown."""
    begun = time.monotonic()
    rounds = 0
    while (left := begun + minutes * 60 - time.monotonic()) > 0:
        used = seed + rounds * 1_000
        done = one_round(used, min(left, ROUND_SECONDS), arguments)
        rounds += 1
        if done.returncode != 0:
            say(done.stdout)
            say(f"{name}: FAILED in round {rounds} with INSTEP_SEED={used}; seed {seed}")
            return 1
    say(f"{name}: {rounds} rounds in {(time.monotonic() - begun) / 60:.1f} min, nothing failed; seed {seed}")
    return 0


def one_round(seed: int, seconds: float, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    longer = str(max(10, int(seconds)))
    environment = {
        **os.environ,
        "INSTEP_SOAK": "1",
        "INSTEP_SOAK_SECONDS": longer,
        "INSTEP_SEED": str(seed),
        "INSTEP_SIM_SEED": str(seed),
        "INSTEP_SIM_SECONDS": longer,
        "INSTEP_SUCCESSION_SECONDS": longer,
        "INSTEP_CHANGES_SECONDS": longer,
        "INSTEP_SYNC_SECONDS": longer,
        "INSTEP_UNION_SECONDS": longer,
        "INSTEP_EXAMPLES": "20000",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-x", f"--timeout={MARGIN_S}", *arguments]
    return subprocess.run(
        command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="./run soak")
    parser.add_argument("name", nargs="?", choices=(*SOAKS, "all"), default="all")
    parser.add_argument("--minutes", type=float, default=20, help="of each (default 20)")
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000, help="the first one")
    options = parser.parse_args(arguments)
    chosen = list(SOAKS.values()) if options.name == "all" else [SOAKS[options.name]]
    return max([each(options.minutes, options.seed) for each in chosen])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
