"""A partner asks this node to be drained: done only where ``allow_drain`` names it, and its own drain only."""

from __future__ import annotations

from instep.errors import NotAllowedError
from instep.model.ids import NodeName
from instep.net.messages import messages as m
from instep.net.messages.faults import reply_of_error
from instep.node.runtime.draining import partner_key
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime


def drain_for_partner(runtime: Runtime, who: NodeName, request: m.DrainRequest) -> m.DrainReply:
    """The answer to ``who``, whose identity the connection has verified."""
    if who not in runtime.settings.allow_drain:
        error = NotAllowedError(
            f"{runtime.name} does not let {who} drain it",
            hint=f'on {runtime.name}: allow_drain = ["{who}"] in instep.toml; or there: instep node drain',
            code="drain_not_allowed",
            node=runtime.name,
        )
        runtime.note_of_peer(
            who, "drain_refused", f"{who} asked to drain {runtime.name} and may not", node=who
        )
        return m.DrainReply(request.number, error=reply_of_error(error))
    key = partner_key(who)
    if request.is_drained:
        until = wall_ms() + request.for_ms if request.for_ms else None
        changed = runtime.draining.begin(key, request.reason, until)
    else:
        changed = runtime.draining.end(key)
    if changed:
        word = "drained" if request.is_drained else "undrained"
        runtime.note(word, f"{runtime.name} was {word} by {who}", reason=request.reason or None, node=who)
    return m.DrainReply(request.number, changed, runtime.draining.is_drained)
