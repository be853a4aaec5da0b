"""Where something is mounted below a root, as this process sees it."""

from __future__ import annotations

import os
import re

from instep.tree.root.beneath import Root

_ESCAPE = re.compile(rb"\\([0-7]{3})")


def mounts_below(root: bytes) -> list[bytes]:
    """Where something is mounted at or below ``root``, bind mounts too, as this process sees it."""
    found = []
    with open("/proc/self/mountinfo", "rb") as lines:
        for line in lines:
            point = line.split(b" ", 5)[4]
            if b"\\" in point:
                point = _ESCAPE.sub(lambda m: bytes((int(m[1], 8),)), point)
            if point.startswith(root) and (point == root or point.startswith(root + b"/")):
                found.append(point)
    return found


def mounts_in(root: Root) -> frozenset[bytes]:
    """Where something is mounted below ``root``, as paths relative to it; bind mounts of the same device too."""
    top = os.readlink(b"/proc/self/fd/%d" % root.fd)
    return frozenset(point[len(top) + 1 :] for point in mounts_below(top) if point != top)
