"""The polling helper that every waiting test goes through."""

from __future__ import annotations

import os
import socket

import pytest
import pytest_socket

from tests.support import waiting
from tests.support.waiting import crowding, eventually, eventually_async


def test_it_returns_the_first_truthy_answer() -> None:
    answers = iter([0, 0, 7])
    assert eventually(lambda: next(answers), timeout=1) == 7


def test_at_the_deadline_it_shows_the_last_answer() -> None:
    def check() -> bool:
        raise AssertionError("only s1")

    with pytest.raises(AssertionError, match=r"0\.01 s for three nodes; last seen: AssertionError: only s1"):
        eventually(check, 0.01, "three nodes", patience_s=0)


def test_a_deadline_grows_with_the_programs_that_compete_for_the_processors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    for load, wanted in ((0.1, 1.0), (5.0, 2.5), (40.0, waiting.CROWDED_MAX)):
        monkeypatch.setattr(os, "getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert crowding() == wanted
    monkeypatch.setattr(waiting, "crowding", lambda: 100_000.0)
    answers = iter([False] * 10 + [True])
    assert eventually(lambda: next(answers), 0.001, patience_s=0)


async def test_a_coroutine_is_asked_again_too() -> None:
    answers = iter([False, True])

    async def check() -> bool:
        return next(answers)

    assert await eventually_async(check, timeout=1)


def test_sockets_are_closed_on_this_floor() -> None:
    with pytest.raises((pytest_socket.SocketBlockedError, UserWarning)):
        socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    socket.socket(socket.AF_UNIX, socket.SOCK_STREAM).close()
