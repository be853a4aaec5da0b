"""Reads ``[filesets.NAME.golden]`` and the requests in it."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from instep.fleet.hook_spec import HookSpec, TlsMode
from instep.fleet.http_hook import is_unverified
from instep.node import golden_keys as keys
from instep.node.settings import GoldenRequest, GoldenSettings
from instep.node.toml_lines import KeyPath

if TYPE_CHECKING:
    from instep.node.config_reader import Reader

__all__ = ["read_golden"]

_GO_WITH = {"ignore": "digest", "tolerance": "image", "max_share": "image"}


def read_golden(reader: Reader, path: KeyPath, raw: object, root: Path | None) -> GoldenSettings:
    """The settings of the fileset at ``root``; problems go to ``reader``."""
    table = reader.table(path, raw)
    row = reader.read(path, table, keys.GOLDEN, ("requests",))
    where: KeyPath = (*path, "requests")
    tables = reader.table(where, table.get("requests", {}))
    if len(tables) > keys.REQUESTS_MAX:
        reader.wrong(where, len(tables), f"holds {len(tables)} requests, the limit is {keys.REQUESTS_MAX}")
    found = [_request(reader, (*where, name), name, each) for name, each in tables.items()]
    if row["timeout"] < 1:
        reader.wrong((*path, "timeout"), 0, "must be longer than nothing: every wait has a deadline")
    if tables and row["url"] is None and row["balancer"] is None:
        reader.wrong((*path, "url"), None, "is missing: whom to ask the requests")
    if table and not tables:
        reader.wrong(where, None, "is missing: there is nothing to ask")
    settings = GoldenSettings(
        url=row["url"],
        balancer=row["balancer"],
        timeout_ms=row["timeout"],
        retries=row["retries"],
        auth_file=row["auth_file"],
        headers_file=row["headers_file"],
        tls=row["tls"],
        requests=tuple(found),
    )
    _check_tls(reader, path, settings)
    if root is not None:
        _check_files(reader, path, settings, root)
    return settings


def _request(reader: Reader, path: KeyPath, name: str, raw: object) -> GoldenRequest:
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        reader.wrong(path, name, "is not a name of letters, digits, '.', '_' and '-'")
    table = reader.table(path, raw)
    row = reader.read(path, table, keys.REQUEST)
    for key, kind in _GO_WITH.items():
        if key in table and row["compare"] != kind:
            reader.wrong((*path, key), table[key], f"goes with compare = {kind}, not with {row['compare']}")
    if row["compare"] == "image" and importlib.util.find_spec("PIL") is None:
        why = (
            "needs Pillow, which is not installed: pip install 'instep[images]', or compare digest or status"
        )
        reader.wrong((*path, "compare"), "image", why)
    method, target = row["request"] or ("GET", "/")
    if method == "HEAD" and row["compare"] != "status":
        reader.wrong(
            (*path, "compare"), row["compare"], "cannot be had from HEAD, which has no body; use status"
        )
    if row["body"] is not None and method != "POST":
        reader.wrong((*path, "body"), row["body"], f"goes with POST, not with {method}")
    return GoldenRequest(
        name=name,
        method=method,
        path=target,
        compare=row["compare"],
        expect_status=row["expect_status"],
        body=row["body"],
        ignore=row["ignore"],
        tolerance=row["tolerance"],
        max_share_percent=row["max_share"],
        is_change_expected=row["changes"] == "expected",
    )


def _check_tls(reader: Reader, path: KeyPath, settings: GoldenSettings) -> None:
    """As with hooks: what leaves the machine without a verified certificate must be asked for."""
    bases = {key: base for key in ("url", "balancer") if (base := getattr(settings, key)) is not None}
    if settings.tls == "none" and bases and all(base.startswith("https:") for base in bases.values()):
        reader.wrong((*path, "tls"), "none", "means plain http, but the URL is https; use strict or noverify")
    for key, base in bases.items():
        if not is_unverified(HookSpec(http=("GET", base), tls=TlsMode(settings.tls))):
            continue
        is_plain = base.startswith("http:")
        if is_plain and settings.tls != "none":
            why = 'is plain http to another machine; use https, or write tls = "none"'
            reader.wrong((*path, key), base, why)
            continue
        how = "over plain http" if is_plain else "without verifying the certificate"
        reader.warn(
            (*path, key), f"{'.'.join((*path, key))} asks another machine {how} (tls = {settings.tls})"
        )


def _check_files(reader: Reader, path: KeyPath, settings: GoldenSettings, root: Path) -> None:
    """No secret may lie in what is carried."""
    for key in ("auth_file", "headers_file"):
        file: Path | None = getattr(settings, key)
        if file is not None and file.is_relative_to(root):
            why = "lies in the fileset: the secret would be carried to partners"
            reader.wrong((*path, key), str(file), why)
