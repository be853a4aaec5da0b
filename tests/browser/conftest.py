"""Fixtures of the browser floor: three daemons with a panel, one Chromium, and pages that fail by what they were refused.

In every test a violation of the page's policy, an error in the console or in the page, and a request off loopback is a
failure.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright

from tests.support.fleet import Fleet
from tests.support.panel import panel_node

CHROMIUM = shutil.which("chromium")
LOOPBACK = frozenset({"127.0.0.1", "localhost"})
PATIENCE_MS = 60_000


@dataclass
class Scene:
    """Three nodes, and the panel of the writer."""

    fleet: Fleet
    port: int

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def link(self) -> str:
        return str(self.fleet.main.run("panel", "login").json["url"])


@dataclass
class Watch:
    """A page with everything that went wrong in it."""

    page: Page
    faults: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    """For the length of the module: its loop runs in this thread, and no other test could run one beside it."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    fleet = Fleet(tmp_path_factory.mktemp("browser"))
    try:
        fleet.tree("main").mkdir(parents=True)
        (fleet.tree("main") / "a").write_text("a")
        fleet.make(partners=2)
        fleet.wait()
        yield Scene(fleet, panel_node(fleet.main))
    finally:
        fleet.close()


Open = Callable[..., Page]


@pytest.fixture
def opened(chromium: Browser) -> Iterator[Open]:
    """Opens pages in browsers of their own; at the end nothing may have gone wrong in any."""
    contexts: list[BrowserContext] = []
    watches: list[Watch] = []

    def make(**options: Any) -> Page:
        context = chromium.new_context(**options)
        contexts.append(context)
        context.set_default_timeout(PATIENCE_MS)
        page = context.new_page()
        watch = Watch(page)
        watches.append(watch)

        def route(one: Any) -> None:
            if urlsplit(one.request.url).hostname in LOOPBACK:
                one.continue_()
            else:
                watch.faults.append(f"a request off loopback: {one.request.url}")
                one.abort()

        def said(message: Any) -> None:
            if (
                message.type == "error"
                and "net::ERR_" not in message.text
                and "status of 4" not in message.text
            ):
                watch.faults.append(f"console: {message.text}")

        page.on("console", said)
        page.on("pageerror", lambda error: watch.faults.append(f"page: {error}"))
        page.expose_function("violated", lambda told: watch.faults.append(f"policy: {told}"))
        page.add_init_script(
            "document.addEventListener('securitypolicyviolation',"
            " e => window.violated(`${e.violatedDirective} ${e.blockedURI} ${e.sample}`))"
        )
        page.route("**/*", route)
        return page

    yield make
    faults = [fault for watch in watches for fault in watch.faults]
    for context in contexts:
        context.close()
    assert not faults
