"""Errors over HTTP: RFC 9457 documents with the fields of ``errors.py``, and the status of each family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instep.api.command import Document
from instep.errors import (
    ConfigError,
    ContentionError,
    DamagedError,
    InstepError,
    NotAllowedError,
    PeerError,
    RefusedError,
    ResourceError,
    UnavailableError,
    UsageError,
)

CONTENT_TYPE = "application/problem+json"
FAMILIES: Mapping[type[InstepError], tuple[int, str]] = {
    UsageError: (400, "The request cannot be understood"),
    ConfigError: (422, "The configuration is wrong"),
    RefusedError: (409, "Refused by a guard, a gate or a check"),
    NotAllowedError: (403, "Not allowed"),
    ContentionError: (409, "Another caller or node was first"),
    UnavailableError: (503, "A node, a daemon or a service did not answer"),
    ResourceError: (507, "This machine lacks something"),
    PeerError: (502, "A peer broke the protocol"),
    DamagedError: (500, "Bytes are damaged"),
    InstepError: (500, "An unexpected error"),
}
"""The status and the title of each family."""
CODES: Mapping[str, int] = {
    "bad_path": 400,
    "no_fileset": 404,
    "no_generation": 404,
    "no_user": 404,
    "no_route": 404,
    "wrong_method": 405,
    "not_connected": 409,
    "body_too_large": 413,
    "wrong_content_type": 415,
    "wrong_host": 421,
    "key_reused": 422,
    "outdated_answer": 412,
    "not_signed_in": 401,
    "wrong_sign_in": 401,
    "wrong_link": 401,
    "too_many_attempts": 429,
    "too_many_streams": 429,
}
"""Errors whose status says more than the one of their family."""


class ProblemDocument(Document, frozen=True):
    """An error: ``detail`` is the reason, ``hint`` the next step. ``request_id`` stands in the daemon's log too."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    exit_code: int
    facts: Mapping[str, Any]
    hint: str | None
    request_id: str


def status_of(error: InstepError) -> int:
    if error.error_code in CODES:
        return CODES[error.error_code]
    return _family(error)[0]


def problem_of(error: InstepError, request_id: str) -> ProblemDocument:
    code = error.error_code
    return ProblemDocument(
        f"urn:instep:error:{code}", _family(error)[1], status_of(error), error.reason, code, error.exit_code,
        error.facts, error.hint, request_id,
    )  # fmt: skip


def _family(error: InstepError) -> tuple[int, str]:
    return next(FAMILIES[kind] for kind in type(error).__mro__ if kind in FAMILIES)
