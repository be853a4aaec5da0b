"""What ``status``, ``log`` and ``events`` say: read from a node's store and settings, with the daemon up or down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from msgspec import UNSET, UnsetType
from msgspec.structs import asdict, replace

from instep.api import looking as api
from instep.api.event_kinds import level_of
from instep.api.parts import ExternalDocument, FullGenerationDocument, generation
from instep.core.follow.vocabulary import FollowFacts
from instep.core.publish.vocabulary import PublishFacts
from instep.errors import ConfigError, UsageError
from instep.model.definition import Definition
from instep.model.external import External, mark_steps, why_unmarked
from instep.model.generation import SignedGeneration
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.standing import Standing, StandingRecord, typed_at
from instep.net.messages import messages as m
from instep.net.trust.pki_problems import PkiProblem
from instep.node.config.filesets import FilesetSettings
from instep.node.config.loading import load
from instep.node.config.settings import Settings
from instep.node.directory import NodeDirectory
from instep.node.last_end import last_end
from instep.node.lines.saved_facts import load_facts
from instep.node.runtime.read_only import read_only_in
from instep.node.trees.fileset_tree import definition_of
from instep.node.trees.scanning.held_view import held_of_line
from instep.store.port import EVENTS_KEPT, NodeStore
from instep.store.sqlite import SqliteStore

CONFIG_REFUSED = "config_refused"
EXTERNAL_UNMARKED = "external_unmarked"


def moment(ms: int | None) -> str | None:
    """Wall clock for people and scripts: UTC, to the millisecond where it has them."""
    if ms is None:
        return None
    at = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    text = at.isoformat(timespec="milliseconds" if ms % 1000 else "seconds")
    return text.replace("+00:00", "Z")


def generation_document(signed: SignedGeneration) -> FullGenerationDocument:
    """A generation as ``head`` and ``log`` show it."""
    body = signed.body()
    return FullGenerationDocument(
        body.epoch, body.number, signed.id.hex(), body.root.hex(), body.author, body.message,
        moment(body.time_ms), body.entries, body.size_bytes,
    )  # fmt: skip


def partner_document(
    store: NodeStore,
    name: NodeName,
    report: m.Report | None,
    head: HeadRef | None,
    *,
    is_connected: bool,
    since_ms: int,
    poll_ms: int,
    now_ms: int,
    heard_ms: int | None = None,
    is_written_here: bool = True,
    is_fresh: bool = True,
    own_trouble: PkiProblem | None = None,
    skew_ms: int = 0,
) -> api.PartnerDocument:
    """One partner's row: its own report, corrected by this node's view of it. ``heard_ms`` is when anything came from
    it last; of a node behind a hub only its report is known. ``is_fresh``: the report came since this node started.
    ``own_trouble`` of this node's certificate is why none is connected. ``skew_ms``: its clock less this node's."""
    if report is None:
        record = StandingRecord(
            Standing.UNKNOWN if is_connected else Standing.UNREACHABLE,
            since_ms,
            "it has not reported yet" if is_connected else f"{name} is not connected",
            "no_report" if is_connected else "not_connected",
            (f"on {name}: instep status",),
        )
        if not is_connected and own_trouble is not None:
            record = _by_own_trouble(record, own_trouble)
        return api.PartnerDocument(name, None, *_standing(record), None, None)
    own_steps = report.standing.next_steps
    steps = tuple(typed_at(step, name, is_writer=is_written_here) for step in own_steps)
    record = replace(report.standing, next_steps=steps)
    if not is_connected and abs(now_ms - report.at_ms) > poll_ms:  # this clock may have been put back
        heard_ms = heard_ms if heard_ms is not None else report.at_ms
        record = StandingRecord(
            Standing.UNREACHABLE,
            heard_ms,
            f"{name} was last heard of at {moment(heard_ms)}, then: {report.standing.standing.value}",
            "not_connected",
            (f"on {name}: instep status; instep check",),
        )
        if own_trouble is not None:
            record = _by_own_trouble(record, own_trouble)
    elif not is_fresh:
        record = _of_before(report, since_ms)
    elif (
        head is not None
        and record.standing is Standing.IN_STEP
        and (report.live is None or report.live.id != head.id)
    ):
        record = StandingRecord(
            Standing.BEHIND,
            report.at_ms,
            f"live {report.live.number if report.live else 'nothing'}, head {head.number}",
            "behind",
        )
    if report.refused_config:
        reason = f"its instep.toml is refused ({report.refused_config}), an earlier one runs"
        reason = f"{record.reason}; also: {reason}" if record.reason else reason
        steps = (*record.next_steps, f"on {name}: instep config check")
        code = record.code or CONFIG_REFUSED
        record = StandingRecord(record.standing, record.since_ms, reason, code, steps)
    is_behind = head is not None and (report.live is None or report.live.id != head.id)
    newest = store.generation(head.id) if head is not None and is_behind else None
    behind_ms = max(0, now_ms - newest.body().time_ms) if newest is not None else 0
    moved = (report.done_bytes, report.total_bytes) if report.total_bytes else (UNSET, UNSET)
    return api.PartnerDocument(
        name, generation(report.live), *_standing(record), moment(report.at_ms - skew_ms), behind_ms, *moved
    )


def _of_before(report: m.Report, since_ms: int) -> StandingRecord:
    """What a report of before this node started says now."""
    before = f"at {moment(report.at_ms)} it was {report.standing.standing.value}"
    reason = f"{report.node} has not reported since this node started; {before}"
    steps = (f"on {report.node}: instep status",)
    return StandingRecord(Standing.UNKNOWN, since_ms, reason, "no_report", steps)


def _by_own_trouble(record: StandingRecord, trouble: PkiProblem) -> StandingRecord:
    reason = f"{trouble.path.name} here {trouble.detail}"
    return replace(record, reason=reason, next_steps=(trouble.hint, *record.next_steps))


def _standing(record: StandingRecord) -> tuple[str, str | None, str | None, str | None, tuple[str, ...]]:
    steps = tuple(record.next_steps)
    return record.standing.value, record.reason, record.code, moment(record.since_ms), steps


def line_document(
    store: NodeStore,
    line: LineId,
    writer: NodeName,
    head: HeadRef | None,
    live: HeadRef | None,
    standing: StandingRecord,
    partners: Iterable[api.PartnerDocument],
) -> api.LineDocument:
    signed = store.generation(head.id) if head is not None else None
    shown = generation_document(signed) if signed is not None else None
    return api.LineDocument(
        line.origin, writer, shown, generation(live), *_standing(standing), tuple(partners)
    )


def fileset_document(
    fileset: FilesetSettings, definition: Definition | None, lines: tuple[api.LineDocument, ...]
) -> api.FilesetStatusDocument:
    known = fileset.definition or definition or Definition()
    return api.FilesetStatusDocument(
        fileset.name,
        known.mode.value,
        known.fileset_class.value,
        str(fileset.path),
        (with_inventory(fileset, lines[0]), *lines[1:]),
        external=external_documents(fileset.external) or UNSET,
    )


def external_documents(externals: Iterable[External]) -> tuple[ExternalDocument, ...]:
    return tuple(
        ExternalDocument(each.name, each.kind, each.covered_by, each.not_covered) for each in externals
    )


def externals_of(documents: Iterable[ExternalDocument]) -> tuple[External, ...]:
    return tuple(External(each.name, each.kind, each.covered_by, each.not_covered) for each in documents)


def with_inventory(fileset: FilesetSettings, line: api.LineDocument) -> api.LineDocument:
    """The line as ``status`` shows it: not in step while a part of its inventory is unmarked. The machines know nothing
    of that: it changes nothing in publishing, applying and serving."""
    why = why_unmarked(fileset.external)
    if why is None:
        return line
    steps = mark_steps(fileset.name, fileset.external)
    if line.standing == Standing.IN_STEP.value:
        reason = why if line.reason is None else f"{why}; also: {line.reason}"
        return replace(
            line,
            standing=Standing.HELD.value,
            code=EXTERNAL_UNMARKED,
            reason=reason,
            next=(*steps, *line.next),
        )
    reason = why if line.reason is None else f"{line.reason}; also: {why}"
    return replace(line, reason=reason, next=(*line.next, *steps))


def reports_of(store: NodeStore, line: LineId) -> dict[NodeName, m.Report]:
    """The last reports of partners about a line."""
    return {name: m.decode(raw, m.Report) for name, raw in store.reports(line).items()}


# The daemon is down ------------------------------------------------------------------------------------------


def offline_status(directory: Path) -> api.StatusDocument:
    """The last state, read from the store; nothing is started and nothing is changed."""
    node = NodeDirectory(directory)
    node.require()
    steps: tuple[str, ...] = (f"instep --dir {directory} start",)
    record = StandingRecord(Standing.UNKNOWN, 0, "the daemon is stopped", "daemon_stopped", ("instep start",))
    daemon, ended, pid = "stopped", _ended(node), node.daemon_pid
    if pid is not None:
        record = StandingRecord(Standing.UNKNOWN, 0, "the daemon does not answer", "daemon_silent", ())
        daemon, ended = "silent", _silent(pid, is_halted=node.halted_pid is not None)
        steps = ()  # a start would wait for the process that is there: the step is in ``ended``
    try:
        settings = load(directory)
    except ConfigError as error:
        problems: Any = error.facts.get("problems", ())
        bad = api.ConfigDocument("bad", problems=tuple(problems))
        return api.StatusDocument(None, daemon, bad, (), next=steps, ended=ended)
    filesets: tuple[api.FilesetStatusDocument, ...] = ()
    read_only = None
    if (node.state / "node.db").exists():
        with closing(SqliteStore(node.state / "node.db")) as store:
            filesets = tuple(_offline_fileset(store, one, record) for one in settings.filesets.values())
            read_only = read_only_in(store)
    warnings = UNSET if read_only is None else (read_only.words(settings.name),)
    current = api.ConfigDocument("current", problems=())
    return api.StatusDocument(
        settings.name, daemon, current, filesets, warnings=warnings, next=steps, ended=ended
    )


def _silent(pid: int, *, is_halted: bool) -> api.EndDocument:
    if is_halted:
        why = f"a signal (SIGSTOP) or a debugger halted process {pid}; no partner hears from it"
        return api.EndDocument(None, why, (f"let it go on: kill -CONT {pid}",))
    way = f"repeat this in a moment; if it still does not answer, look at its log, then: kill -9 {pid}"
    way += " (nothing is lost by that); then: instep start"
    return api.EndDocument(None, f"process {pid} is there and does not answer", (way,))


def _ended(node: NodeDirectory) -> api.EndDocument | UnsetType:
    end = last_end(node)
    if end is None:
        return UNSET
    return api.EndDocument(moment(end.at_ms), end.reason, (end.hint,) if end.hint else ())


def _offline_fileset(
    store: NodeStore, fileset: FilesetSettings, record: StandingRecord
) -> api.FilesetStatusDocument:
    line = fileset.line
    facts = load_facts(store, line)
    head = live = None
    if isinstance(facts, PublishFacts):
        head = live = facts.head
    elif isinstance(facts, FollowFacts):
        head, live = facts.head, facts.live
    partners = [
        partner_document(
            store, name, report, head, is_connected=False, since_ms=0, poll_ms=0, now_ms=report.at_ms
        )
        for name, report in sorted(reports_of(store, line).items())
        if fileset.is_written_here
    ]
    document = line_document(store, line, fileset.writer, head, live, record, partners)
    if isinstance(facts, PublishFacts):
        document = replace(document, **held_of_line(fileset, facts))
    return fileset_document(fileset, definition_of(store, head), (document,))


def offline_log(directory: Path, fileset: str | None) -> api.LogDocument:
    """The generations that the store knows; where contents are is only known to a running daemon."""
    chosen = pick_fileset(load(directory), fileset)
    with closing(SqliteStore(NodeDirectory(directory).database)) as store:
        rows = [log_row(signed, ()) for signed in store.generations(chosen.line, 1000)]
    return api.LogDocument(chosen.name, tuple(rows))


def offline_events(directory: Path, since_ms: int) -> api.EventsDocument:
    """The events that the store holds."""
    with closing(SqliteStore(NodeDirectory(directory).database)) as store:
        return events_document(store, since_ms)


def events_document(store: NodeStore, since_ms: int, after: int = 0) -> api.EventsDocument:
    found: list[Mapping[str, Any]] = []
    for row in store.events(since_ms, EVENTS_KEPT, after):
        fileset = row.line.fileset if row.line is not None else None
        event = {"number": row.number, "at": moment(row.at_ms), "level": level_of(row.kind)}
        event |= {"what": row.kind, "fileset": fileset, "text": row.text}
        found.append({**event, **{key: value for key, value in row.facts.items() if key not in event}})
    return api.EventsDocument(tuple(found))


def log_row(
    signed: SignedGeneration, contents: Iterable[str], together: Iterable[str] | None = None
) -> api.LogRowDocument:
    """A generation of ``log``; ``together`` is known to a running daemon only."""
    row = api.LogRowDocument(**asdict(generation_document(signed)), contents=tuple(contents))
    if together is None:
        return row
    parts = tuple(together)
    return replace(row, together=parts, restorable=bool(row.contents or parts))


def pick_fileset(settings: Settings, name: str | None) -> FilesetSettings:
    """The named fileset, or the only one; ``UsageError`` with the names otherwise."""
    filesets = settings.filesets
    if name is not None:
        found = next((fileset for known, fileset in filesets.items() if known == name), None)
        if found is not None:
            return found
        raise UsageError(
            f"there is no fileset {name} here",
            hint="instep fileset list" if filesets else "instep fileset add NAME PATH",
            code="no_fileset",
            fileset=name,
            known=sorted(filesets),
        )
    if len(filesets) == 1:
        return next(iter(filesets.values()))
    raise UsageError(
        "there are several filesets; name one" if filesets else "there is no fileset here yet",
        hint=", ".join(sorted(filesets)) if filesets else "instep fileset add NAME PATH",
        code="which_fileset" if filesets else "no_fileset",
        known=sorted(filesets),
    )
