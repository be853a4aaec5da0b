"""Which boot of the machine this is: clocks since boot say nothing across two of them."""

from __future__ import annotations

import functools
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def boot_id() -> str:
    """The kernel's random name of this boot; empty where it has none."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""
