"""The keys of golden answers in ``instep.toml``: how each is read, its default and what it does."""

from __future__ import annotations

import re
import urllib.parse

from instep.node import values
from instep.node.config_keys import NO_DEFAULT, Key, http_status, one_of
from instep.node.values import BadValue

__all__ = ["GOLDEN", "REQUEST", "REQUESTS_MAX"]

REQUESTS_MAX = 32
"""Requests of one fileset."""
PATTERNS_MAX = 16
PATTERN_CHARS_MAX = 1_000


def _base(raw: object) -> str:
    text = values.string(raw)
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


def _request(raw: object) -> tuple[str, str]:
    method, _, path = values.string(raw).partition(" ")
    if method not in ("GET", "HEAD", "POST") or not re.fullmatch(r"/[^\s#]*", path):
        raise BadValue('is not GET, HEAD or POST and a path, such as "GET /wms?request=GetCapabilities"')
    return method, path


def _ignore(raw: object) -> tuple[str, ...]:
    found = values.strings(raw)
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


def _tolerance(raw: object) -> int:
    if isinstance(raw, bool) or not isinstance(raw, int) or not 0 <= raw <= 255:
        raise BadValue("is not a number from 0 to 255")
    return raw


GOLDEN: tuple[Key, ...] = (
    Key("url", _base, None, "This node's own application, such as `http://localhost:8080`."),
    Key(
        "balancer",
        _base,
        None,
        "What users call; asked where the fileset is written, before and after a change.",
    ),
    Key("timeout", values.duration_ms, "10s", "Deadline of one answer, whole."),
    Key("retries", values.count, 0, "Further attempts while an answer is missing or not the same."),
    Key(
        "auth_file", values.absolute_path, None, "A file (mode 0600) with `user:password` or a bearer token."
    ),
    Key("headers_file", values.absolute_path, None, "A file (mode 0600) with lines such as `X-Key: secret`."),
    Key(
        "tls",
        one_of("strict", "noverify", "none"),
        "strict",
        "`strict`: only certificates of a known authority; `noverify`: any certificate; `none`: plain HTTP to other "
        "machines. Status warns of the last two.",
    ),
)

REQUEST: tuple[Key, ...] = (
    Key("request", _request, NO_DEFAULT, "A method and a path, such as `GET /wms?request=GetCapabilities`."),
    Key(
        "expect_status", http_status, 200, "The status that the answer must have. Redirects are not followed."
    ),
    Key(
        "compare",
        one_of("status", "digest", "image"),
        "digest",
        "What must be the same: only the status, every byte, or the picture (PNG or JPEG, needs Pillow).",
    ),
    Key("body", values.string, None, "What the request sends."),
    Key("ignore", _ignore, [], "Regular expressions; what they match does not count. For `digest`."),
    Key("tolerance", _tolerance, 0, "Difference of a channel (0 to 255) that does not count. For `image`."),
    Key("max_share", values.percent, "0%", "Pixels that may differ by more than `tolerance`. For `image`."),
    Key(
        "changes",
        one_of("none", "expected"),
        "none",
        "`expected`: the next changes alter this answer; only the status is judged, and that a picture is one.",
    ),
)
