"""Templates and static files, read once from the package. Static files are served from a table under names with their
digest: no path of a request ever becomes a path of this machine.
"""

from __future__ import annotations

import functools
import importlib.resources
from dataclasses import dataclass
from typing import Any

import jinja2
from blake3 import blake3

KINDS = {"css": "text/css; charset=utf-8", "js": "text/javascript; charset=utf-8", "svg": "image/svg+xml"}
_FOLDER = "instep.panel.pages"


@dataclass(frozen=True, slots=True)
class StaticFile:
    """A file with its content type."""

    body: bytes
    kind: str


class StaticFiles:
    """The files by the name in their URL, and the URL by the plain name."""

    def __init__(self) -> None:
        self.by_name: dict[str, StaticFile] = {}
        self.urls: dict[str, str] = {}
        for found in (importlib.resources.files(_FOLDER) / "static").iterdir():
            stem, _, suffix = found.name.rpartition(".")
            if suffix in KINDS:
                body = found.read_bytes()
                name = f"{stem}.{blake3(body).hexdigest(length=8)}.{suffix}"
                self.by_name[name] = StaticFile(body, KINDS[suffix])
                self.urls[found.name] = f"/static/{name}"


class _Templates(jinja2.BaseLoader):
    """Of the package, also where that is a zip file."""

    def get_source(self, environment: jinja2.Environment, template: str) -> tuple[str, None, Any]:
        found = importlib.resources.files(_FOLDER) / "templates" / template
        return found.read_text("utf-8"), None, lambda: True


@functools.cache
def templates() -> jinja2.Environment:
    """Everything is escaped, and a name that is not there is an error."""
    return jinja2.Environment(
        loader=_Templates(),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
