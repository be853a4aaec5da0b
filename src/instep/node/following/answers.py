"""A followed line's answers to its machine where the plain answer would mislead."""

from __future__ import annotations

from collections.abc import Callable

from instep.core.follow import vocabulary as f
from instep.core.vocabulary import Trouble
from instep.errors import ConfigError, PeerError, RefusedError
from instep.model.definition import Definition, Mode
from instep.model.rollout import decode_policy
from instep.tree.scan.rules import Rules


def refuse_unusable(definition: Definition) -> None:
    """``PeerError`` for a definition that cannot be used here: found before it is stored, not by the next scan."""
    try:
        Rules(definition)
    except ConfigError as error:
        raise PeerError(f"the definition cannot be used: {error.reason}", code="bad_definition") from error
    decode_policy(definition.rollout)
    if definition.mode is not Mode.MIRROR:
        raise RefusedError(
            f"filesets of mode {definition.mode.value} cannot be followed by this version",
            hint="upgrade this node, or follow a fileset of mode mirror",
            code="unknown_mode",
        )


def plain(facts: dict[str, object]) -> dict[str, object]:
    return {k: v.decode("utf-8", "replace") if isinstance(v, bytes) else v for k, v in facts.items()}


def moved_on(req: int, failed: Callable[[Trouble], f.FollowEvent]) -> Callable[[Trouble], f.FollowEvent]:
    """A source that no longer has a generation did not fail: the machine asks for the newer head."""

    def answer(trouble: Trouble) -> f.FollowEvent:
        return f.HeadSuperseded(req) if trouble.code == "superseded" else failed(trouble)

    return answer
