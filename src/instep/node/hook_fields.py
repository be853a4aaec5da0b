"""The hook tables of ``instep.toml``: from what is written to ``HooksSettings``, with every problem at its own line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from instep.fleet.hook_spec import HookSpec, TlsMode
from instep.fleet.http_hook import is_unverified
from instep.node import config_keys as keys
from instep.node.hook_settings import HookSettings
from instep.node.settings import HooksSettings
from instep.node.toml_lines import KeyPath, element, path_text

if TYPE_CHECKING:
    from instep.node.config_reader import Reader

__all__ = ["read_hook", "read_hooks"]

GO_WITH = {
    "http": ("auth_file", "headers_file", "body", "tls", "expect_status", "expect_body"),
    "run": ("user", "tree"),
    "signal": ("pid_file",),
}


def read_hooks(reader: Reader, path: KeyPath, raw: dict[str, Any], root: Path | None) -> HooksSettings:
    reader.read(path, raw, (), keys.HOOKS)
    return HooksSettings(
        **{name: _slot(reader, (*path, name), raw[name], root) for name in keys.HOOKS if name in raw}
    )


def read_hook(reader: Reader, path: KeyPath, raw: object) -> HookSettings | None:
    """A ``reload`` that belongs to no fileset."""
    return _hook(reader, path, raw, "reload", None)


def _slot(reader: Reader, path: KeyPath, raw: object, root: Path | None) -> tuple[HookSettings, ...]:
    """One table, or an array of tables, of the fileset in ``root``."""
    if not isinstance(raw, list):
        hook = _hook(reader, path, raw, path[-1], root)
        return () if hook is None else (hook,)
    if len(raw) > keys.HOOKS_MAX:
        reader.wrong(path, len(raw), f"holds {len(raw)} hooks, the limit is {keys.HOOKS_MAX}")
    found = [
        _hook(reader, (*path, element(index)), table, path[-1], root)
        for index, table in enumerate(raw[: keys.HOOKS_MAX])
    ]
    return tuple(hook for hook in found if hook is not None)


def _hook(reader: Reader, path: KeyPath, raw: object, slot: str, root: Path | None) -> HookSettings | None:
    before = len(reader.problems)
    row = reader.read(path, reader.table(path, raw), keys.HOOK)
    if len(reader.problems) > before or not isinstance(raw, dict):
        return None
    kinds = ("run", "http", "signal", "touch", "systemd")
    given = [kind for kind in kinds if row[kind] is not None]
    if len(given) != 1:
        reader.wrong(
            path, raw, f"needs exactly one of {', '.join(kinds)}, it has {' and '.join(given) or 'none'}"
        )
        return None
    for kind, names in GO_WITH.items():
        for name in names:
            if name in raw and given != [kind]:
                reader.wrong((*path, name), raw[name], f"goes with {kind}, not with {given[0]}")
    if given == ["signal"] and row["pid_file"] is None:
        reader.wrong(path, raw, "has signal but no pid_file")
    if row["paths"] and slot in ("freeze", "thaw", "repair", "on_failure"):
        reader.wrong(
            (*path, "paths"), raw["paths"], f"does not go with {slot}, which is for the whole fileset"
        )
    if row["tree"] and slot != "validate":
        reader.wrong((*path, "tree"), True, "goes with validate, which looks at what is not live yet")
    if row["tree"] and row["user"]:
        why = "does not go with user: what is staged can be read by this daemon's own user only"
        reader.wrong((*path, "tree"), True, why)
    if row["timeout"] < 1:
        reader.wrong((*path, "timeout"), 0, "must be longer than nothing: every wait has a deadline")
    fields = {name: row[name] for name in row if name != "timeout"}
    hook = HookSettings(timeout_ms=row["timeout"], **{**fields, "run": row["run"] or ()})
    _check_tls(reader, path, hook)
    if root is not None:
        _check_files(reader, path, hook, root)
    return hook


def _check_tls(reader: Reader, path: KeyPath, hook: HookSettings) -> None:
    """What is told to another machine without a verified certificate must be asked for, and is said in status."""
    if hook.http is None:
        return
    is_plain = hook.http[1].startswith("http:")
    if hook.tls == "none" and not is_plain:
        reader.wrong((*path, "tls"), "none", "means plain http, but the URL is https; use strict or noverify")
    elif is_unverified(HookSpec(http=hook.http, tls=TlsMode(hook.tls))):
        if is_plain and hook.tls != "none":
            why = f'is plain http to another machine ({hook.http[1]}); use https, or write tls = "none"'
            reader.wrong((*path, "tls"), hook.tls, why)
            return
        how = "over plain http" if is_plain else "without verifying the certificate"
        reader.warn(path, f"{path_text(path)} asks another machine {how} (tls = {hook.tls})")


def _check_files(reader: Reader, path: KeyPath, hook: HookSettings, root: Path) -> None:
    secret = "lies in the fileset: the secret would be carried to partners"
    named = {
        "auth_file": secret,
        "headers_file": secret,
        "touch": "lies in the fileset: touching it would be a change of the tree",
        "pid_file": "lies in the fileset: who writes there would choose what gets the signal",
    }
    for key, why in named.items():
        file: Path | None = getattr(hook, key)
        if file is not None and file.is_relative_to(root):
            reader.wrong((*path, key), str(file), why)
