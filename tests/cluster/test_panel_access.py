"""Access to a live panel: sign-in, and every refusal of a stranger, a guest or a guesser."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.api.command import Role
from instep.panel.routes import ROUTES, Route
from tests.support.fleet import Fleet
from tests.support.panel import Client, panel_fleet, panel_node, signed_in, with_token
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """A writer and a partner; the panel is the writer's."""
    with panel_fleet(tmp_path_factory.mktemp("panel")) as fleet:
        yield fleet


@pytest.fixture(scope="module")
def port(ground: Fleet) -> int:
    return panel_node(ground.main)


@pytest.fixture(scope="module")
def admin(ground: Fleet, port: int) -> Client:
    return with_token(ground.main, port, "admin", "--role", "admin")


def is_refused(port: int) -> bool:
    try:
        Client(port).get("/login")
    except ConnectionRefusedError:
        return True
    return False


def path_of(route: Route) -> str:
    return re.sub(r"{\w+}", "x", route.path)


# Strangers, guests and guessers ---------------------------------------------------------------------------


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_without_a_session_nothing_is_shown_or_done(route: Route, port: int) -> None:
    for headers in (
        {},
        {"Authorization": "Bearer ist_wrong"},
        {"Authorization": "Basic eDp5"},
        {"Cookie": "instep_main=x"},
    ):
        told = Client(port, headers).api(route.method, path_of(route), {})
        assert (told.status, told.code) == (401, "not_signed_in")


def test_a_viewer_can_do_nothing_unsafe_and_a_token_reaches_its_filesets_only(
    ground: Fleet, port: int
) -> None:
    viewer = with_token(ground.main, port, "look", "--role", "viewer")
    other = with_token(ground.main, port, "data-only", "--role", "admin", "--fileset", "data")
    for route in ROUTES:
        path = path_of(route).replace("/filesets/x", "/filesets/data")
        if route.kind.role is not Role.VIEWER:
            told = viewer.api(route.method, path, None if route.method == "GET" else {})
            assert (told.status, told.code) == (403, "role_missing"), route
        if "/filesets/" not in path and route.path not in ("/status", "/filesets", "/ping"):
            told = other.api(route.method, path, None if route.method == "GET" else {})
            assert (told.status, told.code) == (403, "fileset_missing"), route
    assert other.api("POST", "/filesets/other/pause", {}).code == "fileset_missing"
    assert other.api("GET", "/status").json["warnings"] == []
    assert other.api("POST", "/filesets/data/pause", {}).status == 200
    assert other.api("POST", "/filesets/data/resume", {}).status == 200


def test_pages_of_other_sites_and_other_names_are_refused(ground: Fleet, port: int) -> None:
    """Goal: DNS rebinding (mitmproxy #3234) and CVE-2024-22424, a sibling subdomain."""
    browser = signed_in(ground.main, port)
    assert browser.get("/").status == 200
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.nip.io", ""):
        assert browser.get("/", Host=host).status == 421
        assert browser.api("POST", "/filesets/data/pause", {}, Host=host).status == 421
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site", "Origin": "http://sibling.localhost"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
    ):
        for told in (
            browser.api("POST", "/filesets/data/pause", {}, **headers),
            browser.form("/logout", {}, **{"Sec_Fetch_Site": "cross-site", **headers}),
            Client(port).form("/login", {"code": "x"}, **{"Sec_Fetch_Site": "cross-site", **headers}),
        ):
            assert told.status == 403, told.text
    assert browser.api("POST", "/filesets/data/pause", {}, Sec_Fetch_Site="same-origin").status == 200
    assert (
        browser.api(
            "POST", "/filesets/data/resume", {}, Origin=f"http://127.0.0.1:{port}", Host=f"127.0.0.1:{port}"
        ).status
        == 200
    )
    plain = browser.send(
        "POST", "/api/v1/filesets/data/pause", b"", Content_Type="application/x-www-form-urlencoded"
    )
    assert plain.status == 200, "an empty body has no type"
    browser.api("POST", "/filesets/data/resume", {})
    assert "panel_refused" in [row["what"] for row in ground.main.run("events").json["events"]]
    rows = [row for row in ground.main.run("audit").json["rows"] if row["code"] == "cross_site"]
    assert [row["command"] for row in rows] == ["POST /logout", "POST /api/v1/filesets/data/pause"] * 4
    assert {(row["door"], row["outcome"]) for row in rows} == {("panel", "refused")}, (
        "none for strangers: they could push out the rows of others"
    )


def test_every_answer_has_the_strictest_headers(ground: Fleet, port: int, admin: Client) -> None:
    browser = signed_in(ground.main, port)
    for told in (
        browser.get("/"),
        browser.get("/none"),
        Client(port).get("/login"),
        Client(port).get("/api/v1/x"),
        admin.api("GET", "/status"),
        browser.get("/static/none"),
    ):
        policy = told.headers["content-security-policy"]
        assert "default-src 'none'" in policy and "trusted-types 'none'" in policy and "unsafe" not in policy
        assert told.headers["x-content-type-options"] == "nosniff"
        assert told.headers["cache-control"] == "no-store"
        assert told.headers["server"] == "instep"
        assert "access-control-allow-origin" not in told.headers


def test_a_link_signs_in_once_and_a_cookie_is_no_ones_else(ground: Fleet, port: int) -> None:
    told = ground.main.run("panel", "login").json
    assert told["url"] == f"http://127.0.0.1:{port}/login#{told['code']}"
    browser, second = Client(port), Client(port)
    answer = browser.sign_in({"code": told["code"]})
    cookie = answer.headers["set-cookie"]
    assert (answer.status, answer.headers["location"]) == (303, "/")
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; ")) and cookie.startswith(
        "instep_main_"
    )
    assert second.sign_in({"code": told["code"]}).status == 401
    assert second.get("/").status == 303
    assert browser.get("/").status == 200
    sessions = ground.main.run("panel", "sessions").json["sessions"]
    assert any(row["name"] == sessions[0]["name"] and row["by_link"] for row in sessions)
    assert browser.form("/logout", {}).headers["location"] == "/login"
    assert browser.get("/").status == 303


def test_a_user_signs_in_loses_rights_at_once_and_is_signed_out_everywhere(
    ground: Fleet, port: int, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("a long enough password\n")
    secret.chmod(0o644)
    assert (
        ground.main.run("user", "add", "ana", "--password-file", str(secret), expect=3).error["code"]
        == "secret_mode"
    )
    secret.chmod(0o600)
    ground.main.run(
        "user", "add", "ana", "--role", "operator", "--fileset", "data", "--password-file", str(secret)
    )
    assert not ground.main.run("user", "add", "ana", "--role", "operator", "--fileset", "data").json[
        "changed"
    ]
    first, second = Client(port), Client(port)
    for browser in (first, second):
        assert browser.sign_in({"user": "ana", "password": "a long enough password"}).status == 303
    assert (
        first.api("POST", "/filesets/data/pause", {"reason": "by ana"}, Sec_Fetch_Site="same-origin").status
        == 200
    )
    ground.main.run("user", "add", "ana", "--role", "viewer")
    assert first.api("POST", "/filesets/data/resume", {}, Sec_Fetch_Site="same-origin").code == "role_missing"
    ground.main.run("resume", "data")
    assert first.form("/logout", {"everywhere": "yes"}).status == 303
    assert second.get("/").status == 303
    second.sign_in({"user": "ana", "password": "a long enough password"})
    ground.main.run("user", "remove", "ana")
    assert second.api("GET", "/status").status == 401
    unknown = Client(port).sign_in({"user": "ana", "password": "a long enough password"})
    wrong = Client(port).sign_in({"user": "bob", "password": "x"})
    assert (unknown.status, wrong.status) == (401, 401)
    assert re.sub(r"request \w+|\d\d:\d\d:\d\d", "", unknown.text) == re.sub(
        r"request \w+|\d\d:\d\d:\d\d", "", wrong.text
    )
    assert "a long enough password" not in (ground.main.directory / "daemon.log").read_text()


def test_guesses_are_stopped_and_the_owners_session_is_not(ground: Fleet, port: int) -> None:
    browser = signed_in(ground.main, port)
    statuses = [Client(port).sign_in({"user": "eve", "password": f"guess {n}"}).status for n in range(9)]
    assert statuses == [401] * 5 + [429] * 4
    blocked = Client(port).sign_in({"user": "eve", "password": "guess"})
    assert 0 < int(blocked.headers["retry-after"]) <= 900
    assert browser.get("/").status == 200
    ground.main.stop()
    ground.main.start()
    assert Client(port).sign_in({"user": "eve", "password": "guess"}).status == 429, (
        "a restart forgets nothing"
    )
    assert browser.get("/").status == 200
    assert signed_in(ground.main, port).get("/").status == 200


def test_twenty_megabytes_to_the_sign_in_are_refused_before_they_are_read(port: int) -> None:
    """Goal: Syncthing 2.0.9, an unbounded body."""
    for head in (b"Content-Length: 20971520\r\n", b"Transfer-Encoding: chunked\r\n"):
        with socket.create_connection(("127.0.0.1", port), 30) as link:
            link.sendall(
                b"POST /login HTTP/1.1\r\nHost: 127.0.0.1\r\nSec-Fetch-Site: same-origin\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n" + head + b"\r\n"
            )
            if b"chunked" in head:
                link.sendall(b"1400\r\n" + b"x" * 0x1400 + b"\r\n")
            assert link.recv(12) == b"HTTP/1.1 413"


def test_a_token_and_a_cookie_do_not_mix(ground: Fleet, port: int) -> None:
    """A wrong token is not made up for by a cookie, and a token never signs a browser in."""
    browser = signed_in(ground.main, port)
    assert browser.api("GET", "/status", Authorization="Bearer ist_wrong").status == 401
    program = with_token(ground.main, port, "one", "--ttl", "1s")
    assert "set-cookie" not in program.get("/").headers
    eventually(lambda: program.api("GET", "/status").status == 401)
    assert ground.main.run("token", "revoke", "one").json["changed"]


def test_a_port_that_is_taken_is_said_and_retried(ground: Fleet, port: int) -> None:
    path = ground["s1"].directory / "instep.toml"
    before = path.read_text()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        at = taken.getsockname()[1]
        path.write_text(f'panel = "127.0.0.1:{at}"\n{before}')
        ground["s1"].run("config", "reload")
        eventually(lambda: f"panel cannot listen on 127.0.0.1:{at}" in str(ground["s1"].status()["warnings"]))
        assert ground["s1"].run("panel", "login", expect=7).error["code"] == "panel_not_listening"
    eventually(lambda: "panel" not in str(ground["s1"].status()["warnings"]), 30.0)
    assert Client(at).get("/login").status == 200
    path.write_text(before)
    ground["s1"].run("config", "reload")
    error = ground["s1"].run("panel", "login", expect=4).error
    assert error["code"] == "panel_off"
    eventually(lambda: is_refused(at))


def test_off_loopback_the_panel_speaks_tls_with_the_nodes_certificate(ground: Fleet, tmp_path: Path) -> None:
    import http.client
    import ssl

    node = ground["s1"]
    path, port = node.directory / "instep.toml", panel_node(node)
    text = path.read_text()
    path.write_text(text.replace(f"127.0.0.1:{port}", f"0.0.0.0:{port}"))
    node.run("config", "reload")
    context = ssl.create_default_context(cafile=node.directory / "pki/ca.crt")
    context.verify_flags &= (
        ~ssl.VERIFY_X509_STRICT if hasattr(ssl, "VERIFY_X509_STRICT") else context.verify_flags
    )

    context.check_hostname = False  # the certificate names the node, not an address

    def asked() -> int:
        link = http.client.HTTPSConnection("127.0.0.1", port, context=context, timeout=30)
        try:
            link.request("GET", "/login", headers={"Host": "s1"})
            return link.getresponse().status
        finally:
            link.close()

    assert eventually(lambda: asked() == 200)
    with pytest.raises((OSError, http.client.HTTPException)):
        Client(port).get("/login")
    assert node.run("panel", "login").json["url"].startswith("https://")
    path.write_text(text.replace(f'panel = "127.0.0.1:{port}"\n', ""))
    node.run("config", "reload")


def test_the_audit_is_lines_of_json_too(ground: Fleet) -> None:
    rows = [
        json.loads(line)
        for line in (ground.main.directory / "daemon.log").read_text().splitlines()
        if '"audit"' in line
    ]
    assert {row["door"] for row in rows} >= {"socket", "api", "panel"}
    assert all(row["who"] and row["command"] and row["outcome"] for row in rows)
