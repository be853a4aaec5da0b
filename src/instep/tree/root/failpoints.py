"""Named places where a test may kill the process or make the disk fail.

A failpoint that is not armed costs one dictionary truth test. The names are registered by the modules that
hit them, so that a test can walk all of them. Nothing here reads the environment: the node arms what it was
started with.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from typing import NewType

from instep.errors import UsageError

FailpointName = NewType("FailpointName", str)

_ERRNO = {name.lower(): number for number, name in errno.errorcode.items()}

_registered: dict[str, FailpointName] = {}
_armed: dict[str, tuple[int, str]] = {}
"""Name to (hits left before it acts, action)."""


def register(name: str) -> FailpointName:
    """Make ``name`` known; called at import by the module that hits it, once per name."""
    assert name not in _registered, f"failpoint {name} is registered twice"
    _registered[name] = FailpointName(name)
    return _registered[name]


def registered() -> tuple[FailpointName, ...]:
    """Every name of the modules imported so far, sorted."""
    return tuple(_registered[name] for name in sorted(_registered))


def arm(name: str, action: str) -> None:
    """Let ``name`` act: ``kill`` (SIGKILL to this process), ``stop`` (SIGSTOP), or the error of this name, such as
    ``enospc``.

    ``name:3`` acts at the third hit. A failing point acts from that hit on, every time; a stop comes once.
    """
    base, _, count = name.partition(":")
    if action not in ("kill", "stop") and action not in _ERRNO:
        raise UsageError(
            f"failpoint action {action!r} is unknown",
            hint="kill, stop, or the name of an error in small letters, such as enospc",
            code="bad_failpoint",
        )
    if count and not (count.isascii() and count.isdigit() and int(count) > 0):
        raise UsageError(f"failpoint count {count!r} is not a positive number", code="bad_failpoint")
    _armed[base] = (int(count or 1), action)


def arm_from_text(text: str) -> None:
    """Arm ``NAME[:COUNT][=ACTION]`` items, separated by commas; without an action it is ``kill``."""
    for item in filter(None, (part.strip() for part in text.split(","))):
        name, _, action = item.partition("=")
        arm(name, action or "kill")


def disarm_all() -> None:
    _armed.clear()


def failpoint(name: str) -> None:
    """Act when ``name`` is armed and its count is reached; otherwise do nothing."""
    if _armed and name in _armed:
        _act(name)


def _act(name: str) -> None:
    left, action = _armed[name]
    if left > 1:
        _armed[name] = (left - 1, action)
        return
    if action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if action == "stop":
        del _armed[name]
        signal.pthread_kill(
            threading.get_ident(), signal.SIGSTOP
        )  # to this thread: it does nothing more before
        return
    number = _ERRNO[action]
    raise OSError(number, f"{os.strerror(number)} (failpoint {name})")
