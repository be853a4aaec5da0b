"""The phases of the ``KeepMachine``."""

from __future__ import annotations

import enum


class KeepPhase(enum.Enum):
    FETCH = "fetch"
