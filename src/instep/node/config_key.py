"""What is known of one key of ``instep.toml``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["NO_DEFAULT", "Key"]

NO_DEFAULT = object()


@dataclass(frozen=True, slots=True)
class Key:
    """One key. ``default`` is a raw TOML value, read like one; ``NO_DEFAULT`` where it must be given."""

    name: str
    read: Callable[[object], object]
    default: object
    help: str
    travels: bool = False

    @property
    def is_required(self) -> bool:
        return self.default is NO_DEFAULT
