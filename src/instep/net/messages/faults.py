"""Errors of the tree as they travel. Implements the section "Errors" of ``docs/spec/wire.md``."""

from __future__ import annotations

import json
from typing import Any

import msgspec

from instep.errors import InstepError, UnavailableError, family_of
from instep.model.standing import typed_at
from instep.net.messages.messages import FACTS_BYTES_MAX, ErrorReply

_TEXT_MAX = 2_000


def reply_of_error(error: BaseException) -> ErrorReply:
    """The error reply that a peer gets. An error that is not one of ours is only called unexpected: its
    text may hold private facts."""
    if not isinstance(error, InstepError):
        return ErrorReply("unexpected", "the other node failed; its log says how")
    facts: dict[str, Any] = json.loads(json.dumps(error.facts, default=str))
    encoded = msgspec.msgpack.encode(facts)
    if len(encoded) > FACTS_BYTES_MAX:
        encoded = b"\x80"
    return ErrorReply(
        code=error.error_code[:64],
        reason=error.reason[:_TEXT_MAX],
        facts=msgspec.Raw(encoded),
        hint=None if error.hint is None else error.hint[:_TEXT_MAX],
        exit_code=error.exit_code,
        retry=error.retry.value,
    )


def error_of_reply(reply: ErrorReply, node: str) -> InstepError:
    """A peer's error as one of ours. Its words are shown with control characters escaped."""
    kind = family_of(reply.exit_code, UnavailableError)
    facts = {
        key: value for key, value in reply.known_facts().items() if key.isidentifier() and key not in _TAKEN
    }
    hint = None if reply.hint is None else typed_at(_printable(reply.hint), node, is_writer=False)
    code = reply.code if reply.code.replace("_", "").isalnum() else kind.code
    return kind(_printable(reply.reason), hint=hint, code=code, **{**facts, "told_by": node})


_TAKEN = frozenset({"reason", "hint", "code", "self"})


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)
