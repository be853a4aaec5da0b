"""A hook table of ``instep.toml``: from the values that were read to the fields of ``HookSettings``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["GO_WITH", "hook_fields"]

GO_WITH = {
    "http": ("auth_file", "headers_file", "body", "tls", "expect_status", "expect_body"),
    "run": ("user", "tree"),
    "signal": ("pid_file",),
}


def hook_fields(row: Mapping[str, Any]) -> dict[str, Any]:
    fields = {name: row[name] for name in row if name != "timeout"}
    return {**fields, "run": row["run"] or ()}
