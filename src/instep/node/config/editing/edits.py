"""Edits of ``instep.toml``: comments and order kept, validated whole, replaced atomically.

Every function returns whether the file changed; the same edit again changes nothing. A file that would be
wrong is never written: ``ConfigError`` names all problems and the old file stays. Writers of the file
exclude each other by a lock on the node directory, and begin anew with what a person's editor saved meanwhile;
the daemon notices the new file by ``reload_config``.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from time import monotonic
from types import MappingProxyType
from typing import Any

import tomlkit
from tomlkit.exceptions import TOMLKitError
from tomlkit.items import Table

from instep.errors import ConfigError, ContentionError, RefusedError, ResourceError, UsageError
from instep.model.address import Address
from instep.net.trust.key_files import locked, write_file
from instep.node.config.editing.file_replacement import FoundFile
from instep.node.config.editing.secret_class import require_class_kept
from instep.node.config.editing.toml_items import merge, plain, toml_item
from instep.node.config.filesets import FilesetSettings
from instep.node.config.keys import key_at
from instep.node.config.kinds import BadValue
from instep.node.config.loading import parse, read_text
from instep.node.config.values import IpNetwork, network
from instep.node.directory import NodeDirectory

LOCK_WAIT_S = 5.0
EDIT_WITHIN_S = 10.0
"""So long an edit begins anew because a person's program saved the file meanwhile."""

Document = tomlkit.TOMLDocument


def create(node: NodeDirectory, top: Mapping[str, object]) -> bool:
    """Write the first ``instep.toml`` of a node; False when it exists alike, ``RefusedError`` otherwise."""
    if node.holds_node:
        running = tomllib.loads(read_text(node.config))
        other = {key: running.get(key) for key, value in top.items() if running.get(key, value) != value}
        if other:
            raise RefusedError(
                f"{node.path} holds node {running.get('name')} already, with other settings",
                hint=f"edit {node.config}, or choose another place with --dir",
                code="node_exists",
                ours=other,
                wanted={key: top[key] for key in other},
            )
        return False
    document = tomlkit.document()
    document.add(tomlkit.comment("The whole configuration of this node; see docs/reference/settings.md."))
    document.add(tomlkit.comment("Edit it by hand or with instep; then: instep config reload"))
    for key, value in top.items():
        document.add(key, value)
    text = tomlkit.dumps(document)
    parse(text, directory=node.path, path=node.config)
    node.create()
    with _locked(node):
        try:
            write_file(node.config, text.encode(), mode=0o600, of_node=True)
        except ResourceError as error:
            raise _not_written(node.config, getattr(error.__cause__, "strerror", error.reason)) from error
    return True


def edit(
    node: NodeDirectory,
    change: Callable[[Document], None],
    prepare: Callable[[], None] | None = None,
    *,
    is_dry: bool = False,
) -> bool:
    """Apply ``change`` to the parsed document and write it when it is right and differs; whether it differs. ``is_dry``
    writes nothing.

    ``prepare`` runs between, once the file is known to be right: it makes whatever must exist before the file names it.
    """
    node.require()
    with _locked(node):
        until_s = monotonic() + EDIT_WITHIN_S
        while (left_s := until_s - monotonic()) > 0:
            with FoundFile.read(node.config, min(LOCK_WAIT_S, left_s)) as file:
                if file is None:
                    break
                after = _changed(node, file.text, change)
                if after == file.text:
                    return False
                if is_dry:
                    return True
                if prepare is not None:
                    prepare()
                    prepare = None
                try:
                    if file.replace(after):
                        return True
                except OSError as error:
                    raise _not_written(file.path, error.strerror) from error
        raise _busy(node, "saves")


def _changed(node: NodeDirectory, before: str, change: Callable[[Document], None]) -> str:
    """The text after the change, which the daemon would take."""
    try:
        document = tomlkit.parse(before)
    except (TOMLKitError, ValueError, RecursionError) as error:
        parse(before, directory=node.path, path=node.config)  # names the line
        raise ConfigError(f"{node.config} is not TOML: {error}", code="bad_configuration") from error
    was = document.unwrap()
    change(document)
    after = tomlkit.dumps(document)
    if after != before:
        _require_right(node, before, after)
        require_class_kept(was, tomllib.loads(after))
    return after


def _require_right(node: NodeDirectory, before: str, after: str) -> None:
    """``ConfigError`` with every problem: of the file where it was wrong before, else of the new values, which stand in
    no line of the file."""
    try:
        parse(after, directory=node.path, path=node.config)
    except ConfigError as error:
        parse(before, directory=node.path, path=node.config)
        problems = [{**one, "line": None} for one in error.facts["problems"]]  # type: ignore[attr-defined]
        raise ConfigError(
            f"that is not a right configuration, and {node.config} stays as it is",
            hint="repeat the command with other values; the present ones: instep config show",
            code="bad_configuration",
            file=str(node.config),
            problems=problems,
        ) from error


def add_fileset(
    node: NodeDirectory,
    name: str,
    path: str,
    given: Mapping[str, object],
    prepare: Callable[[], None] | None = None,
) -> bool:
    """A fileset that is written here. ``given`` are the keys that the caller chose, as TOML values."""

    def change(document: Document) -> None:
        wanted = {"path": path, "writer": str(document.get("name")), **given}
        _put_fileset(document, name, wanted, fixed=tuple(wanted))

    return edit(node, change, prepare)


def accept_fileset(
    node: NodeDirectory,
    name: str,
    path: str,
    writer: str,
    given: Mapping[str, object],
    prepare: Callable[[], None] | None = None,
    ready: Mapping[str, object] = MappingProxyType({}),
) -> bool:
    """A fileset that is followed here; accepting again may change how it is followed, not where. ``ready`` are a
    recipe's settings: written to a new fileset, and refused where the file says otherwise by now."""

    def change(document: Document) -> None:
        wanted = {"path": path, "writer": writer, **given, **ready}
        _put_fileset(document, name, wanted, fixed=("path", "writer", *ready))

    return edit(node, change, prepare)


def set_fileset(
    node: NodeDirectory,
    name: str,
    assignments: Mapping[str, str],
    ready: Mapping[str, object] = MappingProxyType({}),
    *,
    is_dry: bool = False,
) -> bool:
    """``KEY=VALUE`` as typed; a dotted key reaches into ``archive`` and ``hooks``; an empty value unsets. ``ready`` are
    a recipe's settings: each takes the place of the present one, but lists are added to."""

    def change(document: Document) -> None:
        table = document.get("filesets", {}).get(name)
        if table is None:
            hint = f"instep fileset add {name} PATH"
            raise UsageError(f"there is no fileset {name} here", hint=hint, code="no_fileset", name=name)
        for key, value in ready.items():
            merge(table, key, value)
        for key, text in assignments.items():
            _assign(table, key, text)

    return edit(node, change, is_dry=is_dry)


def remove_fileset(node: NodeDirectory, name: str) -> bool:
    """Forget a fileset; its tree, archive and history stay where they are."""
    return edit(node, lambda document: _drop(document, "filesets", name))


def set_partner(node: NodeDirectory, name: str, wanted: Mapping[str, object]) -> bool:
    """List a partner, or change the given keys of its row (None unsets one). A new row starts with zeros."""

    def change(document: Document) -> None:
        row = partner_row(document, name, wanted)
        for key, value in wanted.items():
            if value is None:
                row.pop(key, None)
            elif row.get(key) != value:
                row[key] = value

    return edit(node, change)


def set_own_address(node: NodeDirectory, at: Address) -> bool:
    """The address at which others dial this node from now on. ``listen`` goes along where nothing would answer there:
    it has the port or the host that was advertised, or is loopback."""

    def change(document: Document) -> None:
        now = parse(tomlkit.dumps(document), directory=node.path, path=node.config)
        listen, was, host = now.listen, now.advertise, now.listen.host
        if listen.is_loopback and not at.is_loopback:
            host = "::" if ":" in at.host else "0.0.0.0"
        elif host == was.host and not listen.is_wildcard:
            host = at.host
        port = at.port if listen.port == was.port else listen.port
        if listen != (moved := Address(host, port)):
            document["listen"] = str(moved)
        if was != at:
            document["advertise"] = str(at)

    return edit(node, change)


def own_address(node: NodeDirectory) -> dict[str, str]:
    """``listen`` and ``advertise`` as the file has them, for ``put_back``."""
    written = tomllib.loads(read_text(node.config))
    return {key: written[key] for key in ("listen", "advertise") if key in written}


def put_back(node: NodeDirectory, before: Mapping[str, str]) -> bool:
    """After an address at which this node cannot listen: both keys as they were."""

    def change(document: Document) -> None:
        for key in ("listen", "advertise"):
            if key not in before:
                document.pop(key, None)
            elif document.get(key) != before[key]:
                document[key] = before[key]

    return edit(node, change)


def partner_row(document: Document, name: str, flags: Mapping[str, object] = MappingProxyType({})) -> Any:
    """The partner's row, to change; a new one lets nothing go there but what ``flags`` say."""
    partners = _section(document, "partners")
    if name not in partners:
        row = tomlkit.table()
        for key in ("replicate", "data", "hub"):
            row.add(key, bool(flags.get(key, False)))
        partners[name] = row
    return partners[name]


def remove_partner(node: NodeDirectory, name: str) -> bool:
    return edit(node, lambda document: _drop(document, "partners", name))


def allow_networks(node: NodeDirectory, networks: Sequence[str]) -> bool:
    """Add networks to ``allow``; networks that are listed already stay as they are."""

    def change(document: Document) -> None:
        if "allow" not in document:
            document.add("allow", tomlkit.array())
        allow = document["allow"]
        for one in networks:
            if network(one) not in {network(old) for old in allow}:
                allow.append(one)

    return edit(node, change)


def disallow_networks(node: NodeDirectory, networks: Sequence[IpNetwork]) -> bool:
    """Take networks out of ``allow``, however they are written there."""

    def change(document: Document) -> None:
        allow = document.get("allow", [])
        for index in reversed(range(len(allow))):
            if network(allow[index]) in networks:
                del allow[index]

    return edit(node, change)


def _put_fileset(document: Document, name: str, wanted: Mapping[str, object], fixed: tuple[str, ...]) -> None:
    filesets = _section(document, "filesets")
    table = filesets.get(name)
    if table is None:
        filesets[name] = toml_item(wanted)
        return
    differing = {key: plain(table.get(key)) for key in fixed if plain(table.get(key)) != wanted[key]}
    if differing:
        raise RefusedError(
            f"fileset {name} exists with "
            + ", ".join(f"{key} = {value!r}" for key, value in differing.items()),
            hint=f"instep fileset set {name} KEY=VALUE or recipe=RECIPE; or first: instep fileset remove {name}",
            code="fileset_exists",
            ours=differing,
            wanted={key: wanted[key] for key in differing},
        )
    for key, value in wanted.items():
        if plain(table.get(key)) != value:
            table[key] = toml_item(value) if isinstance(value, Mapping) else value


def _assign(table: Table, key: str, text: str) -> None:
    """Set or unset one key; a value is TOML where it can be read as such, else a text."""
    *folders, last = key.split(".")
    if not last or not all(folders):
        raise UsageError(f"{key!r} is not a key", hint="write KEY=VALUE, e.g. settle=5ms", code="bad_key")
    for folder in folders:
        if folder not in table:
            if not text:
                return
            table[folder] = tomlkit.table()
        inner = table[folder]
        if not isinstance(inner, MutableMapping):
            raise UsageError(
                f"{folder} in {key} is not a table",
                hint="edit instep.toml, then: instep config reload",
                code="bad_key",
            )
        table = inner  # type: ignore[assignment]
    if not text:
        table.pop(last, None)
        return
    value = _typed(key, text)
    if plain(table.get(last)) != value:
        table[last] = value


def _typed(key: str, text: str) -> object:
    """The value that the key can read: the text as TOML, its parts between commas, or the text itself."""
    try:
        value = tomllib.loads(f"v = {text}")["v"]
    except tomllib.TOMLDecodeError:
        value = text
    if not isinstance(value, bool | int | list | dict | str):
        value = text
    declared = key_at(FilesetSettings, key.split("."))
    if declared is None:
        return value
    if declared.kind.is_list:
        return value if isinstance(value, list) else [item.strip() for item in text.split(",")]
    try:
        declared.kind(value)
    except BadValue:
        return text
    return value


def _section(document: Document, name: str) -> Any:
    if name not in document:
        document[name] = tomlkit.table(is_super_table=True)
    return document[name]


def _drop(document: Document, section: str, name: str) -> None:
    if name in document.get(section, {}):
        del document[section][name]


def _locked(node: NodeDirectory) -> AbstractContextManager[None]:
    """Exclude other editors; ``ContentionError`` when one of them holds on for more than five seconds."""
    return locked(node.path, os.O_RDONLY | os.O_DIRECTORY, LOCK_WAIT_S, _busy(node, "edits"))


def _busy(node: NodeDirectory, does: str) -> ContentionError:
    return ContentionError(
        f"another program {does} {node.config}", hint="retry in a moment", code="configuration_locked"
    )


def _not_written(path: Path, why: str | None) -> ResourceError:
    return ResourceError(f"cannot write {path}: {why}", code="configuration_not_written", path=str(path))
