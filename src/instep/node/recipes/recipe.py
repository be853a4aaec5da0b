"""A recipe: ready settings for a known application, as a data file. Read strictly, filled with parameters, never run.

A recipe becomes plain settings of ``instep.toml`` when an operator asks for it by name, and nothing else ever comes
of it: no message of a peer can name, send or change one.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any

from instep.errors import ConfigError, UsageError
from instep.node.config.filesets import FilesetSettings
from instep.node.config.keys import NO_DEFAULT, key, section
from instep.node.config.kinds import BadValue, choice, string
from instep.node.config.settings import read_settings
from instep.node.config.table_reader import Reading, Table, by_line, counted, did_you_mean, top_table
from instep.node.config.toml_lines import KeyPath, key_lines
from instep.node.config.values import absolute_path

WRITTEN, FOLLOWED = "writer", "partner"
"""Where the settings go: beside the writer of the fileset, or where it is followed."""
BOTH = "both"
PARAMETERS_MAX = 32
VALUE_MAX = 4096
NOT_IN_A_RECIPE = ("path", "writer", "origin", "to", "offers_from", "observe", "stage", "mode")
"""Keys that the command itself sets."""

_JOINED = ("hooks", "archive", "rollout")
"""Tables of both parts that are joined key by key."""
_NAME = re.compile(r"[a-z][a-z0-9_]{0,31}")
_MARK = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
_HERE, _ELSEWHERE, _FILESET = "here", "elsewhere", "recipe"
_ROOT = "/srv/recipe"


def _url(raw: object) -> str:
    text = string(raw)
    if not re.fullmatch(r"https?://[^/\s@]+(/\S*)?", text):
        raise BadValue("is not a URL such as http://localhost:8080/app, without a user or password")
    return text


def _path(raw: object) -> str:
    return str(absolute_path(raw))


KINDS: Mapping[str, Callable[[object], str]] = {"text": string, "url": _url, "path": _path}


def _text(raw: object) -> str:
    if not isinstance(raw, str):
        raise BadValue("is not a text in quotes")
    return raw


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """A value that an operator may or must give. ``default`` None: must; empty: settings that are only this are left
    out."""

    name: str
    help: str = key(NO_DEFAULT, string, absent="")
    """What it is."""
    kind: str = key("text", choice(*KINDS))
    """text, url or path."""
    default: str | None = key(None, _text)
    """Taken when it is not given."""
    example: str = key(None, string, absent="")
    """Shown where it has no default."""

    @property
    def shown(self) -> str:
        """A value: its default, or else its example."""
        return self.example if self.default is None else self.default


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeFile:
    """The content of a recipe's file. The tables of settings keep the marks of their parameters."""

    about: str = key(NO_DEFAULT, string)
    """Its purpose, in one line."""
    note: str = key(None, string, absent="")
    """A note for the operator."""
    parameters: Mapping[str, Parameter] = section(Parameter, dict, is_named=True)
    tables: Mapping[str, Any] = section(FilesetSettings, dict, BOTH, WRITTEN, FOLLOWED)


@dataclass(frozen=True, slots=True)
class Recipe:
    """One file that was read and is right. ``tables`` are as written, their parameters not filled in."""

    name: str
    about: str
    note: str
    parameters: tuple[Parameter, ...]
    tables: Mapping[str, Mapping[str, Any]]
    lines: Mapping[KeyPath, int]
    file: Path
    is_packaged: bool
    """It came with instep, and is not an operator's own."""

    @property
    def examples(self) -> dict[str, str]:
        """A value for every parameter: its default, or else its example."""
        return {p.name: p.shown for p in self.parameters}

    def settings(self, role: str, given: Mapping[str, str], root: Path | None = None) -> dict[str, Any]:
        """The fileset's keys for one role, parameters filled in; ``UsageError`` that names every parameter that is
        missing, unknown or unfit, ``ConfigError`` when what comes out is no right setting for ``root``."""
        self._check_given(role, given)
        filled = _filled(self.tables, role, {**self.examples, **given})
        problems = _problems(filled, role, self.lines, str(root or _ROOT))
        if problems:
            raise _refusal(self.file, problems)
        return filled

    def required(self, role: str) -> tuple[Parameter, ...]:
        """Parameters that must be given for one role: those without a default that its settings use."""
        texts = (text for part in (BOTH, role) for _, text in _texts(self.tables.get(part, {}), ()))
        used = {name for text in texts for name in _MARK.findall(text)}
        return tuple(p for p in self.parameters if p.default is None and p.name in used)

    def _check_given(self, role: str, given: Mapping[str, str]) -> None:
        known = {p.name: p for p in self.parameters}
        wrong: list[str] = []
        for name, text in given.items():
            if name not in known:
                wrong.append(f"it has no parameter {name}{did_you_mean(name, known)}")
                continue
            if text == "" and known[name].default == "":
                continue
            try:
                _value(text, known[name].kind)
            except BadValue as error:
                wrong.append(f"{name} = {text!r} {error}")
        lacking = [p for p in self.required(role) if p.name not in given]
        wrong += [f"{p.name} is missing: {p.help}" for p in lacking]
        if wrong:
            words = "".join(f" --param {p.name}={p.example}" for p in lacking)
            raise UsageError(
                f"recipe {self.name}: {'; '.join(wrong)}",
                hint=f"add{words}" if words else f"instep recipe show {self.name}",
                code="recipe_parameters",
                recipe=self.name,
            )


def read_recipe(name: str, text: str, file: Path, *, is_packaged: bool) -> Recipe:
    """The recipe that ``text`` is; ``ConfigError`` with every problem and its line."""
    top = top_table(text, partial(_refusal, file))
    reading, lines = top.reading, key_lines(text)
    row = top.read(RecipeFile)
    parameters = _parameters(top)
    parts = {part: top.below(part) for part in (BOTH, WRITTEN, FOLLOWED) if part in top.raw}
    if not parts:
        top.wrong("", f"has none of [{BOTH}], [{WRITTEN}] and [{FOLLOWED}]", None)
    for table in parts.values():
        for said in NOT_IN_A_RECIPE:
            if said in table.raw:
                table.wrong(said, "is said by the command, not by a recipe")
    tables = {part: table.raw for part, table in parts.items()}
    _check_marks(top, parameters, tables)
    if not reading.problems:
        examples = {p.name: p.shown for p in parameters}
        for role in (WRITTEN, FOLLOWED):
            for each in _problems(_filled(tables, role, examples), role, lines, _ROOT):
                if each not in reading.problems:
                    reading.problems.append(each)
    if reading.problems:
        raise _refusal(file, reading.problems)
    return Recipe(
        name, row["about"], row["note"], parameters, MappingProxyType(tables), lines, file, is_packaged
    )


def _parameters(top: Table) -> tuple[Parameter, ...]:
    tables = top.below("parameters")
    many = len(tables.raw)
    if many > PARAMETERS_MAX:
        tables.wrong("", f"has {many} parameters, the limit is {PARAMETERS_MAX}", many)
    found: list[Parameter] = []
    for name in [*tables.raw][:PARAMETERS_MAX]:
        if not _NAME.fullmatch(name):
            why = "is not a parameter's name: small letters, digits and _, a letter first"
            tables.wrong(name, why, name)
        one = Parameter(name=name, **tables.below(name).read(Parameter))
        if one.default is None and not one.example:
            tables.wrong(name, "needs a default, or an example where it must be given", None)
        elif one.shown:
            try:
                _value(one.shown, one.kind)
            except BadValue as error:
                tables.wrong(name, str(error), one.shown)
        found.append(one)
    return tuple(found)


def _value(text: str, kind: str) -> str:
    if len(text) > VALUE_MAX or not text.isprintable():
        raise BadValue(f"is longer than {VALUE_MAX} characters or holds control characters")
    return KINDS[kind](text)


# Filling in -------------------------------------------------------------------------------------------------


def _texts(value: object, path: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, path)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _texts(item, (*path, key))


def _check_marks(top: Table, parameters: tuple[Parameter, ...], tables: Mapping[str, Any]) -> None:
    known = {p.name for p in parameters}
    used: set[str] = set()
    for part, table in tables.items():
        for path, text in _texts(table, (part,)):
            for name in _MARK.findall(text):
                used.add(name)
                if name not in known:
                    more = did_you_mean(name, known)
                    holder = Table(top.reading, path[:-1], {})
                    holder.wrong(path[-1], f"names {name}, which [parameters] does not have{more}", text)
    for name in sorted(known - used):
        Table(top.reading, ("parameters",), {}).wrong(name, "is used nowhere", None)


def _filled(tables: Mapping[str, Mapping[str, Any]], role: str, given: Mapping[str, str]) -> dict[str, Any]:
    joined = _joined(tables.get(BOTH, {}), tables.get(role, {}))
    filled = _fill(joined, given)
    assert isinstance(filled, dict)
    return filled


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Tables key by key; what ``other`` says counts."""
    found = copy.deepcopy(dict(one))
    for name, value in other.items():
        is_joined = name in _JOINED and isinstance(found.get(name), dict) and isinstance(value, dict)
        found[name] = _joined(found[name], value) if is_joined else copy.deepcopy(value)
    return found


def _fill(value: Any, given: Mapping[str, str]) -> Any:
    if isinstance(value, str):
        return _MARK.sub(lambda found: given[found[1]], value)
    if isinstance(value, list):
        return [_fill(item, given) for item in value]
    if isinstance(value, dict):
        return {key: _fill(item, given) for key, item in value.items() if not _is_nothing(item, given)}
    return value


def _is_nothing(value: object, given: Mapping[str, str]) -> bool:
    """Whether it is a parameter that stands alone and is empty."""
    found = _MARK.fullmatch(value) if isinstance(value, str) else None
    return found is not None and given[found[1]] == ""


def _problems(
    table: dict[str, Any], role: str, lines: Mapping[KeyPath, int], root: str
) -> list[dict[str, Any]]:
    """The problems that the reader of ``instep.toml`` finds in the settings, under their names in the recipe."""
    top = ("filesets", _FILESET)
    moved = {
        (*top, *path[1:]): line for part in (BOTH, role) for path, line in lines.items() if path[0] == part
    }
    writer = _HERE if role == WRITTEN else _ELSEWHERE
    document = {"name": _HERE, "filesets": {_FILESET: {"path": root, "writer": writer, **table}}}
    reading = Reading(lambda: moved)
    read_settings(Table(reading, (), document), "")
    found = []
    for each in reading.problems:
        rest = tuple(each["key"].split("."))[2:]
        at = (role, *rest)
        while at[:-1] and at not in lines and (BOTH, *at[1:]) not in lines:
            at = at[:-1]
        part = role if at in lines and len(at) > 1 else BOTH if (BOTH, *at[1:]) in lines else role
        found.append({**each, "key": ".".join((part, *rest))})
    return found


def _refusal(file: Path, problems: list[dict[str, Any]]) -> ConfigError:
    return ConfigError(
        f"recipe {file} has {counted(problems)}",
        hint=f"edit {file}, then: instep recipe show {file.stem}",
        code="bad_recipe",
        file=str(file),
        problems=by_line(problems),
    )
