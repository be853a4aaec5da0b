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
