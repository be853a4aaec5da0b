"""Reads one table of ``instep.toml`` by the keys that a class declares; problems are collected, not raised."""

from __future__ import annotations

import difflib
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from instep.node.config.keys import keys_of, sections_of
from instep.node.config.kinds import BadValue
from instep.node.config.toml_lines import KeyPath, path_text


def problem(line: int | None, key: str, value: object, why: str) -> dict[str, Any]:
    return {"line": line, "key": key, "value": _plain(value), "why": why}


def counted(problems: list[dict[str, Any]]) -> str:
    return "1 problem" if len(problems) == 1 else f"{len(problems)} problems"


def by_line(problems: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """In the order of the file."""
    return sorted(problems, key=lambda one: (one["line"] or 0, one["key"]))


def _plain(value: object) -> object:
    """The value as JSON can carry it (TOML has dates)."""
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return str(value)


class TableReader:
    """Collects problems while it reads; a value that cannot be used is replaced by its default to go on.

    ``lines`` is called when the first problem or warning needs it.
    """

    def __init__(
        self,
        document: dict[str, Any],
        lines: Callable[[], Mapping[KeyPath, int]],
        directory: Path | None = None,
    ) -> None:
        self.document = document
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

    def wrong(self, path: KeyPath, value: object, why: str) -> None:
        self.problems.append(problem(self.line(path), path_text(path), value, why))

    def warn(self, path: KeyPath, what: str) -> None:
        line = self.line(path)
        self.warnings.append(f"line {line}: {what}" if line else what)

    def table(self, path: KeyPath, raw: object) -> dict[str, Any]:
        if isinstance(raw, dict):
            return raw
        self.wrong(path, raw, f"is not a table such as [{'.'.join(path)}]")
        return {}

    def below(self, path: KeyPath, raw: Mapping[str, Any], name: str) -> tuple[KeyPath, dict[str, Any]]:
        """Path and content of a table below; empty where it is not there."""
        return (*path, name), self.table((*path, name), raw.get(name, {}))

    def read(self, path: KeyPath, raw: Mapping[str, Any], declared: type) -> dict[str, Any]:
        """Values of one table by field name; unknown keys and bad values become problems."""
        found: dict[str, Any] = {}
        names = [section.name for section in sections_of(declared)]
        for key in keys_of(declared):
            names.append(key.name)
            found[key.field] = key.absent
            if key.name in raw:
                try:
                    found[key.field] = key.kind(raw[key.name])
                except BadValue as error:
                    self.wrong((*path, key.name), raw[key.name], str(error))
            elif key.is_required:
                self.wrong((*path, key.name), None, "is missing")
        for name in raw:
            if name not in names:
                near = difflib.get_close_matches(name, names, 1)
                more = f"; did you mean {near[0]}?" if near else ""
                self.wrong((*path, name), raw[name], f"is not a known key{more}")
        return found
