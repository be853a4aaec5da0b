"""Views: each asks commands for one page, or gives one for a form. Draws nothing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from instep.panel.pages.views import acts, cluster, collisions, filesets, overview
from instep.panel.pages.visit import Page, Visit

Show = Callable[[Visit], Awaitable[Page | str]]
"""A page, or the path of the page that shows the effect of an act."""
_PART = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True)
class View:
    """A page at a path."""

    method: str
    path: str
    show: Show

    @property
    def form(self) -> re.Pattern[str]:
        return re.compile(_PART.sub(r"(?P<\1>[^/]+)", self.path))


_FILESET = "/filesets/{fileset}"
VIEWS: tuple[View, ...] = (
    View("GET", "/", overview.overview),
    View("GET", "/map", cluster.map_of_nodes),
    View("GET", "/nodes", cluster.nodes),
    View("GET", "/events", cluster.events),
    View("GET", "/collisions", collisions.collisions),
    View("GET", "/collisions/{id}", collisions.collision),
    View("POST", "/collisions/reviewed", collisions.reviewed),
    View("GET", "/checks", cluster.checks),
    View("GET", "/keys", cluster.keys),
    View("GET", "/audit", cluster.audit),
    View("GET", "/access", cluster.access),
    View("GET", _FILESET, filesets.fileset),
    View("GET", f"{_FILESET}/generations", filesets.generations),
    View("GET", f"{_FILESET}/diff", filesets.differences),
    View("GET", f"{_FILESET}/text", filesets.text),
    View("GET", f"{_FILESET}/back/{{number}}", filesets.back),
    View("GET", f"{_FILESET}/rollout", filesets.rollout),
    View("GET", f"{_FILESET}/archive", filesets.archive),
    *(View("POST", f"{_FILESET}/{name}", act) for name, act in acts.OF_FILESET.items()),
    *(View("POST", path, act) for path, act in acts.OTHERS.items()),
)
