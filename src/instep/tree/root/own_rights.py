"""The rights that this process has whatever modes and owners say. The number of the user does not show them: a
container or a unit file may have taken the capability from root, and may have given it to another user."""

from __future__ import annotations

_CAP_DAC_OVERRIDE = 1


def ignores_modes() -> bool:
    """Whether permission bits do not stop this thread: it has ``CAP_DAC_OVERRIDE``."""
    with open("/proc/thread-self/status", "rb") as lines:
        for line in lines:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> _CAP_DAC_OVERRIDE & 1)
    return False
