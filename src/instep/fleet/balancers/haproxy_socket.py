"""HAProxy's runtime socket: the commands of an operator, for drains that should not wait for the next
question."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path

from instep.errors import UnavailableError

ANSWER_BYTES_MAX = 64 << 10


async def command(socket: Path, line: str, deadline_s: float = 5.0) -> str:
    """HAProxy's answer to one line; empty when it obeyed. ``UnavailableError`` when it does not
    answer."""
    assert not {"\n", ";"} & set(line), "one line is one command"
    try:
        async with asyncio.timeout(deadline_s):
            reader, writer = await asyncio.open_unix_connection(str(socket), limit=ANSWER_BYTES_MAX)
            try:
                writer.write(line.encode() + b"\n")
                await writer.drain()
                raw = b""
                while len(raw) < ANSWER_BYTES_MAX:
                    more = await reader.read(4_096)
                    if not more:
                        break
                    raw += more
            finally:
                writer.close()
    except TimeoutError as error:
        raise _silent(socket, f"no answer within {deadline_s:g} s") from error
    except OSError as error:
        raise _silent(socket, error.strerror or str(error)) from error
    return raw.decode("utf-8", "replace").strip()


def _silent(socket: Path, why: str) -> UnavailableError:
    return UnavailableError(
        f"HAProxy's socket {socket}: {why}",
        hint="is HAProxy running, and does its file have a stats socket with level admin there?",
        code="haproxy_socket",
        path=str(socket),
    )


async def tell(socket: Path, lines: Iterable[str]) -> tuple[str, ...]:
    """Say these lines, in order. Returns what HAProxy refused, as sentences."""
    refused = []
    for line in lines:
        answer = await command(socket, line)
        if answer:
            refused.append(f"{line}: {answer.splitlines()[0][:200]}")
    return tuple(refused)
