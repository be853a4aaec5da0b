"""Persons sign in to a live panel by a provider of OpenID Connect that is not ours (``oidc-provider-mock``)."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fleet import Fleet, free_port
from tests.support.panel import Client, panel_fleet, panel_node
from tests.support.waiting import eventually

SECRET = "a secret of this client"


@pytest.fixture
def provider() -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    port = free_port()
    words = [sys.executable, "-m", "oidc_provider_mock", "--port", str(port)]
    with subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            eventually(lambda: is_there(port), 30.0)
            yield process, port
        finally:
            process.kill()


def is_there(port: int) -> bool:
    try:
        return Client(port).get("/.well-known/openid-configuration").status == 200
    except OSError:
        return False


def person(port: int, subject: str, **claims: object) -> None:
    told = Client(port).send(
        "PUT", f"/users/{subject}", json.dumps(claims).encode(), Content_Type="application/json"
    )
    assert told.status in (200, 201, 204), told.text


def sign_in(panel: int, port: int, subject: str) -> tuple[Client, int, str]:
    """As a browser does it: to the provider, the person's name there, and back; status and page of the end."""
    there = Client(panel).get("/login/provider")
    assert there.status == 303, there.text
    flow, address = there.headers["set-cookie"], urllib.parse.urlsplit(there.headers["location"])
    assert "HttpOnly" in flow and "SameSite=Lax" in flow and SECRET not in there.headers["location"]
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    named, _ = asked(
        port, "POST", f"{address.path}?{address.query}", urllib.parse.urlencode({"sub": subject}), form
    )
    back = urllib.parse.urlsplit(named.getheader("Location", ""))
    told, page = asked(panel, "GET", f"{back.path}?{back.query}", None, {"Cookie": flow.partition(";")[0]})
    browser = Client(panel)
    for name, value in told.getheaders():
        if name.lower() == "set-cookie" and not value.startswith("instep_flow"):
            assert "HttpOnly" in value and "SameSite=Strict" in value
            browser.headers["Cookie"] = value.partition(";")[0]
    return browser, told.status, page


def asked(
    port: int, method: str, path: str, body: str | None, headers: dict[str, str]
) -> tuple[http.client.HTTPResponse, str]:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        link.request(method, path, body, headers)
        answer = link.getresponse()
        return answer, answer.read().decode()
    finally:
        link.close()


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Fleet]:
    with panel_fleet(tmp_path) as fleet:
        yield fleet


def test_persons_of_a_provider_have_the_roles_of_their_groups(
    ground: Fleet, provider: tuple[subprocess.Popen[bytes], int], tmp_path: Path
) -> None:
    process, port = provider
    main, panel = ground.main, panel_node(ground.main)
    assert "login/provider" not in Client(panel).get("/login").text
    assert Client(panel).get("/login/provider").status == 400
    secret = tmp_path / "secret"
    secret.write_text(SECRET)
    secret.chmod(0o600)
    config = main.directory / "instep.toml"
    plain = config.read_text()

    def provide(*roles: str) -> None:
        config.write_text(
            f'{plain}\n[oidc]\nissuer = "http://127.0.0.1:{port}"\nclient_id = "panel"\nsecret_file = "{secret}"\n'
            f'name_claim = "name"\nroles = {json.dumps(roles)}\n'
        )
        main.run("config", "reload")

    provide("maps team=operator:data", "all=viewer")
    assert f"Go to 127.0.0.1:{port}" in Client(panel).get("/login").text
    person(port, "7", name="ana", groups=["maps team"])
    person(port, "8", name="ben", groups=["guests"])
    ana, status, page_text = sign_in(panel, port, "7")
    assert status == 200 and 'http-equiv="refresh"' in page_text, page_text
    assert "ana, operator" in ana.get("/").text
    page = Client(panel, {"Sec-Fetch-Site": "same-origin", **ana.headers})
    assert page.api("POST", "/filesets/data/pause", {"reason": "look"}).status == 200
    assert page.api("POST", "/filesets/data/resume", {}).status == 200
    assert page.api("POST", "/readonly", {"on": True, "reason": "x"}).status == 403
    (row,) = (one for one in main.run("audit").json["rows"] if one["command"] == "pause")
    assert (row["who"], row["role"]) == ("ana", "operator")
    (user,) = main.run("user", "list").json["users"]
    assert (user["name"], user["provider"]) == ("ana", f"http://127.0.0.1:{port}")
    refused = main.run("user", "add", "ana", "--role", "admin", "--password-file", str(secret), expect=4)
    assert refused.error["code"] == "name_taken", "one name is one person, in the audit as well"

    stranger, status, page_text = sign_in(panel, port, "8")
    assert (status, "ben is in no group that has a role here" in page_text) == (403, True), page_text
    assert stranger.get("/").status == 303
    provide("all=viewer")
    assert ana.get("/").status == 303, "the group has no role any more, and the session ended at once"

    process.kill()
    process.wait()
    main.run("config", "reload")
    config.write_text(config.read_text().replace('"panel"', '"other"'))
    main.run("config", "reload")
    gone = Client(panel).get("/login/provider")
    assert gone.status == 503 and "does not answer at" in gone.text
    assert Client(panel).get("/login/callback?code=x&state=y").status == 403
    log = main.log(100_000)
    assert SECRET not in log and "code=" not in log and "sign-in by the provider failed" in log
