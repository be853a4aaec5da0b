"""Every test of this floor leaves as many open descriptors as it found: a daemon runs for months."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

import pytest


def _open_descriptors() -> dict[int, str]:
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the descriptor of the listing itself
            continue
    return found


def _left(before: dict[int, str]) -> dict[int, str]:
    return {fd: what for fd, what in _open_descriptors().items() if fd not in before}


@pytest.fixture(autouse=True)
def _no_descriptor_is_left() -> Iterator[None]:
    before = _open_descriptors()
    yield
    if _left(before):
        gc.collect()  # what only a cycle holds is on its way
    left = _left(before)
    assert not left, f"left open: {left}"
