"""Networks of a test's own, where the usual ports are free: they need root, and ``ip``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import pytest

__all__ = ["machines", "own_network"]


@contextmanager
def own_network() -> Iterator[tuple[str, ...]]:
    """The words that run a program in a network namespace with nothing but loopback; no words where that cannot be."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        yield ()
        return
    name = f"instep-{os.getpid()}-{os.urandom(3).hex()}"
    made = subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False)
    if made.returncode != 0:
        yield ()
        return
    words = ("ip", "netns", "exec", name)
    try:
        # In a changed root directory that is no mount point a namespace can be made, and no program can be run in it.
        brought_up = subprocess.run(
            [*words, "ip", "link", "set", "lo", "up"], capture_output=True, check=False
        )
        yield words if brought_up.returncode == 0 else ()
    finally:
        subprocess.run(["ip", "netns", "delete", name], check=True)


@contextmanager
def machines(writer: tuple[str, str], others: Mapping[str, str]) -> Iterator[dict[str, tuple[str, ...]]]:
    """The words that run a program on each of several machines, by name: network namespaces, in which the first machine has a
    cable to each of the others. Skips the test where that cannot be."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        pytest.skip("namespaces of networks need root and ip")
    mark = os.urandom(3).hex()
    spaces = {name: f"instep-{mark}-{name}" for name in (writer[0], *others)}
    made: list[str] = []
    try:
        for space in spaces.values():
            _ip("netns", "add", space)
            made.append(space)
            _ip("-n", space, "link", "set", "lo", "up")
        for name, address in others.items():
            ours, theirs = spaces[writer[0]], spaces[name]
            _ip("link", "add", name, "netns", ours, "type", "veth", "peer", "name", "eth0", "netns", theirs)
            for space, device, at, far in (
                (ours, name, writer[1], address),
                (theirs, "eth0", address, writer[1]),
            ):
                _ip("-n", space, "addr", "add", at, "peer", far, "dev", device)
                _ip("-n", space, "link", "set", device, "up")
        yield {name: ("ip", "netns", "exec", space) for name, space in spaces.items()}
    finally:
        for space in made:
            subprocess.run(["ip", "netns", "delete", space], check=True)


def _ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"ip {' '.join(words)}: {done.stderr.strip()}")
