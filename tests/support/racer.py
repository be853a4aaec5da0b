"""An owner of a tree who exchanges names as fast as he can while a daemon of root's works in it.

Run as a program: ``racer.py DIRECTORY SECONDS``; one JSON line at the end. Two processes with the rights of another
user swap directories, files, the control folder and the root for symlinks, hard links and folders of their own, and set
modes; this process applies, reverts, archives, restores, prunes and scans meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from instep.errors import InstepError
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Journal
from instep.tree.root import beneath
from instep.tree.scan.scan import scan
from instep.tree.stage.next_tree import Exchange
from instep.tree.stage.stages import clear_stages
from instep.tree.switch.linger import end_linger, lingering
from instep.tree.switch.recover import recover
from instep.tree.switch.switch import finish, switch
from tests.support.adversary_ground import FIRST, SECOND, STRANGER, Ground
from tests.support.apply_world import START_NS, Tree

RACERS = 2
MODES = (0o4077, 0o2077, 0o6077, 0o777)
"""Most lack the owner's rights: the daemon gives them before it works in a directory."""
NAMES = (
    *(
        "dir",
        "dir/a",
        "dir/large",
        "dir/sub",
        "dir/sub/x",
        "gone",
        "gone/two",
        "moved",
        "renamed",
        "closed",
        "half",
    ),
    *("fresh", "fresh/deep", "closed/in", "half/data"),
)


def race(ground: Ground, seed: int) -> None:
    """Never returns; in a process of its own, with the stranger's rights."""
    chance = random.Random(seed)
    root, home = os.fsencode(ground.world.root), os.fsencode(ground.home)
    pairs = [(root + b"/" + name.encode(), root + b"/" + name.encode() + b".%d.tmp" % seed) for name in NAMES]
    for _, other in pairs:
        to = chance.choice(("", "dir", "program", "gone/one", "large"))
        with contextlib.suppress(OSError):
            os.symlink(os.fsencode(ground.decoy / to), other)
    mine = home + b"/mine%d" % seed
    os.mkdir(mine, 0o700)
    for name in (b"stage", b"archive", b"journal"):
        os.symlink(os.fsencode(ground.decoy / "stage"), mine + b"/" + name)
    while True:
        one, other = chance.choice(pairs)
        what = chance.random()
        with contextlib.suppress(OSError):
            if what < 0.001:  # for a moment only: else no job would come far
                one, other = (home + b"/.instep-maps", mine) if seed == 0 else (root, home + b"/links")
                beneath._renameat2(-100, one, -100, other, 2)
                beneath._renameat2(-100, one, -100, other, 2)
            elif what < 0.3:
                os.chmod(one, chance.choice(MODES))
            else:
                beneath._renameat2(-100, one, -100, other, 2)
                if what < 0.7:
                    beneath._renameat2(-100, one, -100, other, 2)


def work(ground: Ground, turn: int) -> None:
    """One turn of everything that the daemon does."""
    world = ground.world
    tree: Tree = SECOND if turn % 2 else FIRST
    world.exchange = Exchange() if turn % 3 == 2 else None
    if Journal.load(world.place) is not None:
        recovered = recover(world.place, local=world.local, get_page=world.page, now_ms=turn)
        if recovered.journal is not None:
            finish(world.place, recovered.journal)
    world.live = None  # the tree's contents are unknown: all that differs is reverted
    target = world.generation(tree)
    journal = world.stage(target, now_ns=START_NS + turn * 1_000_000)
    switched = switch(world.place, journal, local=world.local, get_page=world.page, now_ms=turn)
    finish(world.place, switched.journal)
    for batch in lingering(world.place):
        end_linger(world.place, batch, turn)
    archive = Archive(world.place)
    for path in (b"dir/a", b"gone", b"moved"):
        with contextlib.suppress(InstepError):
            archive.restore(path, ground.home / f"found-{turn}")
    archive.prune([batch.name for batch in archive.batches()][:-2])
    for _ in scan(
        world.place, world.definition, lambda _: None, lambda *_: None, START_NS, local=world.local
    ):
        pass


def main(at: str, seconds: str) -> None:
    ground = Ground(Path(at))
    world = ground.world
    world.apply(FIRST)
    ground.give_away()
    os.link(ground.decoy / "a", world.root / "hard.tmp")
    (ground.home / "links").symlink_to(ground.decoy)
    os.chown(ground.home / "links", STRANGER, STRANGER, follow_symlinks=False)
    before = ground.outside()
    racers = []
    for seed in range(RACERS):
        child = os.fork()
        if child == 0:
            os.setgroups([])
            os.setresgid(STRANGER, STRANGER, STRANGER)
            os.setresuid(STRANGER, STRANGER, STRANGER)
            try:
                race(ground, seed)
            finally:
                os._exit(1)
        racers.append(child)
    turns = done = 0
    errors: dict[str, int] = {}
    try:
        end = time.monotonic() + float(seconds)
        while time.monotonic() < end:
            turns += 1
            try:
                work(ground, turns)
                done += 1
            except (InstepError, OSError) as error:
                name = getattr(error, "error_code", type(error).__name__)
                errors[name] = errors.get(name, 0) + 1
                with contextlib.suppress(InstepError, OSError):
                    clear_stages(world.place)
            if turns % 20 == 0 and ground.outside() != before:
                break
    finally:
        alive = [child for child in racers if os.waitpid(child, os.WNOHANG) == (0, 0)]
        for child in alive:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
    after = ground.outside()
    told = {
        "turns": turns,
        "done": done,
        "errors": errors,
        "racers": len(alive),
        "outside": [
            f"{name}: {old} -> {after.get(name)}" for name, old in before.items() if old != after.get(name)
        ],
        "added": sorted(after.keys() - before.keys()),
        "broken": ground.broken(),
    }
    sys.stdout.write(json.dumps(told) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
