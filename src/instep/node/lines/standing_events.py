"""Which standings become events: trouble, a pause, and the end of both; the way between two generations is none."""

from __future__ import annotations

import logging

from instep.model.ids import LineId, NodeName
from instep.model.standing import Standing, StandingRecord
from instep.node.runtime.runtime import Runtime

_WELL = frozenset({Standing.IN_STEP, Standing.OBSERVING})
_ON_THE_WAY = frozenset({Standing.APPLYING, Standing.BEHIND, Standing.UNKNOWN})
_OFFERED = (Standing.DRIFTED, "offered")
"""A save on its way to the home is no trouble; one that the home does not take has another code."""
log = logging.getLogger(__name__)


class StandingEvents:
    """The standing of one node in one line that was noted last; ``node`` is a partner, None stands for this node."""

    def __init__(self, runtime: Runtime, line: LineId, node: NodeName | None = None) -> None:
        self._runtime, self._line, self._node = runtime, line, node
        self._noted: tuple[Standing, str | None] | None = None
        self._is_begun = False
        """Before that no source is reached yet, and the link notes one that cannot be reached."""
        self._was_well = False

    def take(self, record: StandingRecord) -> None:
        """Note a standing that is news, and log any of this node."""
        standing = record.standing
        said = (standing, record.code)
        if standing not in (Standing.UNREACHABLE, Standing.UNKNOWN):
            self._is_begun = True
        kind: str | None = None
        if standing in _WELL:
            kind, said_next = "in_step" if self._noted is not None else None, None
        elif standing in _ON_THE_WAY or said in (_OFFERED, self._noted) or not self._is_begun:
            said_next = self._noted
        else:
            kind, said_next = "paused" if standing is Standing.PAUSED else "trouble", said
        self._noted = said_next
        words = f"stands {standing.value}" + (" again" if kind == "in_step" else "")
        words += f": {record.reason}" if record.reason else ""
        facts = {"standing": standing.value, "code": record.code, "next": list(record.next_steps)}
        node = self._node
        if standing in _WELL and not self._was_well:
            self._was_well = True
            if kind is None:  # no event, but the end of trouble that a notice told of before the restart
                self._runtime.on_note("in_step", words, self._line, facts | {"node": node})
        if kind is not None and node is None:
            self._runtime.note(kind, words, self._line, **facts)
        elif kind is not None and node is not None:
            self._runtime.note_of_peer(node, kind, f"{node} {words}", self._line, node=node, **facts)
        elif node is None:
            log.info("%s %s", self._line, words)
