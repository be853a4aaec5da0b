"""The dates of lines that are written elsewhere: when each writer last said that its head is the newest."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from instep.api.looking import LineDocument
from instep.api.parts import WaitingDocument
from instep.core.heads.words import OF_WORDS, STALE
from instep.model.counts import lasting
from instep.model.standing import Standing
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import moment
from instep.node.peers.network.freshness import Freshness
from instep.node.runtime.driver import wall_ms


def lines_from_elsewhere(service: LineService) -> Iterator[LineService]:
    """The lines of the fileset that this node does not write."""
    yield from (each for each in (service, *service.beside) if not each.is_written_here)


def why_too_old(freshness: Freshness, service: LineService, max_behind_ms: int | None) -> str | None:
    """Why the line's date is not within ``max_behind_ms``; None where it is, where nothing is asked, and of a line that
    is written here. A writer that is connected and of a version that says no words counts."""
    if max_behind_ms is None or service.is_written_here:
        return None
    as_of = freshness.as_of_ms(service)
    if as_of is None:
        link = service.sources.get(service.writer)
        if link is not None and "fresh" not in link.takes:
            return None
        return f"{service.writer} never said here which generation is its newest; asked for: {lasting(max_behind_ms)}"
    age_ms = wall_ms() - as_of
    if age_ms <= max_behind_ms:
        return None
    return f"{service.writer} was last heard of {lasting(age_ms)} ago; asked for: {lasting(max_behind_ms)}"


def with_date(
    freshness: Freshness, service: LineService, line: LineDocument, max_behind_ms: int | None
) -> LineDocument:
    """The row of ``status`` with its date; one that is too old is not in step."""
    if service.is_written_here:
        return line
    as_of = moment(freshness.as_of_ms(service))
    line = replace(line, as_of=as_of)
    why = why_too_old(freshness, service, max_behind_ms)
    if why is not None and line.standing == Standing.IN_STEP.value:
        steps = (f"on {service.writer}: instep status {service.fileset.name}", *line.next)
        line = replace(line, standing=Standing.BEHIND.value, code=STALE, reason=why, next=steps)
    return replace(line, since=as_of) if line.code == STALE and as_of is not None else line


def too_old(
    freshness: Freshness, service: LineService, max_behind_ms: int | None
) -> tuple[WaitingDocument, ...]:
    """The lines of the fileset, by their origins, whose date is waited for."""
    return tuple(
        WaitingDocument(each.line.origin, Standing.BEHIND.value)
        for each in lines_from_elsewhere(service)
        if why_too_old(freshness, each, max_behind_ms) is not None
    )


def date_rows(
    freshness: Freshness, service: LineService, max_behind_ms: int | None
) -> Iterator[tuple[str, bool, str, str | None, str]]:
    """Rows of ``check``: when the writers of the lines that are followed here were heard of last."""
    for each in lines_from_elsewhere(service):
        as_of, standing = freshness.as_of_ms(each), each.standing
        why = why_too_old(freshness, each, max_behind_ms)
        if why is None and standing.code in OF_WORDS:
            why = standing.reason
        said, ahead_ms = "never" if as_of is None else f"as of {moment(as_of)}", freshness.ahead_ms(each)
        if why is None and ahead_ms:
            why = (
                f"the clock of {each.writer} is {lasting(ahead_ms)} ahead of this one: its words count from their "
                "arrival, and nothing shows for how long a hub held one back"
            )
        hint = f"on {each.writer}: instep status {each.fileset.name}"
        yield f"date of {each.fileset.name} of {each.line.origin}", why is None, said, why, hint
