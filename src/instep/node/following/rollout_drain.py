"""A partner's side of a rollout at the node: out of the balancers before a switch, in again after the probe."""

from __future__ import annotations

from instep.core.follow import vocabulary as f
from instep.model.ids import LineId
from instep.node.runtime.draining import rollout_key
from instep.node.runtime.runtime import Runtime

TOLD_WITHIN_S = 30.0
"""How long a switch waits for a balancer that asks to hear that this node is drained, and again that it is back."""


async def drain(runtime: Runtime, line: LineId, effect: f.DrainNode) -> f.NodeDrained:
    """Drain this node; the drain is on disk before any balancer learns of it, so that a crash does not lose it."""
    reason = f"generation {effect.head.number} of {line.fileset} is going live"
    runtime.draining.begin(rollout_key(line.fileset), reason)
    runtime.draining.linger_ms = runtime.settings.drain_linger_ms
    return f.NodeDrained(effect.req, await runtime.draining.told_out(TOLD_WITHIN_S))


async def offer_again(runtime: Runtime, line: LineId, effect: f.Return) -> f.Returned:
    """Offer this node again; it stays out when another cause drains it."""
    runtime.draining.end(rollout_key(line.fileset))
    return f.Returned(effect.req, await runtime.draining.told_in(TOLD_WITHIN_S))
