"""Hooks in ``instep.toml``: their keys, their slots, and the conflicts."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from instep.fleet.hooks.http import is_unverified
from instep.fleet.hooks.small import SIGNALS
from instep.fleet.hooks.spec import HookSpec, TlsMode
from instep.node.config.keys import key, section, sections_of
from instep.node.config.kinds import (
    BadValue,
    ValueKind,
    boolean,
    choice,
    enum_of,
    matching,
    string,
    whole_number,
)
from instep.node.config.table_reader import Reading, Table
from instep.node.config.toml_lines import KeyPath, element, path_text
from instep.node.config.values import absolute_path, count, duration_ms, patterns, program

HOOKS_MAX = 32
"""Hooks in one slot."""
NO_TIME = "must be longer than nothing: every wait has a deadline"
_KINDS = ("run", "http", "signal", "touch", "systemd")
_GO_WITH = {
    "http": ("auth_file", "headers_file", "body", "tls", "expect_status", "expect_body"),
    "run": ("user", "tree"),
    "signal": ("pid_file",),
}
ON_COLLISION = "on_collision"
_OF_THE_WHOLE = ("freeze", "thaw", "repair", "on_failure")
_SECRET = "lies in the fileset: the secret would be carried to partners"
_APART = {
    "auth_file": _SECRET,
    "headers_file": _SECRET,
    "touch": "lies in the fileset: touching it would be a change of the tree",
    "pid_file": "lies in the fileset: a writer of the fileset would choose the process that gets the signal",
}


def _request(raw: object) -> tuple[str, str]:
    method, _, url = string(raw).partition(" ")
    if method not in ("GET", "POST", "PUT", "DELETE", "HEAD") or not re.match(r"https?://[^/\s]+", url):
        raise BadValue('is not a request such as "POST http://localhost:8080/reload"')
    if "@" in url.split("//", 1)[1].split("/", 1)[0]:
        raise BadValue("has a user or password in the URL; put them into a file and name it with auth_file")
    return method, url


def _unit(raw: object) -> tuple[str, str]:
    verb, _, unit = string(raw).partition(" ")
    verbs = ("reload", "restart", "start", "try-reload-or-restart")
    if verb not in verbs or not re.fullmatch(r"[A-Za-z0-9_@:.\\][A-Za-z0-9_@:.\\-]{0,255}", unit):
        raise BadValue(f'is not one of {", ".join(verbs)} and a unit, such as "reload apache2.service"')
    return verb, unit


http_status = whole_number(100, 599, "is not an HTTP status such as 200")
user_name = matching("[A-Za-z_][A-Za-z0-9_.-]{0,31}", "is not the name of a user")


@dataclass(frozen=True, slots=True, kw_only=True)
class HookSettings:
    """One thing to do. Exactly one of ``run``, ``http``, ``signal``, ``touch`` and ``systemd`` is set."""

    run: tuple[str, ...] = key(None, program, absent=())
    """A program and its arguments; no shell."""
    http: tuple[str, str] | None = key(None, ValueKind(_request, " ".join))
    """A method and a URL."""
    timeout_ms: int = key("30s", duration_ms)
    """Deadline of one attempt."""
    retries: int = key(0, count)
    """Further attempts after a failure."""
    auth_file: Path | None = key(None, absolute_path)
    """A file (mode 0600) with `user:password` or a bearer token."""
    expect_status: int | None = key(None, http_status)
    """The status that means success; any 2xx when not given."""
    expect_body: str | None = key(None, string)
    """A text that the answer must contain."""
    headers_file: Path | None = key(None, absolute_path)
    """A file (mode 0600) with lines such as `X-Key: secret`."""
    body: str | None = key(None, string)
    """The body that the request sends."""
    tls: TlsMode = key("strict", enum_of(TlsMode))
    """`strict`: only certificates of a known authority; `noverify`: any certificate; `none`: plain HTTP to other
    machines. Status warns of the last two."""
    user: str | None = key(None, user_name)
    """The user that `run` runs as, with that user's groups only; the daemon must be root."""
    signal: str | None = key(None, choice(*SIGNALS))
    """For the process in `pid_file`: HUP, USR1, USR2, WINCH, TERM."""
    pid_file: Path | None = key(None, absolute_path)
    """Where the process of `signal` writes its number."""
    touch: Path | None = key(None, absolute_path)
    """A file whose time is set to now; made when it is missing."""
    systemd: tuple[str, str] | None = key(None, ValueKind(_unit, " ".join))
    """`reload`, `restart`, `start` or `try-reload-or-restart`, and a unit."""
    tree: bool = key(False, boolean)
    """Only `validate`: `INSTEP_TREE` is the whole tree as it will be."""
    paths: tuple[str, ...] = key([], patterns)
    """Gitignore patterns: it runs only when a changed path matches."""
    writes: tuple[str, ...] = key([], patterns)
    """Gitignore patterns: paths that the application writes meanwhile: the hook does not run again for them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HooksSettings:
    """Each slot's hooks, in the order of the file."""

    validate: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)
    freeze: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)
    thaw: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)
    reload: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)
    probe: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)
    repair: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)
    on_failure: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)
    on_collision: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)


def read_hooks(table: Table, root: Path | None) -> HooksSettings:
    """All slots of the fileset in ``root``."""
    table.read(HooksSettings)
    slots = [slot.name for slot in sections_of(HooksSettings) if slot.name in table.raw]
    return HooksSettings(**{slot: read_slot(table, slot, root) for slot in slots})


def check_heard(table: Table, slot: str, hooks: Iterable[HookSettings], owner: str) -> None:
    """A hook of a slot that gets what happened, once for all paths of the ``owner``."""
    for hook in hooks:
        if not (hook.run or hook.http):
            table.wrong(slot, "needs run or http: no other hook gets what happened")
        if hook.paths or hook.writes:
            table.wrong(slot, f"has no paths and no writes: it is called for all paths of the {owner}")


def read_slot(table: Table, slot: str, root: Path | None) -> tuple[HookSettings, ...]:
    """One table, or an array of tables."""
    raw, path = table.raw[slot], (*table.path, slot)
    if not isinstance(raw, list):
        found = [read_hook(table.reading, path, raw, slot, root)]
    else:
        if len(raw) > HOOKS_MAX:
            table.wrong(slot, f"holds {len(raw)} hooks, the limit is {HOOKS_MAX}", len(raw))
        paths = [(*path, element(index)) for index in range(HOOKS_MAX)]
        found = [read_hook(table.reading, *each, slot, root) for each in zip(paths, raw, strict=False)]
    return tuple(hook for hook in found if hook is not None)


def read_hook(
    reading: Reading, path: KeyPath, raw: object, slot: str = "reload", root: Path | None = None
) -> HookSettings | None:
    """One hook; without ``root`` one that belongs to no fileset. None where it has a problem of its own."""
    before = len(reading.problems)
    table = Table.of(reading, path, raw)
    row = table.read(HookSettings)
    if len(reading.problems) > before:
        return None
    given = [kind for kind in _KINDS if row[kind]]
    if len(given) != 1:
        has = " and ".join(given) or "none"
        table.wrong("", f"needs exactly one of {', '.join(_KINDS)}, it has {has}")
        return None
    hook = HookSettings(**row)
    for name, why in _contradictions(hook, table.raw, given[0], slot):
        table.wrong(name, why)
    if hook.signal is not None and hook.pid_file is None:
        table.wrong("", "has signal but no pid_file")
    if hook.timeout_ms < 1:
        table.wrong("timeout", NO_TIME, 0)
    if hook.http is not None:
        check_tls(table, hook.tls, {"": hook.http[1]})
    if root is not None:
        check_apart(table, hook, root)
    return hook


def _contradictions(
    hook: HookSettings, raw: dict[str, Any], kind: str, slot: str
) -> Iterable[tuple[str, str]]:
    """Keys that do not go with the hook's kind, or with its slot."""
    for owner, names in _GO_WITH.items():
        if owner != kind:
            yield from ((name, f"goes with {owner}, not with {kind}") for name in names if name in raw)
    if hook.paths and slot in _OF_THE_WHOLE:
        yield "paths", f"does not go with {slot}, which is for the whole fileset"
    if hook.writes and slot in _OF_THE_WHOLE:
        yield "writes", "goes with validate, reload and probe, which run for each generation"
    if hook.tree and slot != "validate":
        yield "tree", "goes with validate, which looks at what is not live yet"
    if hook.tree and hook.user:
        yield "tree", "does not go with user: only this daemon's own user can read staged files"


def check_tls(table: Table, tls: TlsMode, urls: Mapping[str, str]) -> None:
    """A request to another machine without a verified certificate must be asked for, and status says it. ``urls`` by
    the key that names them; empty where the table is one request, and ``tls`` is the key to change."""
    if tls is TlsMode.NONE and urls and not any(url.startswith("http:") for url in urls.values()):
        table.wrong("tls", "means plain http, but the URL is https; use strict or noverify", "none")
        return
    for name, url in urls.items():
        if not is_unverified(HookSpec(http=("GET", url), tls=tls)):
            continue
        is_plain = url.startswith("http:")
        if is_plain and tls is not TlsMode.NONE:
            shown = "" if name else f" ({url})"
            why = f'is plain http to another machine{shown}; use https, or write tls = "none"'
            table.wrong(name or "tls", why, url if name else tls.value)
            continue
        how = "over plain http" if is_plain else "without verifying the certificate"
        where = path_text((*table.path, name) if name else table.path)
        table.warn(name, f"{where} asks another machine {how} (tls = {tls.value})")


def check_apart(table: Table, settings: object, root: Path) -> None:
    """No secret, and nothing that a hook touches or trusts, may lie in what is carried."""
    for name, why in _APART.items():
        file: Path | None = getattr(settings, name, None)
        if file is not None and file.is_relative_to(root):
            table.wrong(name, why, str(file))
