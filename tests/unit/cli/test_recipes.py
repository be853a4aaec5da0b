"""``recipe`` and ``--recipe``: the settings shown are those written, and the same again changes nothing."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest

from instep.cli.main import run
from instep.model.address import Address
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory
from tests.support.control_server import FakeDaemon

OWN = """about = "Ours"
[parameters.url]
kind = "url"
example = "http://localhost/"
help = "where it answers"
[writer]
ignore = ["/cache/"]
settle = "3s"
[partner.hooks]
probe = { http = "GET {{url}}" }
"""


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    found = NodeDirectory(tmp_path / "n")
    edits.create(found, {"name": "main", "listen": "127.0.0.1:7443", "allow": []})
    recipes = found.path / "recipes"
    recipes.mkdir()
    (recipes / "ours.toml").write_text(OWN)
    (recipes / "bad.toml").write_text("abuot = 1\n")
    for file in recipes.iterdir():
        file.chmod(0o600)
    return found


def test_own_recipes_stand_beside_those_that_come_with_instep(
    node: NodeDirectory, capfd: pytest.CaptureFixture[str]
) -> None:
    assert run(["--dir", str(node.path), "recipe", "list", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capfd.readouterr().out)["recipes"]}
    assert {"geoserver", "nginx", "apache", "mapserver", "tomcat", "ours", "bad"} <= rows.keys()
    assert (rows["ours"]["own"], rows["geoserver"]["own"]) == (True, False)
    assert "3 problems" in rows["bad"]["problem"]
    assert run(["--dir", str(node.path), "recipe", "show", "bad"]) == 3
    assert "line 1: abuot" in capfd.readouterr().err
    assert run(["--dir", str(node.path), "recipe", "show", "ours"]) == 0
    out = capfd.readouterr().out
    assert "needed, e.g. http://localhost/" in out
    assert 'ignore = ["/cache/"]' in out
    assert run(["--dir", str(node.path), "recipe", "show", "nothing"]) == 2


def test_add_writes_what_it_shows(
    node: NodeDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: plain settings; other options count before the recipe; editing is respected and named."""
    root = tmp_path / "root"
    root.mkdir()
    words = ["--dir", str(node.path), "fileset", "add", "maps", str(root), "--recipe", "ours"]
    assert run([*words, "--settle", "1s", "--ignore", "*.bak"]) == 0
    out = capfd.readouterr().out
    assert 'ignore = ["/cache/", "*.bak"]' in out
    table = tomllib.loads(node.config.read_text())["filesets"]["maps"]
    assert table == {
        "path": str(root), "writer": "main", "ignore": ["/cache/", "*.bak"], "settle": "1s",
    }  # fmt: skip
    assert run([*words, "--settle", "1s", "--ignore", "*.bak", "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["changed"] is False
    assert run([*words]) == 4, "a setting that was edited since is not overwritten"
    assert "settle = '1s'" in capfd.readouterr().err
    assert run([*words[:-2], "--param", "url=http://localhost/"]) == 2


def test_accept_hands_its_own_daemon_the_settings(
    node: NodeDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["--dir", str(node.path), "fileset", "accept", "maps", str(tmp_path / "here"), "--recipe", "ours"]
    with FakeDaemon(node.socket).running() as daemon:
        assert run([*words]) == 2
        assert "url is missing: where it answers" in capfd.readouterr().err
        daemon.answer(
            "fileset_accept", {"fileset": "maps", "path": "/here", "writer": "home", "changed": True}
        )
        assert run([*words, "--param", "url=http://localhost/x"]) == 0
        wanted = {"hooks": {"probe": {"http": "GET http://localhost/x"}}}
        assert daemon.params("fileset_accept")["settings"] == wanted
    assert "probe = {http = " in capfd.readouterr().out


def test_a_fileset_that_exists_takes_a_recipe_that_is_shown_first(
    node: NodeDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Goal: present settings stay where they can, such as other hooks and own patterns; the same again changes nothing."""
    root = tmp_path / "root"
    root.mkdir()
    words = ["--dir", str(node.path), "fileset"]
    assert run([*words, "add", "maps", str(root), "--ignore", "*.bak"]) == 0
    assert run([*words, "set", "maps", "hooks.reload.touch=/run/reloaded"]) == 0
    assert run([*words, "add", "maps", str(root), "--recipe", "ours"]) == 4
    assert f"instep --dir {node.path} fileset set maps" in capfd.readouterr().err
    before = node.config.read_text()
    assert run([*words, "set", "maps", "recipe=ours", "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert 'ignore = ["/cache/"]' in out and 'settle = "3s"' in out
    assert run([*words, "set", "maps", "settle=soon", "--dry-run"]) == 3, "checked as the act is"
    assert node.config.read_text() == before
    for changed in (True, False):
        assert run([*words, "set", "maps", "recipe=ours", "publish=manual", "--json"]) == 0
        assert json.loads(capfd.readouterr().out)["changed"] is changed
    table = tomllib.loads(node.config.read_text())["filesets"]["maps"]
    assert (table["ignore"], table["settle"], table["publish"]) == (["*.bak", "/cache/"], "3s", "manual")
    assert table["hooks"] == {"reload": {"touch": "/run/reloaded"}}
    followed = str(tmp_path / "followed")
    edits.accept_fileset(node, "data", followed, "s1", {})
    assert run([*words, "set", "data", "recipe=ours", "--param", "url=http://localhost/"]) == 0
    assert "[filesets.data.hooks]\nprobe = {http" in node.config.read_text()
    assert run([*words, "set", "maps", "recipe=nothing"]) == 2
    assert run([*words, "set", "maps", "settle=1s", "--param", "url=http://localhost/"]) == 2


def test_the_next_steps_keep_the_recipe(
    node: NodeDirectory, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edits.set_partner(node, "s1", {"replicate": True, "data": True})
    root = tmp_path / "a root"
    root.mkdir()
    assert run(["--dir", str(node.path), "fileset", "add", "maps", str(root), "--recipe", "ours"]) == 0
    assert "next, on s1: instep fileset accept maps PATH --recipe ours" in capfd.readouterr().out
    refusal = {"exit_code": 4, "reason": "not empty", "code": "not_empty",
               "hint": f"--seed keeps: instep fileset accept catalog '{root}' --seed"}  # fmt: skip
    with FakeDaemon(node.socket).running() as daemon:
        daemon.lines("fileset_accept", {"error": refusal})
        given = ("--recipe", "ours", "--param", "url=http://localhost/")
        assert run(["--dir", str(node.path), "fileset", "accept", "catalog", str(root), *given]) == 4
        err = capfd.readouterr().err
        assert f"accept catalog '{root}' --seed --recipe ours --param url=http://localhost/" in err
        daemon.answer("invite", {"token": "T1", "expires_at": None, "address": "10.0.0.1:7443"})
        edits.allow_networks(node, ["10.0.0.0/8"])
        edits.set_own_address(node, Address("10.0.0.1", 7443))
        assert run(["--dir", str(node.path), "invite", "s2"]) == 0
        assert f"instep join T1 --accept 'maps={root}' --start" in capfd.readouterr().err
