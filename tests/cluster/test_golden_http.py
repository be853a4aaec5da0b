"""Asking for golden answers: applications that never end, hang, redirect, pack, or answer what hurts to read."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from instep.fleet.golden import golden
from instep.fleet.golden.golden import ask_all, ask_one, judge
from instep.fleet.golden.spec import CompareBy, GoldenAnswer, GoldenSpec
from instep.fleet.hooks.spec import HookSpec

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Ask = Callable[..., Awaitable[GoldenAnswer]]


@pytest.fixture
async def ask() -> AsyncIterator[Ask]:
    """Ask a server with one handler; the answer."""
    runners: list[web.AppRunner] = []

    async def make(
        handler: Handler, /, *, timeout_ms: int = 30_000, headers_file: Path | None = None, **keys: object
    ) -> GoldenAnswer:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        url = f"http://127.0.0.1:{runner.addresses[0][1]}/map?secret=1"
        asked = HookSpec(
            http=("GET", url), expect_status=200, timeout_ms=timeout_ms, headers_file=headers_file
        )
        return await ask_one(GoldenSpec("map", asked, **keys))  # type: ignore[arg-type]

    yield make
    for runner in runners:
        await runner.cleanup()


async def _endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    while True:
        await response.write(b"x" * (1 << 20))


async def test_an_answer_without_an_end_is_left(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "ANSWER_BYTES_MAX", 8 << 20)
    assert (await ask(_endless)).problem == "answered more than 8388608 bytes"
    assert (await ask(_endless, ignore=("x",))).problem == "answered more than 4194304 bytes"
    assert (await ask(_endless, compare=CompareBy.IMAGE)).problem == "answered more than 4194304 bytes"
    assert not (await ask(_endless, compare=CompareBy.STATUS)).problem


async def test_a_slow_answer_has_a_deadline_as_a_whole(ask: Ask) -> None:
    async def drip(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b".")
            await asyncio.sleep(0)

    began = time.monotonic()
    answer = await ask(drip, timeout_ms=300)
    assert answer.problem in ("no answer within 0.3 s", "answered more than 67108864 bytes")
    assert time.monotonic() - began < 30


async def test_a_redirect_is_a_status_and_secrets_are_not_repeated(ask: Ask, tmp_path: Path) -> None:
    secret = tmp_path / "headers"
    secret.touch(0o600)
    secret.write_text("X-Key: hunter2\n")
    seen: list[str] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request.headers["X-Key"])
        return web.Response(status=302, headers={"Location": f"http://192.0.2.1/?key={seen[0]}"})

    answer = await ask(handler, headers_file=secret)
    assert seen == ["hunter2"]
    assert answer.problem == "answered 302, expected 200 (it points to 'http://192.0.2.1/?key=***')"
    secret.chmod(0o644)
    assert "has mode 0644; make it 0600" in (await ask(handler, headers_file=secret)).problem


async def test_a_packed_answer_is_not_unpacked(ask: Ask) -> None:
    bomb = gzip.compress(bytes(64 << 20))

    async def handler(request: web.Request) -> web.Response:
        assert request.headers["Accept-Encoding"] == "identity"
        return web.Response(body=bomb, headers={"Content-Encoding": "gzip"})

    answer = await ask(handler)
    assert (answer.problem, answer.size_bytes) == ("", len(bomb))


async def test_what_is_ignored_does_not_count(ask: Ask) -> None:
    texts = iter((b"<a at='1'/>", b"<a at='22'/>", b"<b at='1'/>"))

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=next(texts))

    answers = [await ask(handler, ignore=("at='[0-9]+'",)) for _ in range(3)]
    assert answers[0].sha256 == answers[1].sha256 != answers[2].sha256


async def test_a_pattern_that_never_ends_is_ended(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(golden, "WORKER_S", 1.0)

    async def handler(request: web.Request) -> web.Response:
        return web.Response(body=b"a" * 5_000 + b"b")

    answer = await ask(handler, ignore=("(a+)+$",))
    assert answer.problem == "could not be looked at within 1 s"


async def test_nobody_there_is_a_problem_of_that_request_only() -> None:
    gone = GoldenSpec("gone", HookSpec(http=("GET", "http://127.0.0.1:9/"), retries=1))
    answers = await ask_all((gone, gone), backoff_ms=1)
    assert len(answers) == 2 and all(one.problem for one in answers)
    assert (await judge(gone, None, answers[0])).reason == answers[0].problem
