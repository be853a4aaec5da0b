"""Read ``instep.toml`` into frozen ``Settings``: strict, whole, with every problem at once.

``load`` and ``parse`` either return settings that can be run, or raise one ``ConfigError`` whose
``facts["problems"]`` lists ``{"line", "key", "value", "why"}`` for everything that is wrong. Whether the
named paths exist is not a matter of configuration: the daemon and ``instep check`` look.
"""

from __future__ import annotations

import codecs
import os
from functools import partial
from pathlib import Path
from typing import Any

from blake3 import blake3

from instep.errors import ConfigError
from instep.model.counts import sized
from instep.node.config.settings import Settings, read_settings
from instep.node.config.table_reader import by_line, counted, problem, top_table

FILE_BYTES_MAX = 1 << 20
_MARKS = (codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def load(directory: Path) -> Settings:
    """The settings of the node in ``directory``; ``ConfigError`` also when the file cannot be read."""
    path = directory / "instep.toml"
    try:
        text = read_text(path)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no node in {directory}",
            hint=f"instep --dir {directory} init",
            code="no_node",
            directory=str(directory),
        ) from None
    return parse(text, directory=directory, path=path)


def read_text(path: Path, *, named: Path | None = None) -> str:
    """The text of a configuration, line ends as they are. ``FileNotFoundError`` when it is not there, ``ConfigError``
    when it cannot be read or is no UTF-8 text. With ``named``, the path for people, no link is followed."""
    flags = os.O_RDONLY | os.O_CLOEXEC | (0 if named is None else os.O_NOFOLLOW)
    try:
        with os.fdopen(os.open(path, flags), "rb") as file:
            path = named or path
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}", code="unreadable_configuration") from error
    if len(raw) > FILE_BYTES_MAX:
        raise ConfigError(f"{path} is larger than {sized(FILE_BYTES_MAX)}", code="unreadable_configuration")
    if raw.startswith(_MARKS):
        why = "begins with a byte order mark; save it as UTF-8 without one"
        raise _refusal(path, [problem(1, "", None, why)])
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise _refusal(path, [problem(line, "", None, "is not UTF-8")]) from None


def parse(text: str, *, directory: Path | None = None, path: Path | None = None) -> Settings:
    """The settings that ``text`` describes. ``directory`` is the node directory: no fileset may hold it."""
    top = top_table(text, partial(_refusal, path), directory)
    fingerprint = blake3(text.encode()).hexdigest()[:16]
    settings = read_settings(top, fingerprint)
    if settings is None or top.reading.problems:
        raise _refusal(path, top.reading.problems)
    return settings


def _refusal(path: Path | None, problems: list[dict[str, Any]]) -> ConfigError:
    file = str(path or "instep.toml")
    return ConfigError(
        f"{file} has {counted(problems)}",
        hint=f"edit {file}, then: instep config check",
        code="bad_configuration",
        file=file,
        problems=by_line(problems),
    )
