"""Golden answers: send an application the requests of before, and report whether it answers the same.

Every request ends within its own deadline and reads a bounded body; redirects are not followed, compressed answers
are not unpacked. Pictures and patterns are dangerous to read: ``answer_worker`` reads them in a process of its own.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import msgspec

from instep.fleet.golden import answer_worker
from instep.fleet.golden.spec import CompareBy, GoldenAnswer, GoldenSpec, GoldenVerdict
from instep.fleet.hooks.aside import Hangs
from instep.fleet.hooks.http import SECRETS, CannotAsk, answer_to, credentials_for, shown_url, why_not_asked
from instep.fleet.hooks.run import output_of
from instep.model.counts import lasting

ANSWER_BYTES_MAX = 64 << 20
"""Bytes of an answer of which only the digest is taken."""
READ_BYTES_MAX = 4 << 20
"""Bytes of an answer that is looked into: images, and texts with ``ignore``."""
TOGETHER = 4
"""Requests at a time to one application."""
WORKER_S = 20.0
_LONGEST_PAUSE_MS = 10_000


class _Unusable(Exception):
    """Why an answer is none to compare with; a sentence's end."""


async def ask_all(
    specs: Iterable[GoldenSpec], *, is_patient: bool = True, backoff_ms: int = 500
) -> tuple[GoldenAnswer, ...]:
    """Every request's answer, in order; one without a usable answer is repeated as its retries say, if patient."""
    gate = asyncio.Semaphore(TOGETHER)

    async def one(spec: GoldenSpec) -> GoldenAnswer:
        async with gate:
            return await (_persistently(spec, backoff_ms) if is_patient else ask_one(spec))

    async with asyncio.TaskGroup() as group:  # noqa: TID251  no task of it raises
        tasks = [group.create_task(one(spec)) for spec in specs]
    return tuple(task.result() for task in tasks)


async def _persistently(spec: GoldenSpec, backoff_ms: int) -> GoldenAnswer:
    answer = await ask_one(spec)
    for attempt in range(spec.ask.retries):
        if not answer.problem:
            break
        await asyncio.sleep(min(backoff_ms << attempt, _LONGEST_PAUSE_MS) / 1000)
        answer = await ask_one(spec)
    return answer


async def ask_one(spec: GoldenSpec) -> GoldenAnswer:
    """Ask once. Trouble is named in the answer's ``problem``; no secret is in it."""
    import aiohttp  # 0.2 s of import that a node without such requests need not pay

    asked = spec.ask
    assert asked.http is not None
    answer = GoldenAnswer(spec.name, spec.question)
    try:
        credentials = await SECRETS.run(
            partial(credentials_for, asked, asked.http[1]), asked.timeout_ms / 1000
        )
    except (CannotAsk, Hangs) as error:
        return msgspec.structs.replace(answer, problem=str(error))
    # A compressed body would have to be unpacked, and a small one can unpack to a huge one.
    headers = {"User-Agent": "instep", "Accept-Encoding": "identity", **credentials.headers}
    try:
        async with (
            asyncio.timeout(asked.timeout_ms / 1000),
            answer_to(asked, headers, is_unpacked=False) as reply,
        ):
            answer = msgspec.structs.replace(answer, status=reply.status)
            expected = 200 if asked.expect_status is None else asked.expect_status
            if reply.status != expected:
                where = reply.headers.get("Location", "")[:200]
                more = f" (it points to {where!r})" if where else ""
                raise _Unusable(f"answered {reply.status}, expected {expected}{more}")
            return await _taken(spec, answer, reply)
    except TimeoutError:
        problem = f"no answer within {lasting(asked.timeout_ms)}"
    except _Unusable as error:
        problem = str(error)
    except (aiohttp.ClientError, OSError, ValueError) as error:
        problem = why_not_asked(error)
    return msgspec.structs.replace(answer, problem=credentials.hide(problem))


async def _taken(spec: GoldenSpec, answer: GoldenAnswer, reply: Any) -> GoldenAnswer:
    """The answer with the part of its body that is compared."""
    if spec.compare is CompareBy.STATUS:
        return answer
    is_read = spec.compare is CompareBy.IMAGE or bool(spec.ignore)
    limit = READ_BYTES_MAX if is_read else ANSWER_BYTES_MAX
    digest, kept, size = hashlib.sha256(), bytearray(), 0
    async for piece in reply.content.iter_chunked(64 << 10):
        size += len(piece)
        if size > limit:
            reply.close()
            raise _Unusable(f"answered more than {limit} bytes")
        digest.update(piece)
        if is_read:
            kept += piece
    body, sha256 = bytes(kept), digest.hexdigest()
    if spec.compare is CompareBy.IMAGE:
        await _worker({"do": "look"}, body)
        return msgspec.structs.replace(answer, sha256=sha256, size_bytes=size, picture=body)
    if spec.ignore:
        sha256 = str((await _worker({"do": "strip", "patterns": spec.ignore}, body))["sha256"])
    return msgspec.structs.replace(answer, sha256=sha256, size_bytes=size)


async def judge(spec: GoldenSpec, before: GoldenAnswer | None, now: GoldenAnswer) -> GoldenVerdict:
    """Whether ``now`` is as it should be: the expected status, and the same as ``before``, when there is one to compare
    with and no change is expected."""
    if now.problem:
        return GoldenVerdict(spec, now, before, now.problem)
    is_usable = before is not None and not before.problem and before.question == spec.question
    if before is None or not is_usable or spec.is_change_expected:
        return GoldenVerdict(spec, now, before)
    if before.sha256 == now.sha256:
        return GoldenVerdict(spec, now, before, is_compared=True)
    values = f"before {_value(before)}, now {_value(now)}"
    if spec.compare is not CompareBy.IMAGE:
        return GoldenVerdict(spec, now, before, values, is_compared=True, is_difference=True)
    try:
        order = {"do": "compare", "tolerance": spec.tolerance}
        seen = await _worker(order, before.picture, now.picture)
    except _Unusable as error:
        return GoldenVerdict(spec, now, before, f"{values}: {error}", is_compared=True, is_difference=True)
    share, largest = float(seen["share_percent"]), int(seen["largest"])
    one, other = seen["sizes"]
    reason = ""
    if one != other:
        reason = f"{values}: {one[0]} x {one[1]} pixels before, {other[0]} x {other[1]} now"
    elif share > spec.max_share_percent:
        reason = (
            f"{values}: {share:.3g}% of the pixels differ by more than {spec.tolerance}, "
            f"at most {spec.max_share_percent:g}% may; the largest difference is {largest} of 255"
        )
    return GoldenVerdict(spec, now, before, reason, True, bool(reason), largest, share)


def named(spec: GoldenSpec) -> str:
    """The request as a person reads it, without its query, which may hold secrets."""
    assert spec.ask.http is not None
    method, url = spec.ask.http
    return f"{spec.name} ({method} {shown_url(url)})"


def _value(answer: GoldenAnswer) -> str:
    return f"{answer.status} sha256 {answer.sha256[:12]} ({answer.size_bytes} bytes)"


async def _worker(order: Mapping[str, object], *bodies: bytes) -> dict[str, Any]:
    """What ``answer_worker`` says; ``_Unusable`` when it refuses, dies or takes too long."""
    line = json.dumps({**order, "sizes": [len(body) for body in bodies]}).encode() + b"\n"
    program = (sys.executable, "-I", str(Path(answer_worker.__file__)))
    try:
        given = line + b"".join(bodies)
        status, told = await output_of(program, given, WORKER_S, errors=asyncio.subprocess.DEVNULL)
    except TimeoutError:
        raise _Unusable(f"could not be looked at within {WORKER_S:g} s") from None
    except OSError as error:
        raise _Unusable(f"could not be looked at: {error.strerror}") from error
    if status != 0:
        raise _Unusable(
            f"could not be looked at: the program that does ended with {status}, as it does at its "
            f"limits of {answer_worker.MEMORY_MAX >> 20} MiB and {answer_worker.CPU_SECONDS_MAX} s"
        )
    found: dict[str, Any] = json.loads(told)
    if "error" in found:
        raise _Unusable(str(found["error"]))
    return found
