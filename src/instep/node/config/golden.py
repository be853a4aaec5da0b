"""Golden answers in ``instep.toml``: the requests of ``[filesets.NAME.golden]``, and the server to ask."""

from __future__ import annotations

import importlib.util
import re
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

from instep.fleet.hooks.http import is_unverified
from instep.fleet.hooks.spec import HookSpec, TlsMode
from instep.node.config.hooks import NO_TIME, check_apart, http_status
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
from instep.node.config.table_reader import TableReader
from instep.node.config.toml_lines import KeyPath
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


def read_golden(reader: TableReader, path: KeyPath, raw: object, root: Path | None) -> GoldenSettings:
    """The settings of the fileset at ``root``."""
    table = reader.table(path, raw)
    row = reader.read(path, table, GoldenSettings)
    where, tables = reader.below(path, table, "requests")
    if len(tables) > REQUESTS_MAX:
        reader.wrong(where, len(tables), f"holds {len(tables)} requests, the limit is {REQUESTS_MAX}")
    requests = [_request(reader, (*where, name), name, each) for name, each in tables.items()]
    settings = GoldenSettings(**row, requests=tuple(requests))
    if settings.timeout_ms < 1:
        reader.wrong((*path, "timeout"), 0, NO_TIME)
    if tables and settings.url is None and settings.balancer is None:
        reader.wrong((*path, "url"), None, "is missing: the address that the requests go to")
    if table and not tables:
        reader.wrong(where, None, "is missing: there is nothing to ask")
    _check_tls(reader, path, settings)
    if root is not None:
        check_apart(reader, path, settings, root)
    return settings


def _request(reader: TableReader, path: KeyPath, name: str, raw: object) -> GoldenRequest:
    if not _NAME.fullmatch(name):
        reader.wrong(path, name, "is not a name of letters, digits, '.', '_' and '-'")
    table = reader.table(path, raw)
    row = reader.read(path, table, GoldenRequest)
    found = GoldenRequest(name=name, **{**row, "request": row["request"] or ("GET", "/")})
    for key_name, compared in _GO_WITH.items():
        if key_name in table and found.compare != compared:
            why = f"goes with compare = {compared}, not with {found.compare}"
            reader.wrong((*path, key_name), table[key_name], why)
    if found.compare == "image" and importlib.util.find_spec("PIL") is None:
        why = (
            "needs Pillow, which is not installed: pip install 'instep[images]', or compare digest or status"
        )
        reader.wrong((*path, "compare"), "image", why)
    if found.method == "HEAD" and found.compare != "status":
        why = "cannot be had from HEAD, which has no body; use status"
        reader.wrong((*path, "compare"), found.compare, why)
    if found.body is not None and found.method != "POST":
        reader.wrong((*path, "body"), found.body, f"goes with POST, not with {found.method}")
    return found


def _check_tls(reader: TableReader, path: KeyPath, settings: GoldenSettings) -> None:
    """As with hooks: a request that leaves the machine without a verified certificate must be asked for."""
    bases = {name: base for name in ("url", "balancer") if (base := getattr(settings, name)) is not None}
    if settings.tls is TlsMode.NONE and bases and all(base.startswith("https:") for base in bases.values()):
        reader.wrong((*path, "tls"), "none", "means plain http, but the URL is https; use strict or noverify")
    for name, base in bases.items():
        if not is_unverified(HookSpec(http=("GET", base), tls=settings.tls)):
            continue
        is_plain = base.startswith("http:")
        if is_plain and settings.tls is not TlsMode.NONE:
            why = 'is plain http to another machine; use https, or write tls = "none"'
            reader.wrong((*path, name), base, why)
            continue
        how = "over plain http" if is_plain else "without verifying the certificate"
        reader.warn(
            (*path, name),
            f"{'.'.join((*path, name))} asks another machine {how} (tls = {settings.tls.value})",
        )
