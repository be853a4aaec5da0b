"""The audit: a row for each command that changes anything, made before it runs and finished with its outcome."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from instep.api.access import AuditDocument, AuditRowDocument
from instep.api.command import Command, Document, as_json
from instep.errors import InstepError, NotAllowedError
from instep.node.access.caller import Caller
from instep.node.lines.snapshot import moment
from instep.store.access_store import AccessStore, AuditRow

VALUE_MAX = 1_000
"""A longer value of a parameter is cut: a row is for people."""
_RESULT_KEYS = (
    "changed", "generation", "state", "node", "name", "to", "sessions", "ended", "until", "drained", "reached",
)  # fmt: skip
"""The keys of a result that a row keeps."""
log = logging.getLogger(__name__)


class AuditRecord(msgspec.Struct, omit_defaults=True):
    """What a row holds, as JSON in the database."""

    who: str
    role: str
    door: str
    address: str
    command: str
    fileset: str | None = None
    parameters: dict[str, Any] = msgspec.field(default_factory=dict)
    reason: str | None = None
    outcome: str = "unfinished"
    code: str | None = None
    result: dict[str, Any] | None = None


class AuditTrail:
    """An audit that cannot be written stops no command: its rows then stand in the daemon's log alone."""

    def __init__(self, store: Callable[[], AccessStore], now_ms: Callable[[], int]) -> None:
        self._store = store
        self._now_ms = now_ms
        self.denied = 0
        """Commands that were refused for the rights of their caller, since the start."""

    def begin(self, caller: Caller, kind: type[Command[Any]], params: Mapping[str, Any]) -> AuditEntry:
        """The row of a command that is about to run."""
        shown = {key: _short(value) for key, value in params.items() if key not in kind.secrets}
        fileset = shown.pop("fileset", None)
        reason = params.get("reason") or params.get("message")
        record = AuditRecord(
            caller.name, caller.role.value, caller.door.value, caller.address, kind.command,
            fileset if isinstance(fileset, str) else None, shown, str(_short(reason)) if reason else None,
        )  # fmt: skip
        return self._begun(record)

    def _begun(self, record: AuditRecord) -> AuditEntry:
        entry = AuditEntry(self, record)
        entry.number = self._written(
            lambda store: store.append_audit(self._now_ms(), encoded(record)), record
        )
        return entry

    def refused(self, caller: Caller, kind: type[Command[Any]], params: Mapping[str, Any], code: str) -> None:
        """A command that its caller may not give."""
        self.denied += 1
        entry = self.begin(caller, kind, params)
        entry.record.outcome, entry.record.code = "refused", code
        self.finish(entry)

    def refused_request(self, caller: Caller, request: str, reason: str, code: str) -> None:
        """A request in the name of a caller that no command was made of, by its method and path."""
        self.denied += 1
        record = AuditRecord(
            caller.name, caller.role.value, caller.door.value, caller.address, str(_short(request)),
            reason=reason, outcome="refused", code=code,
        )  # fmt: skip
        self.finish(self._begun(record))

    def finish(self, entry: AuditEntry) -> None:
        number, record = entry.number, entry.record
        if number is not None:
            self._written(lambda store: store.finish_audit(number, encoded(record)), record)
        about = {"event": "audit", **msgspec.to_builtins(record)}
        log.info("%s gave %s: %s", record.who, record.command, record.outcome, extra={"about": about})

    def _written(self, write: Callable[[AccessStore], Any], record: AuditRecord) -> Any:
        try:
            return write(self._store())
        except InstepError as error:
            log.error("the audit cannot be written (%s): %s", error.reason, encoded(record).decode())
            return None

    def rows(self, since_ms: int, before: int | None, limit: int) -> AuditDocument:
        """Newest first."""
        found = self._store().audit(since_ms, limit, before)
        last = found[-1].number if len(found) == limit else None
        return AuditDocument(tuple(map(_document, found)), last)


class AuditEntry:
    """One row while its command runs; leaving it without ``done`` keeps it unfinished."""

    def __init__(self, trail: AuditTrail, record: AuditRecord) -> None:
        self._trail = trail
        self.record = record
        self.number: int | None = None

    def done(self, result: Document) -> None:
        told = as_json(result)
        self.record.outcome = "done"
        self.record.result = {key: told[key] for key in _RESULT_KEYS if key in told} or None
        self._trail.finish(self)

    def failed(self, error: InstepError) -> None:
        self.record.outcome = "refused" if isinstance(error, NotAllowedError) else "failed"
        self.record.code = error.error_code
        self._trail.finish(self)


def encoded(record: AuditRecord) -> bytes:
    return msgspec.json.encode(record)


def _short(value: Any) -> Any:
    if isinstance(value, bytes):
        return _short(value.decode("utf-8", "replace"))
    if isinstance(value, str):
        clean = value.encode("utf-8", "replace").decode()
        return clean if len(clean) <= VALUE_MAX else f"{clean[:VALUE_MAX]} …"
    if isinstance(value, list | tuple):
        return [_short(each) for each in value[:20]]
    if isinstance(value, dict):
        return {str(_short(key)): _short(each) for key, each in list(value.items())[:20]}
    return value


def _document(row: AuditRow) -> AuditRowDocument:
    record = msgspec.json.decode(row.record, type=AuditRecord)
    return AuditRowDocument(number=row.number, at=moment(row.at_ms), **msgspec.structs.asdict(record))
