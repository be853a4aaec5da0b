"""``config``: check the file, show what holds and where it comes from, make the daemon take it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from instep.cli.output import printable, say, table
from instep.cli.session import Session, command, group, pass_session

__all__ = ["config"]

config = group("config", "The configuration file of this node.")


@command("check", parent=config, example="instep config check /tmp/new.toml")
@click.argument("file", required=False, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_session
def config_check(session: Session, file: Path | None) -> None:
    """Read a configuration as the daemon would; all problems are told at once (exit 3)."""
    from instep.node.config import parse

    if file is None:
        settings = session.settings()
        file = session.node.config
    else:
        settings = parse(file.read_text(), directory=session.node.path, path=file)
    document = {
        "ok": True,
        "file": str(file),
        "fingerprint": settings.fingerprint,
        "warnings": list(settings.warnings),
    }

    def text() -> None:
        for warning in settings.warnings:
            say(f"instep: {warning}")
        print(f"{file} is right")

    session.show(document, text)


@command("show", parent=config, example="instep config show --origin")
@click.option("--origin", is_flag=True, help="Also show the line of each value, or `default`.")
@pass_session
def config_show(session: Session, origin: bool) -> None:
    """Every setting with its value, defaults included."""
    import tomllib

    from instep.node.toml_lines import key_lines

    session.settings()
    text = session.node.config.read_text()
    lines = key_lines(text)
    rows = list(_effective(tomllib.loads(text)))
    values: list[dict[str, Any]] = []
    for path, value in rows:
        line = lines.get(path)
        values.append(
            {"key": ".".join(path), "value": value, "origin": f"line {line}" if line else "default"}
        )

    def show() -> None:
        shown = [
            [v["key"], "-" if v["value"] is None else json.dumps(v["value"], ensure_ascii=False)]
            for v in values
        ]
        table([[*row, v["origin"]] if origin else row for row, v in zip(shown, values, strict=True)])

    session.show({"file": str(session.node.config), "settings": values}, show)


def _effective(document: dict[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every key with the value as written or its default, in the order of the reference."""
    from instep.node import config_keys as keys
    from instep.node.golden_keys import GOLDEN, REQUEST

    def rows(path: tuple[str, ...], raw: dict[str, Any], known: tuple[keys.Key, ...]) -> Iterator[Any]:
        for key in known:
            yield (*path, key.name), raw.get(key.name, None if key.is_required else key.default)

    name = document["name"]
    yield from rows((), document, keys.NODE)
    for partner, raw in document.get("partners", {}).items():
        yield from rows(("partners", partner), raw, keys.PARTNER)
    for fileset, raw in document.get("filesets", {}).items():
        path = ("filesets", fileset)
        is_here = raw.get("writer") == name
        yield from rows(path, raw, tuple(key for key in keys.FILESET if is_here or not key.travels))
        yield from rows((*path, "archive"), raw.get("archive", {}), keys.ARCHIVE)
        for kind, slot in raw.get("hooks", {}).items():
            for hook in slot if isinstance(slot, list) else [slot]:
                shown = rows((*path, "hooks", kind), hook, keys.HOOK)
                yield from ((p, v) for p, v in shown if v is not None)
        if golden := raw.get("golden"):
            yield from ((p, v) for p, v in rows((*path, "golden"), golden, GOLDEN) if v is not None)
            for one, request in golden.get("requests", {}).items():
                shown = rows((*path, "golden", "requests", one), request, REQUEST)
                yield from ((p, v) for p, v in shown if v is not None)
    for fact, raw in document.get("facts", {}).items():
        yield from ((p, v) for p, v in rows(("facts", fact), raw, keys.FACT) if v is not None)


@command("reload", parent=config, example="instep config reload")
@pass_session
def config_reload(session: Session) -> None:
    """Make the running daemon take the file; a wrong file changes nothing and is told."""
    document = session.call("reload_config", 60.0)

    def text() -> None:
        for warning in document.get("warnings") or ():
            say(f"instep: {printable(warning)}")
        print(
            "the daemon runs this configuration" if document.get("changed", True) else "nothing has changed"
        )

    session.show(document, text)
