"""Whether this node should get requests: drains and the standings of its lines, as one answer for balancers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from instep.model.counts import lasting
from instep.model.standing import Standing, StandingRecord
from instep.node.runtime.draining import Drain

_NEVER_READY = frozenset({Standing.DAMAGED})


@dataclass(frozen=True, slots=True)
class LineView:
    """The view of one line that counts for balancers. ``is_whole`` says that the tree holds one complete generation;
    ``behind_ms`` is how long the line has not been in step, 0 while it is. ``unseen`` is the code why the
    root cannot be seen now."""

    fileset: str
    standing: StandingRecord
    live: int | None
    is_written_here: bool
    is_whole: bool
    behind_ms: int
    unseen: str | None = None


@dataclass(frozen=True, slots=True)
class Fitness:
    """``drained`` is True when a drain alone already says no; ``reasons`` are sentences, empty when ready."""

    is_ready: bool
    is_drained: bool
    reasons: tuple[str, ...]
    code: str
    """``ready``, ``drained``, or the code of the first line that is not ready."""
    document: dict[str, Any]


def fitness_of(
    node: str, drains: Sequence[Drain], lines: Sequence[LineView], max_behind_ms: int | None
) -> Fitness:
    """The answer of ``node`` for these lines; ``max_behind_ms`` None means that old but whole data will do."""
    reasons = [f"drained by {drain.key}" + (f": {drain.reason}" if drain.reason else "") for drain in drains]
    code = "drained" if drains else "ready"
    rows: list[dict[str, Any]] = []
    for line in lines:
        found = _why_not(line, max_behind_ms)
        if found is not None:
            reasons.append(f"{line.fileset}: {found[1]}")
            code = found[0] if code == "ready" else code
        rows.append(
            {
                "fileset": line.fileset,
                "standing": line.standing.standing.value,
                "code": line.standing.code,
                "live": line.live,
                "ready": found is None,
                "reason": found[1] if found is not None else None,
            }
        )
    is_ready = not reasons
    document = {
        "node": node,
        "ready": is_ready,
        "drained": bool(drains),
        "reasons": reasons,
        "filesets": rows,
    }
    return Fitness(is_ready, bool(drains), tuple(reasons), code, document)


def _why_not(line: LineView, max_behind_ms: int | None) -> tuple[str, str] | None:
    """Code and sentence why this line takes the node out, or None."""
    standing = line.standing.standing
    if line.unseen is not None:
        return line.unseen, f"its root cannot be seen here ({line.unseen})"
    if standing in _NEVER_READY:
        return standing.value, f"is {standing.value} ({line.standing.code})"
    if line.is_written_here:
        return None
    if line.live is None and standing is not Standing.OBSERVING:
        return "first_copy", "the first copy is not done"
    if not line.is_whole and standing is not Standing.APPLYING:
        return "half_state", f"is {standing.value} between two generations"
    if max_behind_ms is not None and line.behind_ms > max_behind_ms:
        return (
            "too_old",
            f"is {standing.value} for {lasting(line.behind_ms)}, more than {lasting(max_behind_ms)}",
        )
    return None
