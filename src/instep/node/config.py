"""Read ``instep.toml`` into frozen ``Settings``: strict, whole, with every problem at once.

``load`` and ``parse`` either return settings that can be run, or raise one ``ConfigError`` whose
``facts["problems"]`` lists ``{"line", "key", "value", "why"}`` for everything that is wrong. Whether the
named paths exist is not a matter of configuration: the daemon and ``instep check`` look.
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from blake3 import blake3

from instep.errors import ConfigError
from instep.node.config_reader import Reader, problem
from instep.node.settings import (
    ArchivePolicy,
    FactSettings,
    FilesetSettings,
    HookSettings,
    HooksSettings,
    PartnerSettings,
    Settings,
)
from instep.node.toml_lines import key_lines

__all__ = [
    "ArchivePolicy",
    "FactSettings",
    "FilesetSettings",
    "HookSettings",
    "HooksSettings",
    "PartnerSettings",
    "Settings",
    "load",
    "parse",
]

FILE_BYTES_MAX = 1 << 20


def load(directory: Path) -> Settings:
    """The settings of the node in ``directory``; ``ConfigError`` also when the file cannot be read."""
    path = directory / "instep.toml"
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no node in {directory}",
            hint=f"instep --dir {directory} init",
            code="no_node",
            directory=str(directory),
        ) from None
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", code="unreadable_configuration") from error
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {FILE_BYTES_MAX} bytes", code="unreadable_configuration")
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise _refusal(
            path, [problem(raw[: error.start].count(b"\n") + 1, "", None, "is not UTF-8")]
        ) from None
    return parse(text, directory=directory, path=path)


def parse(text: str, *, directory: Path | None = None, path: Path | None = None) -> Settings:
    """The settings that ``text`` describes. ``directory`` is the node directory: no fileset may hold it."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, why = _syntax_error(str(error), text)
        raise _refusal(path, [problem(line, "", None, why)]) from None
    reader = Reader(document, key_lines(text), directory)
    settings = reader.settings(fingerprint=blake3(text.encode()).hexdigest()[:16])
    if settings is None or reader.problems:
        raise _refusal(path, sorted(reader.problems, key=lambda p: (p["line"] or 0, p["key"])))
    return settings


def _refusal(path: Path | None, problems: list[dict[str, Any]]) -> ConfigError:
    name = str(path or "instep.toml")
    told = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
    return ConfigError(
        f"{name} has {told}",
        hint=f"edit {name}, then: instep config check",
        code="bad_configuration",
        file=name,
        problems=problems,
    )


def _syntax_error(message: str, text: str) -> tuple[int, str]:
    """Line and sentence of a ``tomllib`` message, which ends in "(at line 3, column 5)"."""
    what, _, where = message.rpartition(" (at ")
    if where.startswith("line "):
        return int(where[5:].split(",")[0]), f"is not TOML: {what}"
    return text.count("\n") + 1, f"is not TOML: {what or message}"
