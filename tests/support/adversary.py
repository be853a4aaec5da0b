"""The owner of a tree as an enemy: swaps what a name leads to right before a system call of a daemon that is root.

Run as a program: ``adversary.py DIRECTORY SCENARIO SEEDS [CALL]``; one JSON line a run. Every run is a fork with a new
world whose tree, and the directory beside it, belong to another user. An audit hook stands before each call that
Python makes, a wrapper before ``openat2`` and ``renameat2``; there the seed decides whether, and how, the name that is
about to be used is exchanged. The exchange itself is made with that user's rights; only hard links to files of root's
are made for him, as they are where ``fs.protected_hardlinks`` is off. With CALL every call of that kind is met, and no
other.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from instep.errors import InstepError
from instep.tree.root import beneath
from tests.support.adversary_ground import MODES, STRANGER, Ground
from tests.support.adversary_jobs import SCENARIOS

Target = tuple[bytes, int]
"""A path as the call has it, and the directory descriptor that it is relative to (-1: none)."""


class Enemy:
    """Stands before every call; ``only`` restricts it to one kind, which is then met every time."""

    def __init__(self, ground: Ground, seed: int, only: str | None) -> None:
        self._ground = ground
        self._random = random.Random(seed)
        self._only = only
        self._at_the_top = 0.6 if seed % 3 == 0 else 0.1
        self._is_busy = False
        self._undo: list[tuple[bytes, bytes]] = []
        self.is_awake = False
        self.calls: dict[str, int] = {}
        self.swaps: dict[str, int] = {}

    def before(self, event: str, targets: list[Target]) -> None:
        if not self.is_awake or self._is_busy:
            return
        self._is_busy = True
        try:
            self.calls[event] = self.calls.get(event, 0) + 1
            if self._undo and self._random.random() < 0.3:
                self._swap_back()
            chance = 0.12 if self._only is None else 0.5 if event == self._only else 0.0
            if targets and self._random.random() < chance:
                path = self._absolute(self._random.choice(targets))
                if path is not None and self._attack(path):
                    self.swaps[event] = self.swaps.get(event, 0) + 1
        finally:
            self._is_busy = False

    def _absolute(self, target: Target) -> bytes | None:
        """The path by which the stranger knows the object, if it is one that he can reach."""
        name, dir_fd = target
        with contextlib.suppress(OSError):
            if name.startswith(b"/proc/self/fd/"):
                fd, _, rest = name[len(b"/proc/self/fd/") :].partition(b"/")
                above = os.readlink(b"/proc/self/fd/" + fd)
                name = above + b"/" + rest if rest not in (b"", b".") else above
            elif dir_fd >= 0:
                name = os.readlink(b"/proc/self/fd/%d" % dir_fd) + b"/" + name
            elif not name.startswith(b"/"):
                return self._by_last_name(name)
            home = os.fsencode(self._ground.home)
            name = os.path.normpath(name)
            if name.startswith(home + b"/"):
                return name
        return None

    def _by_last_name(self, name: bytes) -> bytes | None:
        """``open`` does not say which directory it is relative to."""
        last = os.path.basename(name)
        for where, folders, files in os.walk(os.fsencode(self._ground.home)):
            if last in folders or last in files:
                return where + b"/" + last
        return None

    def _attack(self, path: bytes) -> bool:
        """Exchange the object, or a directory above it, for something that leads or belongs elsewhere."""
        home = os.fsencode(self._ground.home)
        if self._random.random() < 0.35:
            above = os.path.dirname(path)
            if len(above) > len(home):
                path = above
        # Root and control folder lie directly in it: an exchange of those ends most jobs at once.
        if os.path.dirname(path) == home and self._random.random() > self._at_the_top:
            return False
        if os.path.dirname(path) == home and self._random.random() < 0.5:
            return self._directory(path)
        kind = self._random.choice(
            (self._symlink, self._hard_link, self._directory, self._mode, self._symlink)
        )
        return kind(path)

    def _symlink(self, path: bytes) -> bool:
        decoy = os.fsencode(self._ground.decoy)
        last = os.path.basename(path)
        to = self._random.choice((decoy, decoy + b"/program", decoy + b"/dir", decoy + b"/" + last))
        return self._exchange(path, lambda other: os.symlink(to, other))

    def _hard_link(self, path: bytes) -> bool:
        source = self._random.choice(("program", "a", "large"))
        return self._exchange(path, lambda other: os.link(self._ground.decoy / source, other), as_root=True)

    def _directory(self, path: bytes) -> bool:
        def make(other: bytes) -> None:
            os.mkdir(other)
            decoy = os.fsencode(self._ground.decoy)
            for name in (b"stage", b"archive", b"o", b"dir", os.path.basename(path)):
                with contextlib.suppress(FileExistsError):
                    below = decoy + b"/" + name
                    os.symlink(below if os.path.isdir(below) else decoy, other + b"/" + name)
            os.chmod(other, self._random.choice(MODES))

        return self._exchange(path, make)

    def _mode(self, path: bytes) -> bool:
        with _as_stranger(), contextlib.suppress(OSError):
            if not os.path.islink(path):
                os.chmod(path, self._random.choice(MODES))
                return True
        return False

    def _exchange(self, path: bytes, make: Callable[[bytes], None], *, as_root: bool = False) -> bool:
        directory, _, last = path.rpartition(b"/")
        other = directory + b"/." + last[:60] + b".%d.tmp" % self._random.randrange(10**6)
        try:
            if as_root:
                # With root's rights the enemy would follow its own symlink out of the tree.
                if not (os.path.realpath(directory) + b"/").startswith(os.fsencode(self._ground.home) + b"/"):
                    return False
                make(other)
            with _as_stranger():
                if not as_root:
                    make(other)
                if not os.path.lexists(path):
                    os.rename(other, path)  # before it is made
                    return True
                _rename_exchange(path, other)
        except OSError:
            return False  # not his to do
        self._undo.append((path, other))
        return True

    def _swap_back(self) -> None:
        path, other = self._undo.pop()
        with _as_stranger(), contextlib.suppress(OSError):
            _rename_exchange(path, other)


@contextlib.contextmanager
def _as_stranger() -> Iterator[None]:
    os.setegid(STRANGER)
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def _rename_exchange(one: bytes, other: bytes) -> None:
    beneath._renameat2(-100, one, -100, other, 2)


_PATHS: dict[str, Callable[[tuple[Any, ...]], list[Target]]] = {
    "os.chmod": lambda a: [_target(a[0], a[2])],
    "os.chown": lambda a: [_target(a[0], a[3])],
    "os.utime": lambda a: [_target(a[0], a[3])],
    "os.setxattr": lambda a: [_target(a[0], -1)],
    "os.removexattr": lambda a: [_target(a[0], -1)],
    "os.listxattr": lambda a: [_target(a[0], -1)],
    "os.remove": lambda a: [_target(a[0], a[1])],
    "os.rmdir": lambda a: [_target(a[0], a[1])],
    "os.mkdir": lambda a: [_target(a[0], a[2])],
    "os.rename": lambda a: [_target(a[0], a[2]), _target(a[1], a[3])],
    "os.link": lambda a: [_target(a[0], a[2]), _target(a[1], a[3])],
    "os.symlink": lambda a: [_target(a[1], a[2])],
    "os.listdir": lambda a: [_target(a[0], -1)],
    "os.scandir": lambda a: [_target(a[0], -1)],
    "open": lambda a: [_target(a[0], -1)],
}


def _target(path: object, dir_fd: int) -> Target:
    if isinstance(path, int):
        return b"/proc/self/fd/%d" % path, -1
    return os.fsencode(path) if isinstance(path, str | bytes | os.PathLike) else b"", dir_fd


def _listen(enemy: Enemy) -> None:
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        targets_of = _PATHS.get(event)
        if targets_of is not None:
            enemy.before(event, targets_of(arguments))

    sys.addaudithook(hook)
    beneath._libc = _Tapped(beneath._libc, enemy)  # type: ignore[assignment]


class _Tapped:
    """The C library, with the enemy before the calls that Python's audit does not see."""

    def __init__(self, libc: Any, enemy: Enemy) -> None:
        self._libc = libc
        self._enemy = enemy

    def syscall(self, number: Any, *arguments: Any) -> int:
        if len(arguments) == 5:
            one, two = arguments[1].value, arguments[3].value
            targets = [(one, arguments[0].value), (two, arguments[2].value)]
            self._enemy.before("renameat2", targets)
        else:
            self._enemy.before("openat2", [(arguments[1].value, arguments[0].value)])
        return int(self._libc.syscall(number, *arguments))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._libc, name)


def run(top: Path, scenario: str, seed: int, only: str | None) -> dict[str, object]:
    """One run in this process, which is of no use afterwards."""
    ground = Ground(top)
    act = SCENARIOS[scenario](ground)
    ground.give_away()
    if scenario == "take":
        os.chown(ground.home / "second", STRANGER, STRANGER)
    before = ground.outside()
    enemy = Enemy(ground, seed, only)
    _listen(enemy)
    error = ""
    enemy.is_awake = True
    try:
        act()
    except (InstepError, OSError) as raised:
        error = f"{type(raised).__name__}: {raised}"
    enemy.is_awake = False
    after = ground.outside()
    changed = {name: (before.get(name), after.get(name)) for name in before.keys() | after.keys()}
    return {
        "scenario": scenario,
        "seed": seed,
        "error": error,
        "outside": [f"{name}: {old} -> {new}" for name, (old, new) in changed.items() if old != new],
        "broken": ground.broken(),
        "calls": enemy.calls,
        "swaps": enemy.swaps,
    }


def main(at: str, scenario: str, seeds: str, only: str | None = None) -> None:
    first, _, last = seeds.partition("-")
    for seed in range(int(first), int(last) + 1):
        top = Path(at) / f"{scenario.replace(' ', '-')}-{seed}"
        top.mkdir()
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            told: dict[str, object] = {}
            try:
                told = run(top, scenario, seed, only)
            finally:
                told = told or {
                    "seed": seed,
                    "error": "unexpected: " + traceback.format_exc(),
                    "swaps": {},
                    "calls": {},
                }
                os.write(write, json.dumps(told).encode()[:60_000])
                os._exit(0)
        os.close(write)
        with os.fdopen(read) as told_by:
            sys.stdout.write(told_by.read() + "\n")
        os.waitpid(child, 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
