"""A browser and a program for tests of the panel: HTTP to one node, with nothing done that the test does not say."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.support.fleet import Fleet, Node, free_port

__all__ = ["Client", "Told", "panel_fleet", "panel_node", "signed_in", "with_token"]


@dataclass(frozen=True)
class Told:
    """An answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> str:
        return str(self.json["code"])


@dataclass
class Client:
    """Requests to one panel; ``headers`` go with each."""

    port: int
    headers: dict[str, str] = field(default_factory=dict)
    host: str = "127.0.0.1"

    def send(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Told:
        """One request on a connection of its own; an underscore in a header's name stands for its dash."""
        link = http.client.HTTPConnection(self.host, self.port, timeout=60)
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            link.request(method, path, body, {**self.headers, **given})
            answer = link.getresponse()
            pairs = {name.lower(): value for name, value in answer.getheaders()}
            return Told(answer.status, pairs, answer.read())
        finally:
            link.close()

    def get(self, path: str, **headers: str) -> Told:
        return self.send("GET", path, None, **headers)

    def api(self, method: str, path: str, told: object = None, **headers: str) -> Told:
        """A request to the REST API, with JSON."""
        body = None if told is None else json.dumps(told).encode()
        return self.send(method, f"/api/v1{path}", body, **{"Content_Type": "application/json", **headers})

    def form(self, path: str, fields: dict[str, str], **headers: str) -> Told:
        """A form of a page of this panel, as a browser sends it."""
        return self.send(
            "POST", path, urllib.parse.urlencode(fields).encode(),
            **{"Content_Type": "application/x-www-form-urlencoded", "Sec_Fetch_Site": "same-origin", **headers},
        )  # fmt: skip

    def sign_in(self, fields: dict[str, str]) -> Told:
        """Sign in, and keep the cookie."""
        told = self.form("/login", fields)
        found = re.match(r"[^;]+", told.headers.get("set-cookie", ""))
        if found is not None:
            self.headers["Cookie"] = found[0]
        return told


@contextmanager
def panel_fleet(directory: Path) -> Iterator[Fleet]:
    """A writer with one file, and a partner that has it."""
    fleet = Fleet(directory)
    try:
        fleet.tree("main").mkdir(parents=True)
        (fleet.tree("main") / "a").write_text("a")
        fleet.make(partners=1)
        fleet.wait()
        yield fleet
    finally:
        fleet.close()


def panel_node(node: Node) -> int:
    """Give a node a panel on a port of its own; the port."""
    port = free_port()
    path = node.directory / "instep.toml"
    path.write_text(f'panel = "127.0.0.1:{port}"\n{path.read_text()}')
    node.run("config", "reload")
    return port


def with_token(node: Node, port: int, name: str, *words: str) -> Client:
    """A program with a new token of that name."""
    token = node.run("token", "create", name, *words).json["token"]
    return Client(port, {"Authorization": f"Bearer {token}"})


def signed_in(node: Node, port: int) -> Client:
    """A browser that opened the link of ``instep panel login``."""
    browser = Client(port)
    url = node.run("panel", "login").json["url"]
    assert browser.sign_in({"code": url.partition("#")[2]}).status == 303
    return browser
