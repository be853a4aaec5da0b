"""The figures: what is laid out, what is in the clock, and what the design demands of it."""

from __future__ import annotations

import itertools
import os
import random
import statistics
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from inotify_simple import INotify, flags  # type: ignore[import-untyped]

from bench.homes.rig import Home, Rig
from bench.waiting import DeadlinePassed
from bench.workloads import small_files

__all__ = ["FIGURES", "Found"]

_MIB = 1 << 20
_DATA_BYTES = 64 * 1024


@dataclass(frozen=True)
class Found:
    """One measured value beside the demanded one; without ``most`` it is only shown."""

    what: str
    value: float
    unit: str
    most: float | None = None


Figure = Callable[[Callable[[], Rig], int, float], Iterable[Found]]
"""Called with the way to a new rig, seed and scale."""


def documents(tree: Path, name: str, seed: int, count: int, tables: int) -> list[Path]:
    """Documents and tables of one home below a directory of its own."""
    small_files(tree / name, seed, count, 2000, is_plain=True)
    data = tree / name / "tables"
    data.mkdir()
    random_ = random.Random(f"{seed} tables")
    for number in range(tables):
        (data / f"{number}.csv").write_bytes(random_.randbytes(_DATA_BYTES))
    return sorted((tree / name / "data").rglob("*.xml"))


def edit(files: list[Path], seed: int, share: float = 0.1) -> int:
    """Update nine of ten of a share of the documents and remove the rest; returns the bytes written."""
    random_ = random.Random(f"{seed} edits")
    written = 0
    for at, file in enumerate(random_.sample(files, max(1, int(len(files) * share)))):
        if at % 10 == 9:
            file.unlink()
            continue
        body = f"{seed} {at}\n".encode() + random_.randbytes(2000)
        new = file.with_name(f".{file.name}.new")
        new.write_bytes(body)
        os.rename(new, file)
        written += len(body)
    return written


def _homes(rig: Rig, *names: str, mode: str = "replicate") -> list[Home]:
    """Homes of one fileset, each linked with each; of a mirror the first one writes."""
    homes = [rig.add(name) for name in names]
    for one, other in itertools.combinations(homes, 2):
        if mode == "replicate" or one is homes[0]:
            rig.link(one, other)
    for home in homes:
        if mode == "replicate" or home is homes[0]:
            rig.share(home, "--mode", mode)
    if mode == "mirror":
        homes[0].tree.joinpath("first").write_text("a writer without a file publishes nothing by itself\n")
        rig.wait(homes[0])
        for home in homes[1:]:
            rig.accept(home)
    return homes


def _written(
    rig: Rig, writers: list[Home], homes: list[Home], seed: int, count: int, tables: int
) -> tuple[float, float]:
    """Seconds until documents, and then updates, are everywhere; each of ``writers`` has its share of them."""
    names = [home.name for home in homes]
    share = len(names) // len(writers)

    def write(home: Home) -> list[Path]:
        made: list[Path] = []
        at = writers.index(home) * share
        for name in names[at : at + share]:
            made += documents(home.tree, name, seed + names.index(name), count // 3, tables // 3)
        return made

    def change(home: Home, made: list[Path]) -> int:
        return edit(made, seed)

    with ThreadPoolExecutor(len(writers)) as hands:
        began = time.perf_counter()
        files = list(hands.map(write, writers))
        rig.wait(*writers)
        there = time.perf_counter()
        rig.require_equal(*homes)
        again = time.perf_counter()
        list(hands.map(change, writers, files))
        rig.wait(*writers)
        changed = time.perf_counter()
    rig.require_equal(*homes)
    return there - began, changed - again


def three(new: Callable[[], Rig], seed: int, scale: float) -> Iterable[Found]:
    """10,000 documents and 500 tables, a third on each of three homes at once; then 10 % updated or removed. Beside it a
    mirror of the same bytes: one writer, two partners."""
    count, tables = max(60, int(10_000 * scale)), max(6, int(500 * scale))
    taken = {}
    largest = 0
    for mode in ("mirror", "replicate"):
        rig = new()
        homes = _homes(rig, "a", "b", "c", mode=mode)
        writers = homes if mode == "replicate" else homes[:1]
        taken[mode] = _written(rig, writers, homes, seed, count, tables)
        if mode == "replicate":
            largest = max(home.memory() for home in homes)
        rig.cage.close()
    for at, what in enumerate(("first copies", "updates and removals")):
        yield Found(f"{what}, mirror", taken["mirror"][at], "s")
        yield Found(f"{what}, three homes", taken["replicate"][at], "s")
    yield Found(
        "all of it, three homes beside the mirror", sum(taken["replicate"]) / sum(taken["mirror"]), "x", 1.5
    )
    yield Found("largest daemon", largest / _MIB, "MiB", 300)


def _many_lines(rig: Rig, seed: int, lines: int, each: int, *keys: str) -> tuple[Home, list[Home]]:
    """A hub with many lines of ``each`` documents: one home after another is begun, gives the hub its line, and ends."""
    hub = rig.add("hub")
    rig.share(hub, "--mode", "replicate", *keys)
    documents(hub.tree, "hub", seed, each, 0)
    ended = []
    for number in range(lines - 2):
        home = rig.add(f"h{number:02}")
        rig.link(hub, home, other_gets=False)
        documents(home.tree, home.name, seed + number, each, 0)
        rig.share(home, "--mode", "replicate", *keys)
        rig.await_lines(hub, [home.name])
        rig.stop(home)
        ended.append(home)
    return hub, ended


def latency(new: Callable[[], Rig], seed: int, scale: float) -> Iterable[Found]:
    """One update at a home until it can be read at a partner, among 100,000 documents in 10 lines; settle 5 ms."""
    rig = new()
    each = max(50, int(10_000 * scale))
    hub, _ = _many_lines(rig, seed, 10, each, "--settle", "5ms")
    home = rig.add("z")
    rig.link(hub, home, hub=True)
    files = documents(home.tree, "z", seed, each, 0)
    rig.share(home, "--mode", "replicate", "--settle", "5ms")
    for where in (hub, home):
        rig.await_lines(where, [*rig.homes])
    rig.require_equal(hub, home)
    waits = _updates(home, hub, files, seed, 200)
    yield Found("an update until visible, median", statistics.median(waits), "ms", 50)
    yield Found("p99", waits[min(len(waits) - 1, int(len(waits) * 0.99))], "ms", 200)
    yield Found("paths at the partner", len([*hub.tree.rglob("*.xml")]), "")


def _updates(home: Home, partner: Home, files: list[Path], seed: int, count: int) -> list[float]:
    """Single updates, 30 to 130 ms apart: from before the new file is written until inotify led to its bytes."""
    random_ = random.Random(f"{seed} updates")
    waits = []
    place = files[0].parent
    here = [file for file in files if file.parent == place]
    with INotify() as watch:
        watch.add_watch(
            partner.tree / place.relative_to(home.tree), flags.MOVED_TO | flags.CREATE | flags.CLOSE_WRITE
        )
        for number in range(count):
            file = here[number % len(here)]
            target = partner.tree / file.relative_to(home.tree)
            body = f"{number:08}".encode() + random_.randbytes(2000)
            new = file.with_name(f".{file.name}.new")
            for _ in watch.read(timeout=random_.randrange(30, 130)):
                pass
            began = time.perf_counter()
            new.write_bytes(body)
            os.rename(new, file)
            while target.read_bytes() != body:
                if time.perf_counter() - began > 60:
                    raise DeadlinePassed(f"{target} with the new bytes: not within 60 s")
                watch.read(timeout=100)
            waits.append((time.perf_counter() - began) * 1e3)
    return sorted(waits)


def catch_up(new: Callable[[], Rig], seed: int, scale: float) -> Iterable[Found]:
    """A partner that was cut off for 10,000 changes on 5 lines."""
    rig = new()
    each = max(60, int(4_000 * scale))
    names = ("hub", "a", "b", "c", "d")
    homes = [rig.add(name) for name in names]
    hub = homes[0]
    for home in homes[1:]:
        rig.link(hub, home, other_gets=False)
    partner = rig.add("partner")
    rig.link(hub, partner, hub=True)
    files = {home.name: documents(home.tree, home.name, seed, each, 0) for home in homes}
    for home in (*homes, partner):
        rig.share(home, "--mode", "replicate")
    rig.await_lines(partner, [*names])
    rig.require_equal(hub, partner)
    switches = rig.switches(partner)
    rig.stop(partner)
    written = 0
    for number, home in enumerate(homes):
        written += edit(files[home.name], seed + number, 0.5)
    rig.wait(*homes[1:])
    rig.await_lines(hub, [*names])
    sent = rig.cage.sent_bytes()
    began = time.perf_counter()
    rig.start(partner)
    rig.await_lines(partner, [*names])
    took = time.perf_counter() - began
    now = rig.cage.sent_bytes()
    rig.require_equal(hub, partner)
    yield Found("from the partner's start until in step", took, "s")
    if sent is not None and now is not None:
        yield Found("bytes sent beside the changed bytes", (now - sent) / written, "x", 1.1)
    yield Found("switches", rig.switches(partner) - switches, "", 1)


def million(new: Callable[[], Rig], seed: int, scale: float) -> Iterable[Found]:
    """1,000,000 paths in 20 lines."""
    rig = new()
    hub, _ = _many_lines(rig, seed, 21, max(50, int(50_000 * scale)))
    yield Found("paths", sum(1 for _ in hub.tree.rglob("*.xml")), "")
    yield Found("the daemon, at most so far", hub.memory() / _MIB, "MiB")
    rig.stop(hub)
    rig.start(hub)
    rig.await_lines(hub, [*rig.homes])
    yield Found("the daemon after a start", hub.memory("VmRSS") / _MIB, "MiB", 500)


FIGURES: dict[str, Figure] = {"three": three, "latency": latency, "catchup": catch_up, "million": million}
