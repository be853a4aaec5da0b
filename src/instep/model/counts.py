"""Counts in sentences: one path, two paths."""

from __future__ import annotations


def counted(number: int, one: str, many: str = "") -> str:
    """The number with its noun: ``1 path``, ``2 paths``; ``many`` where the plural is more than an ``s``."""
    return f"{number} {which(number, one, many or one + 's')}"


def which(number: int, one: str, many: str) -> str:
    """The word that goes with this number: ``is`` or ``are``."""
    return one if number == 1 else many
