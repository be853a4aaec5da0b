"""Fixtures of the cluster floor: a fleet of real daemons that ends with the test, and the end of tests that share
one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet

FAILED = pytest.StashKey[bool]()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Record for the fixtures whether the test itself failed."""
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    """An empty fleet; ``make`` fills it. Its daemons are killed at the end."""
    made = Fleet(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def has_failed(request: pytest.FixtureRequest) -> Callable[[], bool]:
    """Whether this test itself failed, for the checks after it."""
    return lambda: request.node.stash.get(FAILED, False)


@pytest.fixture
def healed(request: pytest.FixtureRequest, has_failed: Callable[[], bool]) -> Iterator[None]:
    """For a file whose tests share a ``scene``: one that failed leaves the next a daemon that runs and follows."""
    scene = request.getfixturevalue("scene")
    yield
    if has_failed():
        scene.victim.recover()
        scene.heal()


@pytest.fixture
def put_back(request: pytest.FixtureRequest, has_failed: Callable[[], bool]) -> Callable[[list[str]], None]:
    """Takes the list of things that a test of shared nodes left behind, once they are put back. A test that passed
    fails by that, so that it is named itself and not the next one; beside a failure the list is shown, for it may be
    a consequence."""

    def judge(left: list[str]) -> None:
        if not left:
            return
        said = f"{request.node.name} left behind: {', '.join(left)}"
        if has_failed():
            print(said)  # noqa: T201 - among what pytest shows of a failed test
        else:
            pytest.fail(said)

    return judge
