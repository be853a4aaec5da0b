"""``status`` for people: one block a fileset, the trouble with its reason below it, and what to type next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from instep.cli.held_text import held_lines, reported_lines
from instep.cli.output import coloured, moment, printable

__all__ = ["EXIT_CODES", "exit_code", "status_lines"]

EXIT_CODES: dict[str, int] = {
    "in_step": 0, "observing": 0, "applying": 11, "behind": 11, "paused": 11, "held": 11,
    "unknown": 7, "unreachable": 7, "drifted": 12, "blocked": 4, "failing": 8, "damaged": 10,
}  # fmt: skip
"""In rising order of how much a standing needs a person; the last one found is the worst."""

DAEMON_DOWN = 7
BAD_CONFIGURATION = 3


def _standings(document: Mapping[str, Any]) -> Iterator[tuple[str, bool]]:
    """Every standing, and whether that node serves the head all the same."""
    for fileset in document.get("filesets") or ():
        for line in fileset.get("lines") or ():
            head = (line.get("head") or {}).get("id")
            for row in (line, *(line.get("partners") or ())):
                yield (
                    str(row.get("standing", "unknown")),
                    bool(head) and (row.get("live") or {}).get("id") == head,
                )


def exit_code(document: Mapping[str, Any]) -> int:
    """The worst of the fleet as ``status --exit-code`` returns it."""
    order = list(EXIT_CODES)
    worst = 0
    found = 0
    for standing, serves_head in _standings(document):
        rank = order.index(standing) if standing in EXIT_CODES else order.index("unknown")
        code = EXIT_CODES.get(standing, EXIT_CODES["unknown"])
        if standing == "paused" and serves_head:
            code = 0
        if code and rank >= worst:
            worst, found = rank, code
    if document.get("daemon") != "running":
        return found or DAEMON_DOWN
    if (document.get("config") or {}).get("state") != "current":
        return found or BAD_CONFIGURATION
    return found


def status_lines(document: Mapping[str, Any]) -> Iterator[str]:
    """The text of ``instep status``, line by line."""
    if document.get("daemon") != "running":
        as_of = document.get("as_of")
        yield f"{document.get('node')}: the daemon is stopped; this is its last state" + (
            f" of {moment(as_of)}" if as_of else ""
        )
        if not document.get("next"):
            yield "  next: instep start"
    yield from _config_lines(document.get("config") or {})
    filesets = document.get("filesets") or []
    width = max((len(fileset["name"]) for fileset in filesets), default=0)
    for fileset in filesets:
        yield from _fileset_lines(fileset, str(document.get("node")), width)
    for link in document.get("links") or ():
        if not link.get("up"):
            yield f"the link to {printable(link['name'])} is down: {printable(link.get('reason'))}"
            yield from (f"  next: {printable(step)}" for step in link.get("next") or ())
    for offer in document.get("offers") or ():
        yield f"{offer.get('name')}   offered by {offer.get('writer')}, not accepted here"
        yield f"  next: instep fileset accept {offer.get('name')} PATH"
    if not filesets and not document.get("offers"):
        yield f"{document.get('node')}: no filesets yet"
        yield "  next: instep fileset add NAME PATH; or, on a follower: instep fileset accept NAME PATH"
    for warning in document.get("warnings") or ():
        yield f"warning: {printable(warning)}"
    for step in document.get("next") or ():
        yield f"next: {printable(step)}"


def _config_lines(config: Mapping[str, Any]) -> Iterator[str]:
    if config.get("state", "current") == "current":
        return
    since = f"the one of {moment(config['loaded_at'])}" if config.get("loaded_at") else "an earlier one"
    yield f"instep.toml is not in use ({config.get('state')}): {since} runs"
    if config.get("reason"):
        yield f"  {printable(config['reason'])}"
    for problem in config.get("problems") or ():
        yield f"  line {problem.get('line')}: {problem.get('key')} {printable(problem.get('why'))}"
    yield "  next: instep config check"


def _fileset_lines(fileset: Mapping[str, Any], node: str, width: int) -> Iterator[str]:
    name = printable(fileset["name"]).ljust(width)
    for line in fileset.get("lines") or ():
        rows: list[Mapping[str, Any]] = [{**line, "name": node}, *(line.get("partners") or ())]
        head = line.get("head")
        if not head:
            yield f"{name}   {_word(line)}   no generation yet"
        else:
            serving = sum((row.get("live") or {}).get("id") == head.get("id") for row in rows)
            counted = f"{serving} of {len(rows)} serve generation {head['number']}"
            yield f"{name}   {_word_of_all(rows)}   {counted} {_about(head)}"
        if line.get("rollout"):
            yield from _rollout_lines(line["rollout"])
        troubled = [row for row in rows if row.get("standing") != "in_step" or row.get("code")]
        names = max((len(printable(row["name"])) for row in troubled), default=0)
        for row in troubled:
            yield from _row_lines(row, names)
        yield from held_lines(line)
        yield from reported_lines(line)
        if fileset.get("without"):
            yield f"  without {', '.join(fileset['without'])}: this file system cannot keep it"
        for note in fileset.get("notes") or ():
            yield f"  {printable(note)}"


def _rollout_lines(rollout: Mapping[str, Any]) -> Iterator[str]:
    state = str(rollout.get("state")).replace("_", " ") + (", paused" if rollout.get("paused") else "")
    done = f"{rollout.get('switched')} of {rollout.get('total')} switched"
    yield f"  rollout {state}: {done}; {printable(rollout.get('reason'))}"
    if rollout.get("next"):
        yield f"  next: {'; or: '.join(printable(step) for step in rollout['next'])}"


def _word_of_all(rows: list[Mapping[str, Any]]) -> str:
    if all(row.get("standing") == "in_step" for row in rows):
        return coloured("IN STEP", "green")
    return coloured("NOT IN STEP", "red")


def _word(line: Mapping[str, Any]) -> str:
    return str(line.get("standing", "unknown")).replace("_", " ").upper()


def _about(head: Mapping[str, Any]) -> str:
    message = f', "{printable(head["message"])}"' if head.get("message") else ""
    author = f"{printable(head['author'])}, " if head.get("author") else ""
    return f"({author}{moment(head.get('published_at'))}{message})"


def _row_lines(row: Mapping[str, Any], width: int) -> Iterator[str]:
    standing = str(row.get("standing", "unknown")).replace("_", " ")
    begin = str(row.get("since") or "1970")
    since = "" if begin.startswith("1970") else f" since {moment(begin)}"
    reason = f"   {printable(row['reason'])}" if row.get("reason") else ""
    yield f"  {printable(row['name']).ljust(width)}  {standing}{since}{reason}"
    below = {step for each in row.get("held") or () for step in each.get("next") or ()}
    steps = [step for step in row.get("next") or () if step not in below]
    if steps:
        yield f"  {' ' * width}  next: {'; or: '.join(printable(step) for step in steps)}"
