"""The ``http`` kind of hook: one request, judged by status and body. Credentials come from a private file."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import os
import re
import stat
import urllib.parse
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from instep.fleet.hooks.aside import Aside, Hangs
from instep.fleet.hooks.spec import OUTPUT_KEPT, Attempt, HookCall, HookSpec, TlsMode
from instep.model.counts import lasting, sized

if TYPE_CHECKING:
    import aiohttp

BODY_SEARCHED = 1 << 20
"""Bytes of an answer that ``expect_body`` is looked for in."""
_AUTH_BYTES_MAX = 4096
SECRETS = Aside("credentials", 8)
"""Reads of secret files, which may lie on a mount that hangs."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """Headers to send, and the secrets in them, which no text may repeat."""

    headers: Mapping[str, str]
    secrets: tuple[str, ...]

    def hide(self, text: str) -> str:
        """An answer may repeat what it was asked with."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text

    def hide_bytes(self, raw: bytes) -> bytes:
        for secret in self.secrets:
            raw = raw.replace(secret.encode(), b"***")
        return raw


_NOBODY = Credentials({}, ())


class CannotAsk(Exception):
    """Why the request was not even made."""


def is_unverified(spec: HookSpec) -> bool:
    """Whether this hook believes another machine, or sends it something, without a verified certificate."""
    if spec.http is None:
        return False
    url = urllib.parse.urlsplit(spec.http[1])
    if _is_loopback(url.hostname):
        return False
    return url.scheme != "https" or spec.tls is not TlsMode.VERIFY


async def request(spec: HookSpec, call: HookCall) -> Attempt:
    """One attempt within the timeout. Redirects are not followed: an answer 3xx is a status like others."""
    import aiohttp

    assert spec.http is not None
    method, url = spec.http
    name = f"{method} {shown_url(url)}"
    try:
        credentials = await SECRETS.run(partial(credentials_for, spec, url), spec.timeout_ms / 1000)
    except (CannotAsk, Hangs) as error:
        return Attempt(f"{name}: {error}")
    headers = {
        "User-Agent": "instep",
        "X-Instep-Hook": call.hook,
        "X-Instep-Fileset": call.fileset,
        "X-Instep-Generation": "" if call.generation is None else str(call.generation.number),
    }
    if "INSTEP_SYNC" in call.extra:
        headers["X-Instep-Sync"] = call.extra["INSTEP_SYNC"]
    given = {name.lower() for name in credentials.headers}
    if spec.body is not None and "content-type" not in given and _is_json(spec.body):
        headers["Content-Type"] = "application/json"
    headers |= credentials.headers
    try:
        async with asyncio.timeout(spec.timeout_ms / 1000), answer_to(spec, headers) as answer:
            body = await _body(answer, BODY_SEARCHED if spec.expect_body else OUTPUT_KEPT)
    except TimeoutError:
        return Attempt(f"{name}: no answer within {lasting(spec.timeout_ms)}")
    except (aiohttp.ClientError, OSError, ValueError) as error:
        return Attempt(credentials.hide(f"{name}: {why_not_asked(error)}"))
    reason = _judged(spec, answer.status, body)
    return Attempt(reason and f"{name}: {reason}", credentials.hide_bytes(body)[:OUTPUT_KEPT])


@contextlib.asynccontextmanager
async def answer_to(
    spec: HookSpec, headers: Mapping[str, str], *, is_unpacked: bool = True
) -> AsyncIterator[aiohttp.ClientResponse]:
    """Send the request of ``spec``, without cookies, proxies of the environment and redirects."""
    import aiohttp  # 0.2 s of import that a node without such hooks need not pay

    assert spec.http is not None
    method, url = spec.http
    async with (
        aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=None),
            trust_env=False,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=is_unpacked,
        ) as session,
        session.request(
            method,
            url,
            headers=headers,
            data=None if spec.body is None else spec.body.encode(),
            allow_redirects=False,
            ssl=spec.tls is TlsMode.VERIFY,
        ) as answer,
    ):
        yield answer


def _is_json(body: str) -> bool:
    try:
        msgspec.json.decode(body)
    except msgspec.DecodeError:
        return False
    return True


def _judged(spec: HookSpec, status: int, body: bytes) -> str:
    """Why the answer does not count as success; empty when it does."""
    if spec.expect_status is None:
        if not 200 <= status <= 299:
            return f"answered {status}, expected 200 to 299"
    elif status != spec.expect_status:
        return f"answered {status}, expected {spec.expect_status}"
    if spec.expect_body and spec.expect_body.encode() not in body:
        return f"answered {status}, but without {spec.expect_body!r} in the body"
    return ""


async def _body(answer: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for piece in answer.content.iter_chunked(64 << 10):
        body += piece
        if len(body) >= limit:
            answer.close()
            break
    return bytes(body[:limit])


def why_not_asked(error: Exception) -> str:
    """A client's error in words for a person."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def shown_url(url: str) -> str:
    """Without credentials and query, which may hold secrets."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    return f"{parts.scheme}://{host}{parts.path}" + ("?..." if parts.query else "")


def _is_loopback(host: str | None) -> bool:
    if host is None or host == "localhost":
        return host is not None
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def credentials_for(spec: HookSpec, url: str) -> Credentials:
    """The credentials in the private files of ``spec``; ``CannotAsk`` with the reason."""
    parts = urllib.parse.urlsplit(url)
    if parts.username or parts.password:
        raise CannotAsk("the URL holds credentials; put them into an auth_file")
    if spec.auth_file is None and spec.headers_file is None:
        return _NOBODY
    if parts.scheme != "https" and not _is_loopback(parts.hostname) and spec.tls is not TlsMode.NONE:
        raise CannotAsk('credentials would travel unencrypted; use https, or say tls = "none"')
    found = _NOBODY
    if spec.auth_file is not None:
        lines = _private_lines("auth_file", spec.auth_file)
        if len(lines) != 1 or not lines[0].strip():
            raise CannotAsk(f"auth_file {spec.auth_file} must hold one line: user:password or a bearer token")
        found = _parsed(lines[0].strip(), spec.auth_file)
    if spec.headers_file is not None:
        more = _headers(_private_lines("headers_file", spec.headers_file), spec.headers_file)
        found = Credentials({**found.headers, **more}, (*found.secrets, *(v for v in more.values() if v)))
    return found


def _headers(lines: list[str], path: Path) -> dict[str, str]:
    """Lines such as ``X-Key: value``. A line's content is secret: a wrong one is named by its number."""
    found = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, colon, value = line.partition(":")
        if not colon or not re.fullmatch(r"[A-Za-z0-9-]{1,100}", name) or not line.isprintable():
            raise CannotAsk(f"headers_file {path}: line {number} is not a header such as X-Key: value")
        found[name] = value.strip()
    return found


def _private_lines(key: str, path: Path) -> list[str]:
    """The lines of a file that no other user may read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CannotAsk(f"{key} {path}: {error.strerror}") from error
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise CannotAsk(f"{key} {path} is not a regular file")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise CannotAsk(f"{key} {path} has mode {mode:04o}; make it 0600")
        if found.st_uid not in (0, os.geteuid()):
            raise CannotAsk(f"{key} {path} belongs to user {found.st_uid}, not to this node's or root")
        raw = os.read(descriptor, _AUTH_BYTES_MAX + 1)
    except OSError as error:
        raise CannotAsk(f"{key} {path}: {error.strerror}") from error
    finally:
        os.close(descriptor)
    try:
        lines = raw.decode("utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise CannotAsk(f"{key} {path} is not UTF-8 text") from error
    if len(raw) > _AUTH_BYTES_MAX:
        raise CannotAsk(f"{key} {path} is longer than {sized(_AUTH_BYTES_MAX)}")
    return lines


def _parsed(line: str, path: Path) -> Credentials:
    if ":" in line:
        coded = base64.b64encode(line.encode()).decode("ascii")
        password = line.partition(":")[2]
        return Credentials(
            {"Authorization": f"Basic {coded}"}, tuple(one for one in (coded, line, password) if one)
        )
    if not line.isascii() or not line.isprintable() or " " in line:
        raise CannotAsk(f"auth_file {path} holds neither user:password nor a bearer token")
    return Credentials({"Authorization": f"Bearer {line}"}, (line,))
