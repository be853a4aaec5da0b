"""``/metrics`` in the text format of Prometheus: this node, and of each partner one series a fact.

Every value is read from ``status`` when it is asked for. No label is ever a path, a person or a digest.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from instep import __version__
from instep.api.looking import LineDocument, StatusDocument

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
STANDINGS = (
    "in_step", "behind", "applying", "held", "blocked", "failing", "drifted", "damaged", "observing", "paused",
    "unreachable", "unknown",
)  # fmt: skip
ROLLOUTS = (
    "barrier", "waves", "watching", "confirming", "putting_back", "put_back", "stopped", "aborted", "superseded",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Beside:
    """Facts that ``status`` does not have."""

    certificate_ends_at: float
    """Seconds since 1970."""
    denied: int
    streams: int
    noted: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Events since the start, by kind and fileset; the fileset is empty where an event is of none."""
    now: float = field(default_factory=lambda: dt.datetime.now(dt.UTC).timestamp())


def metrics_text(status: StatusDocument, beside: Beside) -> str:
    """All families, each with its help and type."""
    lines = [line for each in status.filesets for line in each.lines]
    of = {id(line): each.name for each in status.filesets for line in each.lines}
    refused = int(status.config.state != "current")
    families: dict[str, Iterable[str]] = {
        "build_info": (_row({"version": __version__, "node": str(status.node)}, 1),),
        "generation_head": _numbers(lines, of, "head"),
        "generation_live": _numbers(lines, of, "live"),
        "standing": _stateset(lines, of),
        "behind_seconds": _behind(lines, of, beside.now),
        "held_paths": _held(lines, of),
        "copies_documents": _copies(status),
        "rollout_state": _rollouts(lines, of),
        "partner_generation_live": _partner_numbers(lines, of),
        "partner_standing": _partner_standings(lines, of),
        "last_contact_timestamp_seconds": _contacts(lines),
        "certificate_expiry_timestamp_seconds": (_row({}, beside.certificate_ends_at),),
        "events_total": _events(beside.noted, {str(each.name) for each in status.filesets}),
        "audit_denied_total": (_row({}, beside.denied),),
        "panel_streams": (_row({}, beside.streams),),
        "warnings": (_row({}, len(status.warnings or ())),),
        "configuration_refused": (_row({}, refused),),
    }
    parts: list[str] = []
    for short, rows in families.items():
        name, kind = f"instep_{short}", "counter" if short.endswith("_total") else "gauge"
        parts += (f"# HELP {name} {_HELP[short]}", f"# TYPE {name} {kind}")
        parts += (f"{name}{row}" for row in rows)
    return "\n".join(parts) + "\n"


_HELP: Mapping[str, str] = {
    "build_info": "The version of this node.",
    "generation_head": "The newest generation that is known.",
    "generation_live": "The generation that this node serves.",
    "standing": "1 for the standing of this node in a fileset.",
    "behind_seconds": "For how long this node has not been in step; 0 where it is.",
    "held_paths": "Paths that keep their last entries.",
    "copies_documents": "Documents of a rule about copies wanted, by what the last look found.",
    "rollout_state": "1 for the state of the rollout that runs or has failed.",
    "partner_generation_live": "The generation that a partner serves.",
    "partner_standing": "1 for the present standing of a partner.",
    "last_contact_timestamp_seconds": "When a partner was heard last.",
    "certificate_expiry_timestamp_seconds": "When the certificate of this node ends.",
    "events_total": "Events of each kind, since the start.",
    "audit_denied_total": "Commands that were refused for rights, since the start.",
    "panel_streams": "Streams of events that are open.",
    "warnings": "Warnings in status.",
    "configuration_refused": "1 while the file is not the configuration that runs.",
}
_Names = Mapping[int, str]


def _numbers(lines: list[LineDocument], of: _Names, key: str) -> Iterator[str]:
    for line in lines:
        found = getattr(line, key)
        if found is not None:
            yield _row({"fileset": of[id(line)], "origin": line.origin}, found.number)


def _stateset(lines: list[LineDocument], of: _Names) -> Iterator[str]:
    for line in lines:
        for standing in STANDINGS:
            yield _row({"fileset": of[id(line)], "standing": standing}, int(line.standing == standing))


def _behind(lines: list[LineDocument], of: _Names, now: float) -> Iterator[str]:
    for line in lines:
        is_late = line.standing not in ("in_step", "observing") and line.since is not None
        seconds = max(0.0, now - _seconds(line.since)) if is_late and line.since is not None else 0.0
        yield _row({"fileset": of[id(line)]}, round(seconds, 3))


def _held(lines: list[LineDocument], of: _Names) -> Iterator[str]:
    return (_row({"fileset": of[id(line)]}, line.held_total or 0) for line in lines)


def _copies(status: StatusDocument) -> Iterator[str]:
    for fileset in status.filesets:
        for at, rule in enumerate(fileset.copies or ()):
            counts = {
                "named": rule.documents,
                "short": rule.short,
                "not_known": rule.doubtful,
                "missing_preferred": sum(one.documents for one in rule.missing),
                "on_blocked": sum(one.documents for one in rule.blocked),
            }
            for state, count in counts.items():
                labels = {"fileset": fileset.name, "rule": str(at + 1), "paths": ", ".join(rule.paths)}
                yield _row(labels | {"state": state}, count)


def _rollouts(lines: list[LineDocument], of: _Names) -> Iterator[str]:
    for line in lines:
        state = line.rollout.state if line.rollout else None
        for one in ROLLOUTS if state is not None else ():
            yield _row({"fileset": of[id(line)], "state": one}, int(state == one))


def _partner_numbers(lines: list[LineDocument], of: _Names) -> Iterator[str]:
    for line in lines:
        for one in line.partners:
            if one.live is not None:
                labels = {"fileset": of[id(line)], "origin": line.origin, "partner": one.name}
                yield _row(labels, one.live.number)


def _partner_standings(lines: list[LineDocument], of: _Names) -> Iterator[str]:
    for line in lines:
        for one in line.partners:
            standing = one.standing if one.standing in STANDINGS else "unknown"
            yield _row({"fileset": of[id(line)], "partner": one.name, "standing": standing}, 1)


def _contacts(lines: list[LineDocument]) -> Iterator[str]:
    heard: dict[str, float] = {}
    for one in (one for line in lines for one in line.partners if one.last_checked is not None):
        heard[one.name] = max(heard.get(one.name, 0.0), _seconds(str(one.last_checked)))
    return (_row({"partner": name}, at) for name, at in heard.items())


def _events(noted: Mapping[tuple[str, str], int], filesets: set[str]) -> Iterator[str]:
    """Of filesets that the caller may see."""
    for (kind, fileset), count in sorted(noted.items()):
        if not fileset or fileset in filesets:
            yield _row({"kind": kind, "fileset": fileset}, count)


def _row(labels: Mapping[str, str], value: float) -> str:
    told = ",".join(f'{name}="{_escaped(text)}"' for name, text in labels.items())
    return f"{{{told}}} {value:.15g}" if told else f" {value:.15g}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _seconds(iso: str) -> float:
    return dt.datetime.fromisoformat(iso).timestamp()
