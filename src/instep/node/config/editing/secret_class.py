"""What no edit of a command takes from a fileset: the protection of its keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from instep.errors import RefusedError
from instep.model.definition import FilesetClass


def require_class_kept(before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
    """``RefusedError`` ``class_is_secret`` where a fileset that is written here was of class secret and is of another
    one now: its next publish would send the keys to every partner. ``after`` is a right configuration."""
    secret = FilesetClass.SECRET.value
    for name, row in after.get("filesets", {}).items():
        was = before.get("filesets", {}).get(name, {})
        is_written = row["writer"] == after["name"]
        if is_written and was.get("class") == secret and row.get("class") != secret:
            raise RefusedError(
                f"{name} is of class secret and stays so: of another class, it would carry its keys to every partner",
                hint=f"for files that are no keys: instep fileset add {name}-data PATH --class data",
                code="class_is_secret",
            )
