"""The rows of the results: the tree, the edit, and the demand of the design."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bench.peers.base import Can, Landed
from bench.workloads import (
    big_file,
    edit_both_sides,
    edit_in_place,
    insert_into,
    rewrite,
    small_files,
    texts_beside,
)

__all__ = ["SCENARIOS", "Bound", "Edited", "Scenario", "Step", "every_row"]

_MIB = 1 << 20
_GIB = 1 << 30


@dataclass(frozen=True)
class Edited:
    """A cheap test whether a target shows the edit, and how many bytes it changed."""

    landed: Landed
    changed_bytes: int = 0
    apart: tuple[str, ...] = ()
    """Paths that both sides changed: some tools leave them apart, some keep both texts on both sides."""


Edit = Callable[[Path, int, float], Edited]
"""Called with source, seed, scale."""


@dataclass(frozen=True)
class Bound:
    """``value`` of instep divided by the same of ``against`` must be at most ``most`` (against "": absolute)."""

    value: str
    against: str
    most: float


@dataclass(frozen=True)
class Step:
    """One row."""

    row: str
    title: str
    can: Can
    edit: Edit | None = None
    bounds: tuple[Bound, ...] = ()


@dataclass(frozen=True)
class Scenario:
    """Steps that follow one another in one session on one fresh field."""

    name: str
    steps: tuple[Step, ...]
    populate: Callable[[Path, int, float], None]
    image_bytes: int
    targets: int = 1
    file_system: str = "ext4"
    settle: str | None = None
    only: tuple[str, ...] = ()
    runs: int | None = None
    edit_both: Callable[[Path, Path, int, float], Edited] | None = None
    """Edits source and target; of the step that is ``Can.BOTH``."""
    warm_bytes: int = 256 * _MIB
    """So much memory is touched and freed before each clock starts."""


def _many(count: int, mean_bytes: int = 4300) -> Callable[[Path, int, float], None]:
    def populate(source: Path, seed: int, scale: float) -> None:
        small_files(source, seed, max(200, int(count * scale)), mean_bytes)

    return populate


def _plain(count: int, mean_bytes: int) -> Callable[[Path, int, float], None]:
    """Without links, empty directories and modes: rclone keeps none of them."""

    def populate(source: Path, seed: int, scale: float) -> None:
        small_files(source, seed, max(1000, int(count * scale)), mean_bytes, is_plain=True)

    return populate


def _edit_both(source: Path, target: Path, seed: int, scale: float) -> Edited:
    changed, apart = edit_both_sides(source, target, seed, scale)

    def landed(side: Path) -> bool:
        return all(
            {f"{mark} {path}\n" for mark in ("source", "target")} <= texts_beside(path, source, target)
            for path in apart
        )

    return Edited(landed, changed, apart)


def _big(size: int) -> Callable[[Path, int, float], None]:
    def populate(source: Path, seed: int, scale: float) -> None:
        big_file(source / "store" / "big.bin", seed, max(4 * _MIB, int(size * scale)))

    return populate


def _big_file_landed(source: Path) -> Landed:
    wanted = (source / "store" / "big.bin").stat()

    def landed(target: Path) -> bool:
        try:
            seen = (target / "store" / "big.bin").stat()
        except FileNotFoundError:
            return False
        return (seen.st_size, seen.st_mtime_ns) == (wanted.st_size, wanted.st_mtime_ns)

    return landed


def _edit_one_percent(source: Path, seed: int, scale: float) -> Edited:
    changed = edit_in_place(source / "store" / "big.bin", seed)
    return Edited(_big_file_landed(source), changed)


def _insert(source: Path, seed: int, scale: float) -> Edited:
    changed = insert_into(source / "store" / "big.bin", seed, max(64 * 1024, int(_MIB * scale)))
    return Edited(_big_file_landed(source), changed)


def _count(directory: Path) -> int:
    return sum(len(names) for _, _, names in os.walk(directory))


def _rewrite(source: Path, seed: int, scale: float) -> Edited:
    return Edited(lambda _: True, rewrite(source, seed, max(100, int(10_000 * scale))))


def _rename(source: Path, seed: int, scale: float) -> Edited:
    os.rename(source / "data", source / "renamed")
    wanted = _count(source / "renamed")
    return Edited(lambda target: not (target / "data").exists() and _count(target / "renamed") == wanted)


def _remove(source: Path, seed: int, scale: float) -> Edited:
    for name in ("renamed", "data"):
        if (source / name).exists():
            shutil.rmtree(source / name)
    return Edited(lambda target: not (target / "renamed").exists() and not (target / "data").exists())


_SSH = "rsync-ssh"

SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "small",
        (
            Step("small", "first copy, 20,000 small files", Can.FIRST, None, (Bound("wall_s", _SSH, 0.8), Bound("wall_s", "cp", 1.3))),
            Step("rename", "their directory renamed", Can.CHANGE, _rename, (Bound("wall_s", _SSH, 0.4),)),
            Step("remove", "their directory removed", Can.CHANGE, _remove, (Bound("wall_s", _SSH, 0.5),)),
        ),
        _many(20_000),
        _GIB,
    ),
    Scenario(
        "large",
        (
            Step("large", "1 GiB file", Can.FIRST, None, (Bound("wall_s", _SSH, 0.5),)),
            Step("onepercent", "1 % of 1 GiB changed in place, 64 regions (ext4)", Can.CHANGE, _edit_one_percent,
                 (Bound("wall_s", _SSH, 1.0), Bound("sent_share", "", 1.2))),
        ),
        _big(_GIB),
        5 * _GIB,
        warm_bytes=3 * _GIB,
    ),
    Scenario(
        "large-xfs",
        (
            Step("large-xfs", "1 GiB file (XFS)", Can.FIRST),
            Step("onepercent-xfs", "1 % of 1 GiB changed in place, 64 regions (XFS with reflinks)", Can.CHANGE, _edit_one_percent,
                 (Bound("wall_s", _SSH, 0.3), Bound("sent_share", "", 1.2))),
        ),
        _big(_GIB),
        5 * _GIB,
        warm_bytes=3 * _GIB,
        file_system="xfs",
        only=("instep", "rsync", _SSH),
    ),
    Scenario(
        "insert",
        (
            Step("medium", "256 MiB file", Can.FIRST),
            Step("insert", "1 MiB inserted into 256 MiB", Can.CHANGE, _insert,
                 (Bound("wall_s", _SSH, 1.0), Bound("sent_bytes", _SSH, 1.0))),
        ),
        _big(256 * _MIB),
        2 * _GIB,
        warm_bytes=_GIB,
    ),
    Scenario(
        "unchanged",
        (Step("unchanged", "nothing changed, 100,000 files, full scan of both sides", Can.UNCHANGED, None, (Bound("wall_s", _SSH, 1.0),)),),
        _many(100_000, 600),
        2 * _GIB,
    ),
    Scenario(
        "latency",
        (Step("latency", "one write until visible, idle (settle 5 ms)", Can.LATENCY, None, (Bound("p50_ms", "", 20), Bound("p99_ms", "", 100))),),
        _many(300),
        _GIB,
        settle="5ms",
        runs=1,
    ),
    Scenario(
        "latency-default",
        (Step("latency-default", "one write until visible, idle (default settle)", Can.LATENCY),),
        _many(300),
        _GIB,
        settle="default",
        only=("instep",),
        runs=1,
    ),
    Scenario(
        "four",
        (Step("four", "first copy, 20,000 small files, to 4 targets at once", Can.FOUR, None, (Bound("wall_s", _SSH, 0.7),)),),
        _many(20_000),
        _GIB,
        targets=4,
    ),
    Scenario(
        "both",
        (Step("both", "two-way, 50,000 files: 500 changed on the one side, 300 on the other, 20 on both", Can.BOTH, None,
              (Bound("wall_s", "unison", 1.0), Bound("wall_s", "rclone", 1.0))),),
        _plain(50_000, 1200),
        _GIB,
        settle="default",
        edit_both=_edit_both,
    ),
    Scenario(
        "catchup",
        (Step("catchup", "10,000 of 20,000 small files changed while the target was away", Can.CATCH_UP, _rewrite,
              (Bound("wall_s", "unison", 1.0), Bound("wall_s", "syncthing", 1.0))),),
        _plain(20_000, 1200),
        _GIB,
        settle="default",
    ),
    Scenario(
        "lock",
        (Step("lock", "lock, change and submit at the target, until the source shows it", Can.LOCK, None,
              (Bound("wall_s", "subversion", 1.0),)),),
        _plain(1_000, 1200),
        _GIB,
        settle="5ms",
    ),
    Scenario(
        "million",
        (Step("million", "one change among 1,000,000 files", Can.MILLION, None,
              (Bound("daemon_bytes", "", 400 * _MIB), Bound("publish_ms", "", 100))),),
        _many(1_000_000, 400),
        12 * _GIB,
        settle="5ms",
        runs=1,
    ),
)  # fmt: skip


def every_row() -> list[Step]:
    return [step for scenario in SCENARIOS for step in scenario.steps]
