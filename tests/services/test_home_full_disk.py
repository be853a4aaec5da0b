"""The disk of a home fills at each step of an accepted change set: named or waited out, never half made."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

import instep.daemon.process  # noqa: F401  registers every failpoint
from instep.errors import InstepError, Retry
from instep.model.change import ChangeAnswer, ChangeSet
from instep.tree.root import failpoints
from tests.support.offered import Offerer, writer_of
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time, reached

HERE = ("home", "offered", "compared", "stage", "archive", "journal", "switch", "publish")
FULL_S = 3.0
FILES = {"a": "one", "b": "two", "d/x": "x", "gone": "gone"}


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm_all()


def specs() -> list[str]:
    return [name for name in failpoints.registered() if name.split(".")[0] in HERE]


@in_virtual_time
async def test_a_disk_that_fills_at_any_step_leaves_a_set_made_or_to_be_sent_again(tmp_path: Path) -> None:
    """Goal: whatever write fails, the set is answered, or refused with a reason that says to send it again; sent again
    once there is room, every path is made, nothing twice, and nothing is left behind. Method: each failpoint on the way
    reports a full disk for three seconds."""
    async with services(tmp_path) as cluster:
        main = cluster.add("main")
        main.writes('offers_from = ["s1"]', "max_deletions = 10000")
        main.start()
        main.write(FILES)
        await main.publish()
        refused = [spec for spec in specs() if await _filled_at(main, spec)]
        assert len(refused) > 10, refused


async def _filled_at(main: ServiceNode, spec: str) -> bool:
    """Whether the submitter was asked to send the set again."""
    s1 = Offerer(main)
    s1.see()
    wanted = {"a": f"by {spec}", "gone": None, f"new-{spec}": "new"}
    change_set, data = s1.changes(wanted), [text for text in wanted.values() if text is not None]
    number = await main.head()
    failpoints.arm(spec, "enospc")
    asyncio.get_running_loop().call_later(FULL_S, failpoints.disarm_all)
    is_refused = False
    try:
        answer = await s1.submit(change_set, *data)
    except InstepError as error:
        if error.retry is not Retry.LATER:
            raise
        is_refused = True
        failpoints.disarm_all()
        answer = await _answered(s1, change_set, data, spec)
    assert all(outcome.is_made for outcome in answer.outcomes), (spec, answer)
    for path, text in wanted.items():
        at = main.tree / path
        assert (at.read_text() if at.exists() else None) == text, (spec, path)
    failpoints.disarm_all()
    await main.stands("in_step")
    # A number whose commit failed is not used again.
    assert await main.head() <= number + (2 if spec.startswith("publish.") else 1), spec
    await writer_of(main).changes.driver.settled()
    left = [name for name in ("journal", "stage/*", "offered/*") if list(main.control.glob(name))]
    assert left == [], spec
    (main.tree / "gone").write_text(f"again after {spec}")
    await main.publish()
    return is_refused


async def _answered(s1: Offerer, change_set: ChangeSet, data: list[str], spec: str) -> ChangeAnswer:
    answers: list[ChangeAnswer] = []

    async def is_answered() -> bool:
        try:
            answers.append(await s1.submit(change_set, *data))
        except InstepError as error:
            if error.retry is not Retry.LATER:
                raise
            return False
        return True

    await reached(is_answered, lambda: f"an answer after {spec}")
    return answers[0]
