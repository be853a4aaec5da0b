"""The floors that see faults: where their tests lie, how long one may take, and which are run in many processes."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FLOORS", "ROOMS", "Floor"]

ROOMS = {"core": ("core",), "tree": ("tree",), "node": ("node", "fleet", "daemon"), "net": ("net",)}
"""Folders of ``src/instep`` in which faults are planted; each room has the same share."""


@dataclass(frozen=True, slots=True)
class Floor:
    """Some folders of tests. ``budget_s``: how much of them, by the time that they took without a fault, one fault gets."""

    name: str
    folders: tuple[str, ...]
    budget_s: float
    workers: int
    is_told_twice: bool
    """True when a failure counts only if the same test passes without the fault right afterwards."""


FLOORS = (
    Floor("quick", ("tests/unit", "tests/golden", "tests/property"), 120, 2, is_told_twice=False),
    Floor("worlds", ("tests/contract", "tests/simulation", "tests/adversary"), 150, 2, is_told_twice=True),
    Floor("cluster", ("tests/cluster",), 150, 4, is_told_twice=True),
)
"""Fast to slow. Tests that read the sources instead of running them are in ``NOT_RUN``."""

NOT_RUN = ("tests/unit/test_house.py", "tests/unit/test_docs.py", "tests/unit/cli/test_reference.py")
