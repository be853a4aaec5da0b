"""Hooks of the kind ``http``, against a real server on loopback, plain and with TLS."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from instep.fleet.hooks.hooks import run_hook
from instep.fleet.hooks.http import is_unverified
from instep.fleet.hooks.spec import HookCall, HookSpec, TlsMode
from instep.model.ids import FilesetName
from tests.support.records import head_ref

CALL = HookCall("reload", FilesetName("catalog"), head_ref(42), None)
Start = Callable[..., Awaitable[str]]


@pytest.fixture
async def start() -> AsyncIterator[Start]:
    """Start a server with one handler; its URL."""
    runners: list[web.AppRunner] = []

    async def make(
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]], context: ssl.SSLContext | None = None
    ) -> str:
        application = web.Application()
        application.router.add_route("*", "/{tail:.*}", handler)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        runners.append(runner)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        port = runner.addresses[0][1]
        return f"http{'s' if context else ''}://127.0.0.1:{port}/reload"

    yield make
    for runner in runners:
        await runner.cleanup()


async def test_the_request_says_what_it_is_about_and_authenticates(start: Start, tmp_path: Path) -> None:
    seen: list[web.Request] = []

    async def handler(request: web.Request) -> web.Response:
        seen.append(request)
        return web.Response(text=f"you are {request.headers['Authorization']} and said hunter2")

    url = await start(handler)
    auth = tmp_path / "auth"
    auth.touch(0o600)
    auth.write_text("admin:hunter2\n", "utf-8")
    outcome = await run_hook(HookSpec(http=("POST", url), auth_file=auth), CALL)
    assert outcome.ok, outcome.reason
    assert seen[0].method == "POST"
    assert seen[0].headers["X-Instep-Generation"] == "42"
    assert seen[0].headers["Authorization"] == "Basic YWRtaW46aHVudGVyMg=="
    assert outcome.output_tail == "you are Basic *** and said ***"
    auth.write_text("tok.en-1", "utf-8")
    outcome = await run_hook(HookSpec(http=("POST", url), auth_file=auth), CALL)
    assert seen[1].headers["Authorization"] == "Bearer tok.en-1"
    assert "tok.en-1" not in outcome.output_tail
    assert not outcome.is_unverified


async def test_status_and_body_decide(start: Start) -> None:
    async def handler(request: web.Request) -> web.Response:
        headers = {"Location": "/elsewhere"} if request.query.get("status") == "302" else {}
        return web.Response(text="WMS_Capabilities", status=int(request.query["status"]), headers=headers)

    url = await start(handler)

    async def ask(status: int, expect_status: int | None = None, expect_body: str | None = None) -> str:
        spec = HookSpec(
            http=("GET", f"{url}?status={status}"), expect_status=expect_status, expect_body=expect_body
        )
        return (await run_hook(spec, CALL)).reason

    assert await ask(200) == ""
    assert await ask(202, expect_body="WMS_Cap") == ""
    assert await ask(404, expect_status=404) == ""
    assert await ask(302) == f"GET {url}?...: answered 302, expected 200 to 299"
    assert await ask(503) == f"GET {url}?...: answered 503, expected 200 to 299"
    assert await ask(200, expect_status=204) == f"GET {url}?...: answered 200, expected 204"
    assert "without 'WFS' in the body" in await ask(200, expect_body="WFS")


async def test_a_refused_answer_is_quoted_without_secrets_and_control_bytes(
    start: Start, tmp_path: Path
) -> None:
    async def handler(request: web.Request) -> web.Response:
        text = f"<b>No disk\x1b[2J</b>\n for {request.headers['Authorization']}" + "x" * 3000
        return web.Response(text=text, status=500)

    auth = tmp_path / "auth"
    auth.touch(0o600)
    auth.write_text("admin:hunter2\n", "utf-8")
    outcome = await run_hook(HookSpec(http=("GET", await start(handler)), auth_file=auth), CALL)
    assert '200 to 299; it answered: "<b>No disk\\x1b[2J</b> for Basic ***xxx' in outcome.explained
    assert outcome.explained.endswith('xxx..."')


async def test_it_is_asked_again_and_every_attempt_has_a_deadline(start: Start) -> None:
    tries = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal tries
        tries += 1
        if tries < 3:
            response = web.StreamResponse()
            await response.prepare(request)
            while True:  # an answer without an end
                await response.write(b"x" * 1000)
        return web.Response()

    url = await start(handler)
    spec = HookSpec(http=("GET", url), timeout_ms=300, retries=3, expect_body="never there")
    outcome = await run_hook(spec, CALL, backoff_ms=1)
    assert (outcome.ok, outcome.attempts) == (False, 4)
    assert len(outcome.output_tail) <= 64 << 10
    refused = await run_hook(HookSpec(http=("GET", "http://127.0.0.1:9/"), timeout_ms=2000), CALL)
    assert not refused.ok
    assert refused.reason.startswith("GET http://127.0.0.1:9/: ")


async def test_a_silent_server_is_given_up(start: Start) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await asyncio.Event().wait()  # until the server is cleaned up
        return response

    url = await start(handler)
    outcome = await run_hook(HookSpec(http=("GET", url), timeout_ms=200), CALL)
    assert outcome.reason == f"GET {url}: no answer within 0.2 s"


async def test_certificates_are_verified_unless_told_otherwise(start: Start, tmp_path: Path) -> None:
    async def handler(request: web.Request) -> web.Response:
        return web.Response(text="ok")

    url = await start(handler, _self_signed(tmp_path))
    strict = await run_hook(HookSpec(http=("GET", url)), CALL)
    assert not strict.ok
    assert "certificate" in strict.reason.lower()
    loose = await run_hook(HookSpec(http=("GET", url), tls=TlsMode.NOVERIFY), CALL)
    assert loose.ok, loose.reason


async def test_secrets_do_not_travel_where_they_should_not(tmp_path: Path) -> None:
    auth = tmp_path / "auth"
    auth.touch(0o600)
    auth.write_text("admin:hunter2", "utf-8")

    async def why(url: str, auth_file: Path | None = auth) -> str:
        return (await run_hook(HookSpec(http=("GET", url), auth_file=auth_file), CALL)).reason

    assert "unencrypted" in await why("http://192.0.2.1/reload")
    leaked = await why("http://admin:hunter2@127.0.0.1:9/", None)
    assert leaked == "GET http://127.0.0.1:9/: the URL holds credentials; put them into an auth_file"
    auth.chmod(0o640)
    assert await why("http://127.0.0.1:9/") == (
        f"GET http://127.0.0.1:9/: auth_file {auth} has mode 0640; make it 0600"
    )
    assert "No such file" in await why("http://127.0.0.1:9/", tmp_path / "none")


def test_what_is_unverified_says_so() -> None:
    def flag(url: str, tls: TlsMode = TlsMode.VERIFY) -> bool:
        return is_unverified(HookSpec(http=("GET", url), tls=tls))

    assert not flag("http://localhost:8080/")
    assert not flag("https://app.example.org/")
    assert flag("http://app.example.org/")
    assert flag("https://app.example.org/", TlsMode.NOVERIFY)
    assert not is_unverified(HookSpec(run=("true",)))


def _self_signed(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, hashes.SHA256())
    )
    pem = folder / "server.pem"
    pem.write_bytes(
        certificate.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    return context
