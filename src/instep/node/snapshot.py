"""What ``status`` and ``log`` say: pure reading of a node's store and settings, with the daemon up or down."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from instep.core.publish_vocabulary import PublishFacts
from instep.errors import ConfigError
from instep.model.definition import Definition, decode_definition
from instep.model.generation import SignedGeneration
from instep.model.ids import HeadRef, LineId, NodeName
from instep.model.standing import Standing, StandingRecord
from instep.net import messages as m
from instep.node.config.loading import load
from instep.node.config.settings import FilesetSettings, Settings
from instep.node.directory import NodeDirectory
from instep.node.held_view import held_of_line
from instep.node.line_facts import load_facts
from instep.store.port import NodeStore
from instep.store.sqlite import SqliteStore

__all__ = [
    "fileset_document",
    "generation_document",
    "line_document",
    "moment",
    "offline_log",
    "offline_status",
]


def moment(ms: int | None) -> str | None:
    """Wall clock for people and scripts: UTC, to the millisecond where it has them."""
    if ms is None:
        return None
    at = dt.datetime.fromtimestamp(ms / 1000, dt.UTC)
    text = at.isoformat(timespec="milliseconds" if ms % 1000 else "seconds")
    return text.replace("+00:00", "Z")


def generation_document(signed: SignedGeneration) -> dict[str, Any]:
    """A generation as ``head`` and ``log`` show it."""
    body = signed.body()
    return {
        "epoch": body.epoch,
        "number": body.number,
        "id": signed.id.hex(),
        "root": body.root.hex(),
        "author": body.author,
        "message": body.message,
        "published_at": moment(body.time_ms),
        "entries": body.entries,
        "bytes": body.size_bytes,
    }


def _standing(record: StandingRecord) -> dict[str, Any]:
    return {
        "standing": record.standing.value,
        "reason": record.reason,
        "code": record.code,
        "since": moment(record.since_ms),
        "next": list(record.next_steps),
    }


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
) -> dict[str, Any]:
    """One partner's row: its own report, put right by what this node sees of it."""
    if report is None:
        record = StandingRecord(
            Standing.UNKNOWN if is_connected else Standing.UNREACHABLE,
            since_ms,
            "it has not reported yet" if is_connected else f"{name} is not connected",
            "no_report" if is_connected else "not_connected",
            (f"on {name}: instep status",),
        )
        return {"name": name, "live": None, **_standing(record), "last_checked": None, "behind_ms": None}
    record = report.standing
    if not is_connected and now_ms - report.at_ms > poll_ms:
        record = StandingRecord(
            Standing.UNREACHABLE,
            report.at_ms,
            f"{name} was last heard of at {moment(report.at_ms)}, then: {report.standing.standing.value}",
            "not_connected",
            (f"on {name}: instep status; instep check",),
        )
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
    behind_ms = 0
    if head is not None and (report.live is None or report.live.id != head.id):
        newest = store.generation(head.id)
        behind_ms = max(0, now_ms - newest.body().time_ms) if newest is not None else 0
    return {
        "name": name,
        "live": report.live.as_json() if report.live is not None else None,
        **_standing(record),
        "last_checked": moment(report.at_ms),
        "behind_ms": behind_ms,
        **(
            {"done_bytes": report.done_bytes, "total_bytes": report.total_bytes} if report.total_bytes else {}
        ),
    }


def line_document(
    store: NodeStore,
    line: LineId,
    writer: NodeName,
    head: HeadRef | None,
    live: HeadRef | None,
    standing: StandingRecord,
    partners: list[dict[str, Any]],
) -> dict[str, Any]:
    signed = store.generation(head.id) if head is not None else None
    shown = generation_document(signed) if signed is not None else None
    return {
        "origin": line.origin,
        "writer": writer,
        "head": shown,
        "live": live.as_json() if live is not None else None,
        **_standing(standing),
        "partners": partners,
    }


def fileset_document(
    fileset: FilesetSettings, definition: Definition | None, lines: list[dict[str, Any]]
) -> dict[str, Any]:
    known = fileset.definition or definition or Definition()
    return {
        "name": fileset.name,
        "mode": known.mode.value,
        "class": known.fileset_class.value,
        "path": str(fileset.path),
        "lines": lines,
    }


def reports_of(store: NodeStore, line: LineId) -> dict[NodeName, m.Report]:
    """What partners last reported of a line."""
    return {name: m.decode(raw, m.Report) for name, raw in store.reports(line).items()}


def definition_of(store: NodeStore, head: HeadRef | None) -> Definition | None:
    signed = store.generation(head.id) if head is not None else None
    raw = store.get_blob(signed.body().definition) if signed is not None else None
    return decode_definition(raw) if raw is not None else None


# The daemon is down ------------------------------------------------------------------------------------------


def offline_status(directory: Path) -> dict[str, Any]:
    """The last state, read from the store; nothing is started and nothing is changed."""
    node = NodeDirectory(directory)
    node.require()
    problems: list[Any] = []
    try:
        settings: Settings | None = load(directory)
    except ConfigError as error:
        settings = None
        problems = list(error.facts.get("problems", []))  # type: ignore[call-overload]
    name = settings.name if settings is not None else None
    document: dict[str, Any] = {
        "node": name,
        "daemon": "stopped",
        "config": {"state": "current" if settings is not None else "bad", "problems": problems},
        "filesets": [],
        "next": [f"instep --dir {directory} start"],
    }
    if settings is None or not (node.state / "node.db").exists():
        return document
    store = SqliteStore.open(node.state / "node.db")
    try:
        for fileset in settings.filesets.values():
            document["filesets"].append(_offline_fileset(store, fileset))
    finally:
        store.close()
    return document


def _offline_fileset(store: NodeStore, fileset: FilesetSettings) -> dict[str, Any]:
    line = fileset.line
    facts = load_facts(store, line)
    head = live = None
    if isinstance(facts, PublishFacts):
        head = live = facts.head
    elif facts is not None:
        head, live = facts.head, facts.live
    record = StandingRecord(Standing.UNKNOWN, 0, "the daemon is stopped", "daemon_stopped", ("instep start",))
    partners = [
        partner_document(
            store,
            name,
            report,
            head,
            is_connected=False,
            since_ms=report.at_ms,
            poll_ms=0,
            now_ms=report.at_ms,
        )
        for name, report in sorted(reports_of(store, line).items())
        if fileset.is_written_here
    ]
    document = line_document(store, line, fileset.writer, head, live, record, partners)
    if isinstance(facts, PublishFacts):
        document.update(held_of_line(fileset, facts))
    return fileset_document(fileset, definition_of(store, head), [document])


def offline_log(directory: Path, fileset: str | None) -> dict[str, Any]:
    """The generations that the store knows; where contents are is only known to a running daemon."""
    node = NodeDirectory(directory)
    settings = load(directory)
    chosen = pick_fileset(settings, fileset)
    store = SqliteStore.open(node.state / "node.db")
    try:
        found = store.generations(chosen.line, 1000)
        generations: list[Mapping[str, Any]] = [{**generation_document(g), "contents": []} for g in found]
    finally:
        store.close()
    return {"fileset": chosen.name, "generations": generations}


def pick_fileset(settings: Settings, name: str | None) -> FilesetSettings:
    """The named fileset, or the only one; ``UsageError`` with the names otherwise."""
    from instep.errors import UsageError

    filesets = settings.filesets
    if name is not None:
        for known, fileset in filesets.items():
            if known == name:
                return fileset
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
