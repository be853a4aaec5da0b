"""The ``run`` kind of fact: a program in a session of its own, read up to a limit and ended as a group."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time

from instep.fleet.hooks.run import MINIMAL_ENVIRONMENT

OUTPUT_MAX = 64 << 10
GONE_S = 2.0


def output_of(words: tuple[str, ...], within_s: float) -> str:
    """The program's output on both streams (``java -version`` uses the other one), or in angle brackets why it
    cannot be had. Reading stops above ``OUTPUT_MAX`` bytes; its children are gone with it. ``OSError`` when it
    cannot be started. Blocks: call it in a thread."""
    deadline = time.monotonic() + within_s
    child = subprocess.Popen(
        words,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd="/",
        env=dict(MINIMAL_ENVIRONMENT),
        start_new_session=True,
        bufsize=0,
    )
    assert child.stdout is not None
    try:
        raw = _read(child.stdout.fileno(), deadline)
        if raw is None:
            return f"<no answer within {within_s:g} s>"
        if len(raw) > OUTPUT_MAX:
            return f"<prints more than {OUTPUT_MAX} bytes>"
        try:
            status = child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return f"<no answer within {within_s:g} s>"
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.stdout.close()
        with contextlib.suppress(subprocess.TimeoutExpired):  # the kernel holds it: nothing more can be done
            child.wait(GONE_S)
    return f"<ended with {status}>" if status != 0 else raw.decode("utf-8", "replace")


def _read(fd: int, deadline: float) -> bytes | None:
    """To the end of the stream or just above the limit; None at the deadline."""
    found = bytearray()
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(found) <= OUTPUT_MAX:
        left_ms = int((deadline - time.monotonic()) * 1000)
        if left_ms <= 0 or not poll.poll(left_ms):
            return None
        piece = os.read(fd, 16 << 10)
        if not piece:
            break
        found += piece
    return bytes(found)
