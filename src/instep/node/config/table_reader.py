"""Reads one table of ``instep.toml`` by the keys that a class declares; problems are collected, not raised."""

from __future__ import annotations

import difflib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instep.errors import ConfigError
from instep.node.config.keys import keys_of, sections_of
from instep.node.config.kinds import BadValue
from instep.node.config.toml_lines import KeyPath, NotToml, key_lines, path_text, toml_document


def problem(line: int | None, key: str, value: object, why: str) -> dict[str, Any]:
    return {"line": line, "key": key, "value": _plain(value), "why": why}


def counted(problems: list[dict[str, Any]]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def by_line(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of the file."""
    return sorted(problems, key=lambda one: (one["line"] or 0, one["key"]))


_PASSWORD = re.compile(r"(?<=://)[^/\s]*@|(?<=password=)[^&\s]*")


def _plain(value: object) -> object:
    """The value as JSON can carry it (TOML has dates). A password in an address is not repeated."""
    if isinstance(value, str):
        return _PASSWORD.sub("...", value)
    if value is None or isinstance(value, int | float | bool):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return str(value)


class Reading:
    """One file while it is read: the problems and warnings so far. ``lines`` is called when the first one needs it."""

    def __init__(self, lines: Callable[[], Mapping[KeyPath, int]], directory: Path | None = None) -> None:
        self.directory = directory
        self.problems: list[dict[str, Any]] = []
        self.warnings: list[str] = []
        self._lines = functools.cache(lines)

    def line(self, path: KeyPath) -> int | None:
        """The line of the key, or of the nearest table that holds it."""
        lines = self._lines()
        while path:
            if path in lines:
                return lines[path]
            path = path[:-1]
        return None


_THERE = object()
_NAME = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a file, read by the keys that a class declares. A value that cannot be used becomes a problem, and
    its default goes on in its place."""

    reading: Reading
    path: KeyPath
    raw: dict[str, Any]

    @classmethod
    def of(cls, reading: Reading, path: KeyPath, raw: object) -> Table:
        """Anything else than a table is a problem, and counts as an empty one."""
        made = cls(reading, path, raw if isinstance(raw, dict) else {})
        if not isinstance(raw, dict):
            made.wrong("", f"is not a table such as [{'.'.join(path)}]", raw)
        return made

    def _at(self, name: str) -> KeyPath:
        return (*self.path, name) if name else self.path

    def wrong(self, name: str, why: str, value: object = _THERE) -> None:
        """A key, or without a name the table itself, cannot be used; ``value`` where another one is to be shown."""
        if value is _THERE:
            value = self.raw.get(name) if name else self.raw
        path = self._at(name)
        self.reading.problems.append(problem(self.reading.line(path), path_text(path), value, why))

    def warn(self, name: str, what: str) -> None:
        line = self.reading.line(self._at(name))
        self.reading.warnings.append(f"line {line}: {what}" if line else what)

    def below(self, name: str) -> Table:
        """A table in this one; empty where it is not there."""
        return Table.of(self.reading, self._at(name), self.raw.get(name, {}))

    def named_below(self, name: str, most: int) -> Iterator[tuple[str, Table]]:
        """The tables ``[name.NAME]``; a bad name, and each table after the first ``most``, is a problem."""
        tables = self.below(name)
        for at, each in enumerate(tables.raw):
            if not _NAME.fullmatch(each):
                tables.wrong(each, "is no name: lower-case letters, digits, '.', '_' and '-', at most 63")
            elif at >= most:
                tables.wrong(each, f"is one too many: {most} are taken")
            else:
                yield each, tables.below(each)

    def read(self, declared: type) -> dict[str, Any]:
        """The values by field name; unknown keys and bad values become problems."""
        found: dict[str, Any] = {}
        names = [section.name for section in sections_of(declared)]
        for key in keys_of(declared):
            names.append(key.name)
            found[key.field] = key.absent
            if key.name in self.raw:
                try:
                    found[key.field] = key.kind(self.raw[key.name])
                except BadValue as error:
                    self.wrong(key.name, str(error))
            elif key.is_required:
                self.wrong(key.name, "is missing")
        for name in self.raw:
            if name not in names:
                self.wrong(name, f"is not a known key{did_you_mean(name, names)}")
        return found


def top_table(
    text: str, refusal: Callable[[list[dict[str, Any]]], ConfigError], directory: Path | None = None
) -> Table:
    """The whole file. ``refusal`` makes the error of a text that is not TOML."""
    try:
        document = toml_document(text)
    except NotToml as error:
        raise refusal([problem(error.line, "", None, str(error))]) from None
    return Table(Reading(lambda: key_lines(text), directory), (), document)


def did_you_mean(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, known, 1)
    return f"; did you mean {near[0]}?" if near else ""
