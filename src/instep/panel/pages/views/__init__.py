"""Views: each asks commands for one page, or gives one for a form. Draws nothing."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from instep.panel.pages.views import overview
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


VIEWS: tuple[View, ...] = (View("GET", "/", overview.overview),)
