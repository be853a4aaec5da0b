"""Calls that hang: their number is bounded, a waiting caller goes on, and they do not keep the process."""

from __future__ import annotations

import threading

import pytest

from instep.fleet.hooks.aside import Aside, Hangs
from tests.support.waiting import eventually_async


async def test_calls_that_hang_are_few_and_the_next_is_refused() -> None:
    aside = Aside("test", 2)
    free = threading.Event()
    for _ in range(2):
        with pytest.raises(Hangs, match=r"no answer within 0\.01 s"):
            await aside.run(free.wait, 0.01)
    with pytest.raises(Hangs, match="2 calls before it still hang"):
        await aside.run(lambda: None, 10)
    held = [thread for thread in threading.enumerate() if thread.name == "test"]
    assert len(held) == 2
    assert all(thread.daemon for thread in held)
    free.set()

    async def is_free() -> bool:
        return aside.running == 0

    await eventually_async(is_free)
    assert await aside.run(lambda: "again", 10) == "again"


async def test_what_a_call_raises_reaches_whoever_waits() -> None:
    def fails() -> None:
        raise OSError(5, "broken")

    with pytest.raises(OSError, match="broken"):
        await Aside("test", 1).run(fails, 10)
