"""All pages of one node: which view answers which path, and how its answer becomes HTML."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from aiohttp import web

from instep.errors import InstepError, UsageError
from instep.node.access.caller import Caller
from instep.node.access.door import CommandDoor
from instep.node.node import Node
from instep.panel.exchange import PanelExchange
from instep.panel.feed import NodeFeed
from instep.panel.pages import words
from instep.panel.pages.assets import StaticFiles, templates
from instep.panel.pages.views import VIEWS, View
from instep.panel.pages.visit import Page, Visit
from instep.panel.problems import status_of

HTML = "text/html; charset=utf-8"
FOREVER = "public, max-age=31536000, immutable"
_FILTERS = (
    "visible",
    "line_of",
    "standing_class",
    "shape",
    "spoken",
    "moment",
    "sized",
    "segment",
    "path_b64",
)


class Site:
    """Made when a browser asks for the first page."""

    def __init__(self, node: Node, door: CommandDoor, feed: NodeFeed) -> None:
        self._node = node
        self._door = door
        self._feed = feed
        self._files = StaticFiles()
        self._templates = templates()
        self._templates.filters.update({name: getattr(words, name) for name in _FILTERS})

    async def answer(self, exchange: PanelExchange, caller: Caller) -> web.Response:
        """The page of a path; after an act the browser is sent to a page that shows its effect."""
        view, found = _view_of(exchange.request.method, exchange.path)
        form = await exchange.form() if exchange.request.method == "POST" else {}
        visit = Visit(exchange, caller, self._door, self._feed, self._node.runtime.name, found, form)
        await self._feed.begin(caller)
        seen = self._feed.seen  # before the page is read: what changes meanwhile is sent to it
        page = await view.show(visit)
        if isinstance(page, str):
            return self.redirect(exchange, page)
        return self._drawn(exchange, page, caller, seen)

    def static(self, exchange: PanelExchange) -> web.Response:
        found = self._files.by_name.get(exchange.path.removeprefix("/static/"))
        if found is None or exchange.request.method not in ("GET", "HEAD"):
            return exchange.answer(b"", "text/plain", 404)
        kept = {
            "Cache-Control": FOREVER,
            "Vary": "Accept-Encoding",
        }  # by caches between, which see both forms
        response = exchange.answer(found.body, found.kind, 200, kept)
        response.enable_compression()
        return response

    def redirect(self, exchange: PanelExchange, path: str) -> web.Response:
        """``path`` is one of ours, never of the request."""
        assert path.startswith("/")
        assert not path.startswith("//")
        return exchange.answer(b"", "text/plain", 303, {"Location": path})

    def login(
        self, exchange: PanelExchange, provider: str | None, error: InstepError | None = None,
        told: str | None = None,
    ) -> web.Response:  # fmt: skip
        """``provider`` is the name of another way to sign in, where there is one."""
        status = 200 if error is None else status_of(error)
        context = {"told": told, "provider": provider}
        response = self._drawn(exchange, Page("login.html", "Sign in", context, status), None)
        if error is not None and "retry_after_s" in error.facts:
            response.headers["Retry-After"] = str(error.facts["retry_after_s"])
        return response

    def signed_in(self, exchange: PanelExchange) -> web.Response:
        """For a browser that comes from another site: its cookie goes along from here on."""
        return self._drawn(exchange, Page("signed_in.html", "Signed in", {}), None)

    def error(self, exchange: PanelExchange, error: InstepError) -> web.Response:
        page = Page("error.html", "It did not work", {"error": error}, status_of(error))
        response = self._drawn(exchange, page, exchange.caller)
        if not exchange.request.content.is_eof():
            response.force_close()
        return response

    def _drawn(
        self, exchange: PanelExchange, page: Page, caller: Caller | None, seen: str = ""
    ) -> web.Response:
        context: Mapping[str, Any] = {
            "title": page.title,
            "node": self._node.runtime.name,
            "caller": caller,
            "files": self._files.urls,
            "now": words.now_iso(),
            "path": exchange.path,
            "request_id": exchange.id,
            "same": page.same,
            "is_live": page.is_live,
            "seen": seen if page.is_live else "",
            **page.context,
        }
        html = self._templates.get_template(page.template).render(context)
        response = exchange.answer(html.encode("utf-8", "replace"), HTML, page.status)
        if not page.context.get("secret"):  # the size of a compressed page says something of its text
            response.enable_compression()
        return response


def _view_of(method: str, path: str) -> tuple[View, dict[str, str]]:
    wanted = "GET" if method == "HEAD" else method
    for view in VIEWS:
        found = view.form.fullmatch(path)
        if found is not None and view.method == wanted:
            return view, {name: unquote(value) for name, value in found.groupdict().items()}
    raise UsageError("there is no such page", hint="go to the overview", code="no_route")
