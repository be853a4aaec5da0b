"""Facts in ``instep.toml``: where a named fact comes from, and the program that the built-in ones are about."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from instep.core.follow.gates import BUILT_IN
from instep.node.config.keys import key
from instep.node.config.kinds import BadValue, kind, string
from instep.node.config.table_reader import Table
from instep.node.config.values import absolute_path, program

_SOURCES = ("file", "run", "list", "digest_of", "fingerprint_of", "value")


def _expression(raw: object) -> str:
    text = string(raw)
    try:
        re.compile(text)
    except re.error as error:
        raise BadValue(f"is not a regular expression: {error}") from None
    return text


@dataclass(frozen=True, slots=True, kw_only=True)
class FactSettings:
    """Where a named fact comes from. Exactly one of the sources is set."""

    file: Path | None = key(None, absolute_path)
    """A file that holds the fact."""
    match: str | None = key(None, _expression)
    """Regular expression over the file or output; its first group is the fact."""
    run: tuple[str, ...] | None = key(None, program)
    """A program and its arguments, no shell; its output within 10 s is the fact."""
    list: Path | None = key(None, absolute_path)
    """A directory; the names in it are the fact, one a line."""
    digest_of: Path | None = key(None, absolute_path)
    """A file whose digest is the fact."""
    fingerprint_of: Path | None = key(None, absolute_path)
    """A secret file; a slow fingerprint of it is the fact."""
    value: str | None = key(None, string)
    """The fact itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceSettings:
    """The program that uses a fileset's tree, by one of these: whose user the facts ``service`` and ``access`` are
    about."""

    unit: str | None = None
    """A systemd unit."""
    pid_file: Path | None = None
    user: str | None = None


def _written(found: ServiceSettings) -> dict[str, str]:
    given = {"unit": found.unit, "pid_file": found.pid_file, "user": found.user}
    return {name: str(value) for name, value in given.items() if value is not None}


@kind(_written)
def service_kind(raw: object) -> ServiceSettings:
    if not isinstance(raw, dict) or len(raw) != 1 or not set(raw) <= {"unit", "pid_file", "user"}:
        raise BadValue('is not one of { unit = "..." }, { pid_file = "/..." } and { user = "..." }')
    if "pid_file" in raw:
        return ServiceSettings(pid_file=absolute_path(raw["pid_file"]))
    ((name, value),) = raw.items()
    if not re.fullmatch(r"[A-Za-z0-9_@:.\\][A-Za-z0-9_@:.\\-]{0,255}", string(value)):
        raise BadValue(f"has a {name} that is no name")
    return ServiceSettings(**{name: value})


def read_facts(top: Table) -> dict[str, FactSettings]:
    found: dict[str, FactSettings] = {}
    facts = top.below("facts")
    for name in facts.raw:
        before = len(top.reading.problems)
        table = facts.below(name)
        fact = FactSettings(**table.read(FactSettings))
        if name in BUILT_IN:
            facts.wrong(name, "is the name of a built-in fact; choose another")
        if len(top.reading.problems) == before:
            _check_sources(table, fact)
            found[name] = fact
    return found


def _check_sources(table: Table, fact: FactSettings) -> None:
    sources = [source for source in _SOURCES if getattr(fact, source) is not None]
    if len(sources) != 1:
        table.wrong("", f"needs exactly one of {', '.join(_SOURCES[:-1])} and {_SOURCES[-1]}")
    elif fact.match is not None and sources[0] not in ("file", "run"):
        table.wrong("match", "goes with file or run")
