"""The panel as a person uses it: signing in, watching a change arrive, acting, losing contact, being refused."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from tests.browser.conftest import Open, Scene
from tests.support.waiting import eventually

expect.set_options(timeout=60_000)
SCHEMES = ("light", "dark")
PAGES = (
    "/", "/?show=all", "/map", "/nodes", "/events", "/checks", "/keys", "/audit", "/access", "/filesets/data",
    "/filesets/data/generations", "/filesets/data/diff", "/filesets/data/back/1", "/filesets/data/rollout",
    "/filesets/data/archive", "/collisions", "/nothing",
)  # fmt: skip


def signed_in(scene: Scene, opened: Open, **options: object) -> Page:
    page = opened(**options)
    page.goto(scene.link())
    page.wait_for_url(f"{scene.url}/")
    return page


def test_a_link_signs_in_by_itself_and_leaves_no_code_behind(scene: Scene, opened: Open) -> None:
    page = signed_in(scene, opened)
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    assert "#" not in page.url
    page.goto(f"{scene.url}/?show=all")
    for name in ("main", "s1", "s2"):
        expect(page.locator("tbody#rows td[data-f=node]", has_text=name)).to_be_visible()


def test_a_change_is_seen_arriving_without_reloading(scene: Scene, opened: Open) -> None:
    page = signed_in(scene, opened)
    page.goto(f"{scene.url}/?show=all")
    page.evaluate("window.untouched = true")
    head = page.locator('[id="row.data.main.s2"] [data-f=live]')
    before = int(head.inner_text())
    scene.fleet.write({"b": "b"})
    expect(head).to_have_text(str(before + 1))
    expect(page.locator('[id="row.data.main.s2"] [data-f=standing]')).to_have_text("in step")
    assert page.evaluate("window.untouched")


def test_an_operator_publishes_looks_at_the_diff_and_goes_back(scene: Scene, opened: Open) -> None:
    fleet = scene.fleet
    fleet.main.run("fileset", "set", "data", "publish=manual")
    fleet.write({"c": "c"})
    page = signed_in(scene, opened)
    page.goto(f"{scene.url}/filesets/data/diff")
    expect(page.get_by_role("row", name=re.compile("added c"))).to_be_visible()
    page.get_by_role("link", name="c", exact=True).click()
    expect(page.get_by_label("Lines that differ")).to_contain_text("+c [no end of line]")
    report = Axe().run(page)
    assert report.violations_count == 0, report.generate_report()
    page.goto(f"{scene.url}/filesets/data")
    page.get_by_label("Message").fill('new "><script>styles</script>')
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_role("status").filter(has_text="It is generation")).to_be_visible()
    number = fleet.main.line()["head"]["number"]
    page.goto(f"{scene.url}/filesets/data/generations")
    row = page.get_by_role("row").nth(1)
    expect(row).to_contain_text('new "><script>styles</script>')
    page.goto(f"{scene.url}/filesets/data/back/{number - 1}")
    expect(page.get_by_role("row", name=re.compile("removed c"))).to_be_visible()
    page.get_by_label("Reason").fill("it was wrong")
    page.get_by_role("button", name="Go back").click()
    expect(page.get_by_role("status").filter(has_text=f"generation {number + 1}")).to_be_visible()
    assert not (fleet.tree("main") / "c").exists()
    page.goto(f"{scene.url}/audit")
    expect(page.get_by_role("row", name=re.compile("rollback data done it was wrong"))).to_be_visible()
    fleet.main.run("fileset", "set", "data", "publish=auto")


def test_a_file_is_restored_from_the_archive(scene: Scene, opened: Open, tmp_path: Path) -> None:
    scene.fleet.write({"kept": "old"})
    scene.fleet.wait()
    scene.fleet.main.run("rollback", "data", "1", "-m", "empty")
    page = signed_in(scene, opened)
    page.goto(f"{scene.url}/filesets/data/archive?q=kept")
    expect(page.get_by_role("row", name=re.compile("kept"))).to_be_visible()
    page.get_by_label("Path", exact=True).fill("kept")
    page.get_by_label("Directory on main").fill(str(tmp_path / "to"))
    page.get_by_role("button", name="Restore").click()
    expect(page.get_by_role("status").filter(has_text="lies in")).to_be_visible()
    assert [path.read_text() for path in (tmp_path / "to").rglob("kept")] == ["old"]


def test_a_node_is_drained_and_returned(scene: Scene, opened: Open) -> None:
    page = signed_in(scene, opened)
    page.goto(f"{scene.url}/nodes")
    page.get_by_label("Node", exact=True).select_option("main")
    page.get_by_label("Reason").fill("kernel")
    page.get_by_role("button", name="Drain").click()
    expect(page.get_by_role("row", name=re.compile(r"main \(this node\).*yes.*kernel"))).to_be_visible()
    page.get_by_role("button", name="Return main").click()
    expect(page.get_by_text("No node is known to be drained.")).to_be_visible()


def test_a_rollout_is_paused_and_aborted_where_that_can_be(scene: Scene, opened: Open) -> None:
    page = signed_in(scene, opened)
    page.goto(f"{scene.url}/filesets/data/rollout")
    expect(page.get_by_role("button", name="Confirm")).to_be_disabled()
    expect(page.get_by_text("nothing waits for that")).to_be_visible()
    scene.fleet.main.run("fileset", "set", "data", "rollout.strategy=rolling", "rollout.confirm_within=10m")
    try:
        scene.fleet.write({"rolled": "x"})
        eventually(
            lambda: scene.fleet.main.run("rollout", "show", "data").json["rollout"]["state"] == "confirming"
        )
        expect(page.get_by_role("button", name="Confirm")).to_be_enabled()  # the page has read itself again
        page.once("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Abort, and put back").click()
        expect(page.get_by_text(re.compile("aborted|putting back|put back")).first).to_be_visible()
        eventually(lambda: not (scene.fleet.tree("s1") / "rolled").exists())
    finally:
        scene.fleet.main.run("fileset", "set", "data", "rollout.strategy=auto", "rollout.confirm_within=off")
    (scene.fleet.tree("main") / "rolled").unlink()
    eventually(lambda: scene.fleet.main.run("wait", "data", "--timeout", "20s", expect=None).code == 0)


def test_contact_that_is_lost_turns_the_page_grey_and_comes_back(scene: Scene, opened: Open) -> None:
    page = signed_in(scene, opened)
    expect(page.locator("body")).not_to_have_attribute("data-stale", "yes")
    pid = scene.fleet.main.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        expect(page.locator("#contact")).to_contain_text("No contact with this node's daemon")
        expect(page.locator("body")).to_have_attribute("data-stale", "yes")
    finally:
        os.kill(pid, signal.SIGCONT)
    expect(page.locator("#contact")).to_be_hidden()


def test_a_viewer_is_refused_with_the_reason_beside_the_button(
    scene: Scene, opened: Open, tmp_path: Path
) -> None:
    secret = tmp_path / "password"
    secret.write_text("a long enough password")
    secret.chmod(0o600)
    scene.fleet.main.run("user", "add", "bob", "--password-file", str(secret))
    page = opened()
    page.goto(scene.url)
    page.get_by_label("Name").fill("bob")
    page.get_by_label("Password").fill("a long enough password")
    page.get_by_role("button", name="Sign in").nth(1).click()
    page.wait_for_url(f"{scene.url}/")
    page.goto(f"{scene.url}/filesets/data")
    expect(page.get_by_role("button", name="Publish")).to_be_disabled()
    expect(page.get_by_text("asks for the role operator").first).to_be_visible()
    expect(page.get_by_role("link", name="Audit")).to_have_count(0)
    answer = page.request.post(
        f"{scene.url}/filesets/data/publish", form={}, headers={"Sec-Fetch-Site": "same-origin"}
    )
    assert answer.status == 403
    page.goto(f"{scene.url}/access")
    page.get_by_role("button", name="Sign out everywhere").click()
    page.wait_for_url(f"{scene.url}/login")
    page.goto(f"{scene.url}/filesets/data")
    expect(page.get_by_role("heading", level=1)).to_contain_text("Sign in")


def test_without_scripts_every_form_works(scene: Scene, opened: Open) -> None:
    told = scene.fleet.main.run("panel", "login").json
    page = opened(java_script_enabled=False)
    page.goto(f"{scene.url}/login")
    page.get_by_label("Code").fill(told["code"])
    page.get_by_role("button", name="Sign in").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Overview")
    page.goto(f"{scene.url}/filesets/data")
    page.get_by_label("Reason").fill("by hand")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("row", name=re.compile("main paused")).first).to_be_visible()
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Verify the tree").click()
    expect(page.get_by_text("All trees are as published.")).to_be_visible()
    page.goto(f"{scene.url}/access")
    form = page.locator("form[action='/access/token-create']")
    form.get_by_label("Name").fill("robot")
    form.get_by_role("button").click()
    expect(page.get_by_text(re.compile("^ist_"))).to_be_visible()
    page.goto(f"{scene.url}/access")
    page.get_by_role("button", name="Revoke robot").click()
    expect(page.get_by_role("button", name="Revoke robot")).to_have_count(0)
    page.get_by_role("button", name="Sign out", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Sign in")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("width", [390, 1280])
def test_axe_finds_nothing_and_no_page_is_wider_than_its_window(
    scene: Scene, opened: Open, scheme: str, width: int
) -> None:
    page = opened(color_scheme=scheme, viewport={"width": width, "height": 900})
    axe = Axe()
    found: dict[str, str] = {}
    page.goto(f"{scene.url}/login")
    report = axe.run(page)
    if report.violations_count:
        found["/login"] = report.generate_report()
    page.goto(scene.link())
    page.wait_for_url(f"{scene.url}/")
    for path in PAGES:
        page.goto(f"{scene.url}{path}")
        report = axe.run(page)
        if report.violations_count:
            found[path] = report.generate_report()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path
    assert not found, "\n".join(f"{path}\n{told}" for path, told in found.items())


def test_axe_finds_nothing_where_a_provider_signs_in(scene: Scene, opened: Open) -> None:
    path = scene.fleet.main.directory / "instep.toml"
    before = path.read_text()
    provider = (
        """[oidc]\nissuer = "https://login.example.org"\nclient_id = "instep"\nroles = ["staff=viewer"]\n"""
    )
    path.write_text(f"{before}\n{provider}")
    scene.fleet.main.run("config", "reload")
    try:
        for scheme in SCHEMES:
            for width in (390, 1280):
                page = opened(color_scheme=scheme, viewport={"width": width, "height": 900})
                page.goto(f"{scene.url}/login")
                expect(page.get_by_role("link", name="Go to login.example.org")).to_be_visible()
                report = Axe().run(page)
                assert report.violations_count == 0, report.generate_report()
                assert page.evaluate("document.documentElement.scrollWidth") <= width
    finally:
        path.write_text(before)
        scene.fleet.main.run("config", "reload")


HOSTILE = (
    '"><img src=x onerror=alert(1)>', "'><script>alert(1)</script>", "javascript:alert(1)", "a\u202etxt.exe",
    "x" * 255, "\x1b]0;owned\x07", "{{ 7 * 7 }}", "</textarea><svg onload=alert(1)>",
)  # fmt: skip


def test_hostile_names_stay_text(scene: Scene, opened: Open) -> None:
    """Goal (CVE-2022-46165): names from elsewhere became script in a panel."""
    fleet = scene.fleet
    for name in HOSTILE:
        (fleet.tree("main") / name.replace("/", "_")).write_text(name)
    (fleet.tree("main") / os.fsdecode(b"bad\xff")).write_text("x")
    fleet.main.run("pause", "data", "--reason", HOSTILE[0])
    fleet.main.run("resume", "data")
    fleet.main.run("publish", "data", "-m", HOSTILE[1])
    fleet.main.run("node", "drain", "--reason", HOSTILE[0])
    page = signed_in(scene, opened)
    page.on("dialog", lambda dialog: pytest.fail(f"a dialog: {dialog.message}"))
    number = fleet.main.line()["head"]["number"]
    for path in (
        *PAGES,
        f"/filesets/data/diff?a={number - 1}&b={number}",
        "/?q=%22%3E%3Cimg%20src%3Dx%3E",
        "/events?q=%3Cscript%3E",
        "/filesets/%22%3E%3Cimg%3E",
    ):
        page.goto(f"{scene.url}{path}")
        assert page.locator("main img, main script, main svg[onload]").count() == 0, path
        text = page.content()
        assert "\u202e" not in text and "\x1b" not in text, path
    fleet.main.run("node", "undrain")
    page.goto(f"{scene.url}/filesets/data/diff?a={number - 1}&b={number}")
    expect(page.get_by_text(HOSTILE[0].replace("/", "_"))).to_be_visible()
    expect(page.get_by_text("a\\u202etxt.exe")).to_be_visible()
    page.get_by_role("link", name=HOSTILE[0].replace("/", "_")).click()
    expect(page.get_by_label("Lines that differ")).to_contain_text(f"+{HOSTILE[0]}")
    assert page.locator("main img, main script").count() == 0
