"""Fixtures of the cluster floor: a fleet of real daemons that ends with the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """An empty fleet; ``make`` fills it. Its daemons are killed at the end."""
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.close()
