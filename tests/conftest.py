"""The rules of every test: markers come from the folder, sockets stay closed below the cluster floor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import pytest_socket

from tests.support.spreading import Spreading, longest_first

TESTS = Path(__file__).parent
MARKED_FLOORS = ("adversary", "browser", "cluster", "simulation")
FLOORS_WITH_SOCKETS = ("browser", "cluster")

# A busy machine is no reason to fail; tests as a whole have their deadline.
hypothesis.settings.register_profile("house", deadline=None)
hypothesis.settings.load_profile("house")


def floor_of(item: pytest.Item) -> str:
    """The folder below ``tests`` that a test lies in."""
    try:
        return item.path.relative_to(TESTS).parts[0]
    except ValueError:
        return ""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        floor = floor_of(item)
        if floor in MARKED_FLOORS:
            item.add_marker(floor)
    if hasattr(config, "workerinput"):  # one of several workers
        longest_first(items)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Spreading:
    return Spreading(config, log)


@pytest.fixture(autouse=True)
def _sockets_by_floor(request: pytest.FixtureRequest) -> Iterator[None]:
    if floor_of(request.node) in FLOORS_WITH_SOCKETS:
        yield
        return
    pytest_socket.disable_socket(allow_unix_socket=True)
    yield
    pytest_socket.enable_socket()
