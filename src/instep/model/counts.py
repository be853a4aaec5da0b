"""Counts in sentences: one path, two paths, three MiB."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun: ``1 path``, ``2 paths``; ``many`` where the plural is more than an ``s``."""
    return f"{number} {which(number, one, many or one + 's')}"


def which(number: int, one: str, many: str) -> str:
    """The word that goes with this number: ``is`` or ``are``."""
    return one if number == 1 else many


def sized(count: float) -> str:
    """A number of bytes for people: ``12 B``, ``1.5 MiB``."""
    size = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"


def lasting(ms: float) -> str:
    """How long something takes, for people: ``20 ms``, ``1.5 s``, ``10 min``, ``2 h 5 min``, ``7 days``."""
    if ms < 100:
        return f"{ms:.0f} ms"
    if ms < 120_000:
        return f"{ms / 1000:.3g} s"
    seconds = int(ms / 1000)
    for limit, parts, words in (
        (7_200, (60, 1), ("min", "s")),
        (172_800, (3_600, 60), ("h", "min")),
        (float("inf"), (86_400, 3_600), ("days", "h")),
    ):
        if seconds < limit:
            large, small = seconds // parts[0], seconds % parts[0] // parts[1]
            return f"{large} {words[0]}" + (f" {small} {words[1]}" if small else "")
    raise AssertionError("the last limit has no end")
