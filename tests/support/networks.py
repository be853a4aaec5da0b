"""A network of a test's own, where the usual ports are free: needs root, and ``ip``."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["own_network"]


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
