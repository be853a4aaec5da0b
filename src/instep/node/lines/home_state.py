"""What the home of a side says of its line: its head, and whether the tree may have other contents."""

from __future__ import annotations

from instep.model.standing import Standing
from instep.net.messages.syncing import HomeState
from instep.node.lines.line_service import LineService

UNPUBLISHED = "unpublished"
"""The code of a writer in step whose tree has edits that wait for ``instep publish``."""
_REASON_MAX = 1_000


def state_of(service: LineService) -> HomeState:
    """The state of a line that is written here."""
    standing, reason = service.standing, ""
    if standing.standing is not Standing.IN_STEP or standing.code == UNPUBLISHED:
        reason = (standing.reason or standing.standing.value)[:_REASON_MAX]
    return HomeState(service.head, reason, service.fileset.external)
