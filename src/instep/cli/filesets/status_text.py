"""``status`` for people: one block a fileset, the trouble with its reason below it, and what to type next."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence, Set
from pathlib import Path
from typing import Any

from msgspec import UnsetType

from instep.api import looking as api
from instep.api.parts import CopiesDocument, FullGenerationDocument
from instep.api.shared_parts.leases import DatabaseDocument
from instep.cli.filesets.held_text import held_lines, reported_lines
from instep.cli.output import coloured, first_line, moment, printable
from instep.model.counts import counted

EXIT_CODES: dict[str, int] = {
    "in_step": 0, "observing": 0, "applying": 11, "behind": 11, "paused": 11, "held": 11,
    "unknown": 7, "unreachable": 7, "drifted": 12, "blocked": 4, "failing": 8, "damaged": 10,
}  # fmt: skip
"""In rising order of how much a standing needs a person; the last one found is the worst."""

Row = tuple[str, api.LineDocument | api.PartnerDocument]
DAEMON_DOWN = 7
MANY_HOMES = "replicate"
WARNED_STEP = "; next: "
"""Parts the trouble of a warning from its step."""
BAD_CONFIGURATION = 3
DATABASE_AWAY = 7


def taking_part(name: str, mode: str, node: Path | None = None) -> str:
    """The command by which a partner takes part in a fileset; with the directory of its node where one is named."""
    begin = "instep" if node is None else f"instep --dir {node}"
    if mode == MANY_HOMES:
        return f"{begin} fileset add {name} PATH --mode replicate"
    return f"{begin} fileset accept {name} PATH"


def not_dialled(settings: Any, mode: str, partners: Iterable[str]) -> list[str]:
    """In mode replicate lines come from partners, too, and over links that this node dials."""
    if mode != MANY_HOMES:
        return []
    return [
        f"{name} is not dialled from here, so its files cannot come; next: "
        f"instep partner set {name} --address HOST:PORT"
        for name in partners
        if settings.partners[name].address is None
    ]


def _standings(document: api.StatusDocument) -> Iterator[tuple[str, bool]]:
    """Every standing, and whether that node serves the head all the same."""
    for line in (line for fileset in document.filesets for line in fileset.lines):
        yield line.standing, _serves_head(line, line)
        yield from ((row.standing, _serves_head(row, line)) for row in line.partners)


def _serves_head(row: api.LineDocument | api.PartnerDocument, line: api.LineDocument) -> bool:
    return line.head is not None and row.live is not None and row.live.id == line.head.id


def exit_code(document: api.StatusDocument) -> int:
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
    if document.daemon != "running":
        return found or DAEMON_DOWN
    rows = (row for fileset in document.filesets for line in fileset.lines for row in line.partners)
    if document.config.state != "current" or any(row.code == "config_refused" for row in rows):
        return found or BAD_CONFIGURATION
    if document.database and not document.database.reached:
        return found or DATABASE_AWAY
    return found


def status_lines(document: api.StatusDocument) -> Iterator[str]:
    """The text of ``instep status``, line by line."""
    if document.daemon != "running":
        state = "is stopped" if document.daemon == "stopped" else "does not answer"
        yield f"{document.node}: the daemon {state}; this is its last state"
    if document.ended:
        when = f"it ended at {moment(document.ended.at)}: " if document.ended.at else ""
        yield f"  {when}{printable(document.ended.reason)}"
        yield from (f"  next: {printable(step)}" for step in document.ended.next)
    yield from _config_lines(document.config)
    if document.database:
        yield from _database_lines(document.database)
    down = [link for link in document.links or () if not link.up]
    for link in down:
        yield f"the link to {printable(link.name)} is down: {printable(link.reason)}"
        yield from (f"  next: {printable(step)}" for step in link.next)
    said = {step for link in down for step in link.next}
    width = max((len(fileset.name) for fileset in document.filesets), default=0)
    for fileset in document.filesets:
        yield from _fileset_lines(fileset, str(document.node), width, said)
    for offer in document.offers or ():
        yield f"{offer.name}   offered by {offer.writer}, not accepted here"
        yield f"  next: {taking_part(offer.name, offer.mode)}"
    if not document.filesets and not document.offers:
        yield f"{document.node}: no filesets yet"
        yield "  next: instep fileset add NAME PATH; or, on a follower: instep fileset accept NAME PATH"
    for warning in document.warnings or ():
        trouble, _, step = warning.partition(WARNED_STEP)
        yield f"warning: {printable(trouble)}"
        if step:
            yield f"  next: {printable(step)}"
    for step in document.next:
        yield f"next: {printable(step)}"


def _database_lines(database: DatabaseDocument) -> Iterator[str]:
    """The cluster's database where it needs a look."""
    if not database.reached:
        yield f"the cluster database is AWAY since {moment(database.since)}: {printable(database.reason)}"
        yield "  nothing new is led, held or started under it from here; filesets are served and followed as before"
        yield from (f"  next: {printable(step)}" for step in database.next)
    elif database.quiet_until:
        yield (
            f"the cluster database has another server, era {database.era}: nothing changes hands until "
            + moment(database.quiet_until)
        )


def _config_lines(config: api.ConfigDocument) -> Iterator[str]:
    if config.state == "current":
        return
    yield f"instep.toml is not in use ({config.state}): an earlier one runs"
    if config.reason:
        yield f"  {printable(config.reason)}"
    for problem in config.problems or ():
        yield f"  line {problem.get('line')}: {problem.get('key')} {printable(problem.get('why'))}"
    yield "  next: instep config check"


def _fileset_lines(
    fileset: api.FilesetStatusDocument, node: str, width: int, said: Set[str]
) -> Iterator[str]:
    """One fileset; the steps that were ``said`` above stand there once."""
    several = len(fileset.lines) > 1
    for line in fileset.lines:
        of = f" of {printable(line.origin)}" if several else ""
        name = f"{printable(fileset.name)}{of}".ljust(width)
        rows: list[Row] = [(node, line), *((partner.name, partner) for partner in line.partners)]
        if line.head is None:
            yield f"{name}   {line.standing.replace('_', ' ').upper()}   no generation yet"
        else:
            serving = sum(_serves_head(row, line) for _, row in rows)
            how_many = f"{serving} of {len(rows)} serve generation {line.head.number}"
            is_in_step = all(row.standing == "in_step" for _, row in rows)
            word = coloured("IN STEP", "green") if is_in_step else coloured("NOT IN STEP", "red")
            yield f"{name}   {word}   {how_many} {_about(line.head)}"
        if line.rollout:
            yield from _rollout_lines(line.rollout)
        troubled = [(who, row) for who, row in rows if row.standing != "in_step" or row.code]
        names = max((len(printable(who)) for who, _ in troubled), default=0)
        elsewhere = {*said, *(step for each in line.held or () for step in each.next)}
        for who, row in troubled:
            shown = [step for step in row.next if row is not line or step not in elsewhere]
            yield from _row_lines(printable(who).ljust(names), row, shown)
        for who in line.not_accepted or ():
            step = taking_part(printable(fileset.name), fileset.mode)
            yield f"  {printable(who)} has not accepted it   next: on {printable(who)}: {step}"
        yield from held_lines(line.held, line.held_total)
        yield from reported_lines(line.reported, line.reported_total)
        if fileset.without:
            yield f"  without {', '.join(fileset.without)}: this file system cannot keep it"
    yield from _copies_lines(fileset.copies)
    if fileset.collisions:
        what = counted(fileset.collisions, "path")
        yield f"  {what} made on two homes; next: instep collisions list {fileset.name}"


def _copies_lines(found: Iterable[CopiesDocument] | UnsetType) -> Iterator[str]:
    """The rules that are not kept, or not known to be, in ``status``."""
    for each in found or ():
        if not each.kept:
            yield from (f"  copies: {printable(text)}" for text in each.trouble)
            yield f"  next: {'; or: '.join(printable(step) for step in each.next)}"


def _rollout_lines(rollout: api.RunningRolloutDocument) -> Iterator[str]:
    state = rollout.state.replace("_", " ") + (", paused" if rollout.paused else "")
    done = f"{rollout.switched} of {rollout.total} switched"
    yield f"  rollout {state}: {done}; {printable(rollout.reason)}"
    if rollout.next:
        yield f"  next: {'; or: '.join(printable(step) for step in rollout.next)}"


def _about(head: FullGenerationDocument) -> str:
    message = f', "{printable(first_line(head.message))}"' if head.message else ""
    author = f"{printable(head.author)}, " if head.author else ""
    return f"({author}{moment(head.published_at)}{message})"


def _row_lines(name: str, row: api.LineDocument | api.PartnerDocument, steps: Sequence[str]) -> Iterator[str]:
    begin = row.since or "1970"
    since = "" if begin.startswith("1970") else f" since {moment(begin)}"
    reason = f"   {printable(row.reason)}" if row.reason else ""
    yield f"  {name}  {row.standing.replace('_', ' ')}{since}{reason}"
    if steps:
        yield f"  {' ' * len(name)}  next: {'; or: '.join(printable(step) for step in steps)}"
