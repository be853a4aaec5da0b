"""Golden answers in ``instep.toml``: the requests of ``[filesets.NAME.golden]``, and the server to ask."""

from __future__ import annotations

import importlib.util
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from instep.fleet.hooks.spec import TlsMode
from instep.node.config.hooks import NO_TIME, check_apart, check_tls, http_status
from instep.node.config.keys import NO_DEFAULT, key, section
from instep.node.config.kinds import (
    BadValue,
    ValueKind,
    choice,
    enum_of,
    flag,
    kind,
    string,
    strings,
    whole_number,
)
from instep.node.config.table_reader import Table
from instep.node.config.values import absolute_path, count, duration_ms, percent

REQUESTS_MAX = 32
"""Requests of one fileset."""
PATTERNS_MAX = 16
PATTERN_CHARS_MAX = 1_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_GO_WITH = {"ignore": "digest", "tolerance": "image", "max_share": "image"}


def _base(raw: object) -> str:
    text = string(raw)
    try:
        parts = urllib.parse.urlsplit(text)
        port_is_right = parts.port is None or parts.port > 0
    except ValueError:
        raise BadValue("is not a URL such as http://localhost:8080") from None
    if parts.username or parts.password:
        raise BadValue("has a user or password in the URL; put them into a file and name it with auth_file")
    is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and port_is_right
    if not is_whole or parts.query or parts.fragment or re.search(r"\s", text):
        raise BadValue("is not a URL such as http://localhost:8080, without query")
    return text.rstrip("/")


def _target(raw: object) -> tuple[str, str]:
    method, _, path = string(raw).partition(" ")
    if method not in ("GET", "HEAD", "POST") or not re.fullmatch(r"/[^\s#]*", path):
        raise BadValue('is not GET, HEAD or POST and a path, such as "GET /wms?request=GetCapabilities"')
    return method, path


@kind(is_list=True)
def _expressions(raw: object) -> tuple[str, ...]:
    found = strings(raw)
    if len(found) > PATTERNS_MAX:
        raise BadValue(f"has {len(found)} patterns, the limit is {PATTERNS_MAX}")
    for text in found:
        if len(text) > PATTERN_CHARS_MAX:
            raise BadValue(f"has a pattern of {len(text)} characters, the limit is {PATTERN_CHARS_MAX}")
        try:
            re.compile(text.encode())
        except re.error as error:
            raise BadValue(f"holds {text!r}, which is not a regular expression: {error}") from None
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenRequest:
    """One request whose answer must stay the same; the path begins with a slash and may have a query."""

    name: str
    request: tuple[str, str] = key(NO_DEFAULT, ValueKind(_target, " ".join))
    """A method and a path, such as `GET /wms?request=GetCapabilities`."""
    expect_status: int = key(200, http_status)
    """The status that the answer must have. Redirects are not followed."""
    compare: str = key("digest", choice("status", "digest", "image"))
    """The part that must be the same: only the status, every byte, or the picture (PNG or JPEG, needs Pillow)."""
    body: str | None = key(None, string)
    """The body that the request sends."""
    ignore: tuple[str, ...] = key([], _expressions)
    """Regular expressions; text that they match does not count. For `digest`."""
    tolerance: int = key(0, whole_number(0, 255, "is not a number from 0 to 255"))
    """Difference of a channel (0 to 255) that does not count. For `image`."""
    max_share_percent: float = key("0%", percent)
    """Pixels that may differ by more than `tolerance`. For `image`."""
    is_change_expected: bool = key("none", flag("none", "expected", true="expected"), name="changes")
    """`expected`: the next changes alter this answer; only the status is judged, and that a picture is one."""

    @property
    def method(self) -> str:
        return self.request[0]

    @property
    def path(self) -> str:
        return self.request[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class GoldenSettings:
    """The requests, and the servers to ask: ``url`` is this node's own application, ``balancer`` what users call."""

    url: str | None = key(None, _base)
    """This node's own application, such as `http://localhost:8080`."""
    balancer: str | None = key(None, _base)
    """The address that users call; asked where the fileset is written, before and after a change."""
    timeout_ms: int = key("10s", duration_ms)
    """Deadline of one answer, whole."""
    retries: int = key(0, count)
    """Further attempts while an answer is missing or not the same."""
    auth_file: Path | None = key(None, absolute_path)
    """A file (mode 0600) with `user:password` or a bearer token."""
    headers_file: Path | None = key(None, absolute_path)
    """A file (mode 0600) with lines such as `X-Key: secret`."""
    tls: TlsMode = key("strict", enum_of(TlsMode))
    """`strict`: only certificates of a known authority; `noverify`: any certificate; `none`: plain HTTP to other
    machines. Status warns of the last two."""
    requests: tuple[GoldenRequest, ...] = section(GoldenRequest, (), is_named=True)


def read_golden(table: Table, root: Path | None) -> GoldenSettings:
    """The settings of the fileset at ``root``."""
    row = table.read(GoldenSettings)
    asked = table.below("requests")
    if len(asked.raw) > REQUESTS_MAX:
        why = f"holds {len(asked.raw)} requests, the limit is {REQUESTS_MAX}"
        asked.wrong("", why, len(asked.raw))
    settings = GoldenSettings(**row, requests=tuple(_request(asked, name) for name in asked.raw))
    if settings.timeout_ms < 1:
        table.wrong("timeout", NO_TIME, 0)
    if asked.raw and settings.url is None and settings.balancer is None:
        table.wrong("url", "is missing: the address that the requests go to", None)
    if table.raw and not asked.raw:
        asked.wrong("", "is missing: there is nothing to ask", None)
    bases = {"url": settings.url, "balancer": settings.balancer}
    check_tls(table, settings.tls, {name: base for name, base in bases.items() if base is not None})
    if root is not None:
        check_apart(table, settings, root)
    return settings


def _request(asked: Table, name: str) -> GoldenRequest:
    if not _NAME.fullmatch(name):
        asked.wrong(name, "is not a name of letters, digits, '.', '_' and '-'", name)
    table = asked.below(name)
    row = table.read(GoldenRequest)
    found = GoldenRequest(name=name, **{**row, "request": row["request"] or ("GET", "/")})
    for key_name, compared in _GO_WITH.items():
        if key_name in table.raw and found.compare != compared:
            table.wrong(key_name, f"goes with compare = {compared}, not with {found.compare}")
    if found.compare == "image" and importlib.util.find_spec("PIL") is None:
        why = (
            "needs Pillow, which is not installed: pip install 'instep[images]', or compare digest or status"
        )
        table.wrong("compare", why)
    if found.method == "HEAD" and found.compare != "status":
        why = "cannot be had from HEAD, which has no body; use status"
        table.wrong("compare", why, found.compare)
    if found.body is not None and found.method != "POST":
        table.wrong("body", f"goes with POST, not with {found.method}")
    return found
