"""Relative paths as bytes: which bytes are a path, in which order paths stand, which path lies below which.

Implements the section "Paths" of ``docs/spec/manifest.md``.
"""

from __future__ import annotations

import base64

from instep.errors import PeerError
from instep.model.limits import COMPONENT_MAX, PATH_MAX

_RESERVED = b".instep"


def validated(raw: bytes) -> bytes:
    """``raw`` when it is a path that a manifest may carry, else ``PeerError`` with code ``bad_path``."""
    why = _why_not(raw)
    if why is not None:
        raise PeerError(f"path {shown(raw)} {why}", code="bad_path", path=shown(raw), why=why)
    return raw


def _why_not(raw: bytes) -> str | None:
    if not raw:
        return "is empty"
    if len(raw) > PATH_MAX:
        return f"is {len(raw)} bytes long, the limit is {PATH_MAX}"
    if b"\0" in raw:
        return "contains NUL"
    components = raw.split(b"/")
    for component in components:
        if component in (b"", b".", b".."):
            return "has an empty, '.' or '..' component"
        if len(component) > COMPONENT_MAX:
            return f"has a component of {len(component)} bytes, the limit is {COMPONENT_MAX}"
    if components[0][: len(_RESERVED)].lower() == _RESERVED:
        return "begins with the reserved name .instep"
    return None


def sort_key(path: bytes) -> bytes:
    """Bytewise with ``/`` as 0x00: the order of a sorted depth-first scan."""
    return path.replace(b"/", b"\0")


def parent_of(path: bytes) -> bytes:
    """The directory that holds ``path``; empty for the root's own children."""
    return path.rpartition(b"/")[0]


def is_below(path: bytes, directory: bytes) -> bool:
    """Whether ``path`` lies properly below ``directory`` (everything lies below the empty path)."""
    return not directory or path.startswith(directory + b"/")


def shown(path: bytes) -> str:
    """A path for people: UTF-8 with U+FFFD, control characters escaped."""
    text = path.decode("utf-8", "replace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def path_of_fields(path: str, path_b64: object) -> bytes:
    """The path that ``path_fields`` wrote; anything but a text as ``path_b64`` counts as none."""
    return base64.b64decode(path_b64) if isinstance(path_b64, str) else path.encode()


def path_fields(path: bytes) -> dict[str, str]:
    """``path`` and, where it is not UTF-8, ``path_b64``, as every ``--json`` output carries it."""
    try:
        return {"path": path.decode("utf-8")}
    except UnicodeDecodeError:
        return {
            "path": path.decode("utf-8", "replace"),
            "path_b64": base64.b64encode(path).decode("ascii"),
        }
