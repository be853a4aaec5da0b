"""``config``: check the file, show what holds and where it comes from, make the daemon take it."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from instep.api.filesets import ReloadConfigCommand
from instep.cli.output import printable, say, table
from instep.cli.session import EXISTING_FILE, Session, command, group
from instep.node.config.keys import keys_of, sections_of
from instep.node.config.loading import parse, read_text
from instep.node.config.settings import Settings
from instep.node.config.toml_lines import key_lines

config = group("config", "The configuration file of this node.")


@command("check", parent=config, example="instep config check /tmp/new.toml")
@click.argument("file", required=False, type=EXISTING_FILE)
def config_check(session: Session, file: Path | None) -> None:
    """Read a configuration as the daemon would; it names all problems at once (exit 3)."""
    if file is None:
        settings = session.settings()
        file = session.node.config
    else:
        settings = parse(read_text(file), directory=session.node.path, path=file)
    document = {
        "ok": True,
        "file": str(file),
        "fingerprint": settings.fingerprint,
        "warnings": list(settings.warnings),
    }
    if not session.gave_json(document):
        for warning in settings.warnings:
            say(f"instep: {warning}")
        print(f"{file} is right")


@command("show", parent=config, example="instep config show --origin")
@click.option("--origin", is_flag=True, help="Also show the line of each value, or `default`.")
def config_show(session: Session, origin: bool) -> None:
    """Every setting with its value, defaults included."""
    session.settings()
    text = read_text(session.node.config)
    lines = key_lines(text)
    rows = list(_effective(tomllib.loads(text)))
    origins = {path: f"line {lines[path]}" if lines.get(path) else "default" for path, _ in rows}
    values = [{"key": ".".join(path), "value": value, "origin": origins[path]} for path, value in rows]
    if not session.gave_json({"file": str(session.node.config), "settings": values}):
        shown = [
            [v["key"], "-" if v["value"] is None else json.dumps(v["value"], ensure_ascii=False)]
            for v in values
        ]
        table([[*row, v["origin"]] if origin else row for row, v in zip(shown, values, strict=True)])


def _effective(document: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key with the value as written or its default, in the order of the reference."""
    yield from _rows((), document, Settings, str(document["name"]))


def _rows(
    path: tuple[str, ...], raw: dict[str, Any], table: type, node: str, *, is_whole: bool = True
) -> Iterator[tuple[tuple[str, ...], Any]]:
    """One table and the tables below it. Of a table that need not be there only what is set is shown, and of a fileset
    that is followed here nothing that travels."""
    is_followed = raw.get("writer", node) != node
    for key in keys_of(table):
        value = raw.get(key.name, None if key.is_required else key.default)
        if not (is_followed and key.travels) and (is_whole or value is not None):
            yield (*path, key.name), value
    for section in sections_of(table):
        below = raw.get(section.name, {})
        if is_followed and section.travels:
            continue
        if section.is_named:
            found: list[tuple[tuple[str, ...], Any]] = [
                ((section.name, name), one) for name, one in below.items()
            ]
        else:
            found = [((section.name,), one) for one in (below if isinstance(below, list) else [below])]
        for names, one in found:
            if section.is_whole or (one and isinstance(one, dict)):  # a port of a balancer can be "off"
                yield from _rows((*path, *names), one, section.table, node, is_whole=section.is_whole)


@command("reload", parent=config, example="instep config reload")
def config_reload(session: Session) -> None:
    """Make the running daemon take the file; a wrong file changes nothing, and its problems are named."""
    document = session.call(ReloadConfigCommand(), 60.0)
    if not session.gave_json(document):
        for warning in (*session.settings().warnings, *document.troubles):
            say(f"instep: {printable(warning)}")
        already = "" if document.changed else " already: it takes a changed file by itself"
        print(f"the daemon runs this configuration{already}")
