"""Gates between a line's writer and this node: asks for the writer's facts, gathers ours, compares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from instep.core.follow.gates import CLOCK, Gate, parse_gate, refusal_of
from instep.errors import RefusedError
from instep.model.definition import Definition
from instep.model.ids import LineId
from instep.net.messages import messages as m
from instep.net.service import FACTS, PeerCalls
from instep.node.config.filesets import FilesetSettings
from instep.node.facts.facts import told
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime

CALL_S = 20.0


@dataclass(frozen=True, slots=True)
class GateLook:
    """One gate, both values, and why it does not hold."""

    gate: Gate
    ours: str | None
    theirs: str | None
    code: str | None = None
    reason: str | None = None


def known_gates(definition: Definition | None) -> tuple[tuple[Gate, ...], tuple[str, ...]]:
    """The gates that travelled, and the texts that this version does not know, each with why."""
    found: list[Gate] = []
    unknown: list[str] = []
    for text in definition.gates if definition is not None else ():
        try:
            found.append(parse_gate(text))
        except ValueError as error:
            unknown.append(f"gate {text[:200]!r} {error}")
    return tuple(found), tuple(unknown)


def gates_of(definition: Definition | None) -> tuple[Gate, ...]:
    """The gates that travelled; ``RefusedError`` for one that this version does not know."""
    found, unknown = known_gates(definition)
    if unknown:
        raise RefusedError(
            unknown[0],
            hint="upgrade instep here, or change the gate at the writer",
            code="gates_unknown",
        )
    return found


async def look_at_gates(
    runtime: Runtime, fileset: FilesetSettings, line: LineId, gates: tuple[Gate, ...], client: PeerCalls
) -> list[GateLook]:
    """Every gate of the line, compared with its writer's present facts."""
    key = runtime.facts.key
    reply = await client.call(FACTS, m.FactsRequest(line, key=key), total_s=CALL_S)
    now = wall_ms()  # the writer stamps its answer when it leaves, however long it gathered
    theirs = dict(reply.facts) | {CLOCK: str(reply.time_ms)}
    found = await runtime.facts.facts(runtime.settings, fileset, [gate.name for gate in gates])
    ours = told(found, key) | {CLOCK: str(now)}
    return compare_facts(gates, ours, theirs, runtime.name, fileset.writer)


def compare_facts(
    gates: tuple[Gate, ...], ours: Mapping[str, str], theirs: Mapping[str, str], me: str, writer: str
) -> list[GateLook]:
    """Each gate between the facts of ``me``, which follows, and of ``writer``."""
    looks = []
    for gate in gates:
        refused = refusal_of(gate, ours, theirs, me, writer)
        if refused is None:
            wanted = gate.literal if gate.literal is not None else theirs.get(gate.name)
            looks.append(GateLook(gate, ours.get(gate.name), wanted))
        else:
            code, reason, mine, wanted = refused
            looks.append(GateLook(gate, mine, wanted, code, reason))
    return looks


async def require_gates(
    runtime: Runtime, fileset: FilesetSettings, line: LineId, gates: tuple[Gate, ...], client: PeerCalls
) -> None:
    """``RefusedError`` with both values for the first gate that does not hold. ``client`` is the writer's: a hub's
    facts are not the writer's."""
    for look in await look_at_gates(runtime, fileset, line, gates, client):
        if look.code is not None:
            raise RefusedError(
                look.reason or "",
                hint=f"make the fact agree, it is looked at again by itself; or change the gates of {fileset.name} "
                f"at the writer {fileset.writer}",
                code=look.code,
                gate=str(look.gate),
                ours=look.ours,
                theirs=look.theirs,
            )
