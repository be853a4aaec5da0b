"""Recipes: read strictly with every problem at once, filled in, and written as settings that are read back alike."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

import pytest

from instep.errors import ConfigError, InstepError, RefusedError, UsageError
from instep.node.config.editing import edits
from instep.node.config.loading import load
from instep.node.directory import NodeDirectory
from instep.node.recipes.recipe import FOLLOWED, WRITTEN, read_recipe
from instep.node.recipes.shelf import PACKAGED, RecipeShelf

OWN = """about = "Mine"

[parameters.url]
kind = "url"
example = "http://localhost/"
help = "where it answers"

[parameters.token]
kind = "path"
default = ""
help = "a secret"

[both.hooks]
validate = { run = ["/bin/true"] }

[writer]
ignore = ["*.log"]

[partner.hooks]
probe = { http = "GET {{url}}x", auth_file = "{{token}}" }
"""


@pytest.fixture
def node(tmp_path: Path) -> NodeDirectory:
    found = NodeDirectory(tmp_path / "node")
    found.create()
    found.config.write_text('name = "main"\n')
    (found.path / "recipes").mkdir()
    return found


def shelf(node: NodeDirectory) -> RecipeShelf:
    return RecipeShelf(node, node.path / "machine")


def own(node: NodeDirectory, name: str, text: str) -> Path:
    path = node.path / "recipes" / f"{name}.toml"
    path.write_text(text)
    path.chmod(0o600)
    return path


def problems(text: str) -> list[tuple[Any, Any]]:
    with pytest.raises(ConfigError) as caught:
        read_recipe("mine", text, Path("mine.toml"), is_packaged=False)
    found: Any = caught.value.facts["problems"]
    return [(each["line"], each["key"]) for each in found]


@pytest.mark.parametrize("path", sorted(PACKAGED.glob("*.toml")), ids=lambda path: str(path.stem))
def test_what_comes_with_instep_is_right_and_written_as_it_is_shown(path: Path, node: NodeDirectory) -> None:
    """Goal: each recipe can be used at both sides, the file that comes of it runs, and the same again is no change."""
    found = shelf(node).load(path.stem)
    assert found.is_packaged
    assert found.note
    for number, role in enumerate((WRITTEN, FOLLOWED)):
        ready = found.settings(role, found.examples, Path("/srv/app"))
        name, root = f"app{number}", f"/srv/app{number}"
        for expected in (True, False):
            if role == WRITTEN:
                assert edits.add_fileset(node, name, root, ready) is expected
            else:
                assert edits.accept_fileset(node, name, root, "s1", {}, ready=ready) is expected
        written = tomllib.loads(node.config.read_text())["filesets"][name]
        assert {key: value for key, value in written.items() if key not in ("path", "writer")} == ready
    assert len(load(node.path).filesets) == 2


def test_an_own_recipe_is_found_first_and_an_empty_parameter_leaves_its_setting_out(
    node: NodeDirectory,
) -> None:
    own(node, "nginx", OWN)
    found = shelf(node).load("nginx")
    assert (found.about, found.is_packaged) == ("Mine", False)
    assert [path.parent for path in shelf(node).names()["nginx"]] == [node.path / "recipes", PACKAGED]
    assert found.settings(WRITTEN, {"url": "http://a/"}) == {
        "hooks": {"validate": {"run": ["/bin/true"]}}, "ignore": ["*.log"],
    }  # fmt: skip
    hooks = found.settings(FOLLOWED, {"url": "http://localhost/"})["hooks"]
    assert hooks["probe"] == {"http": "GET http://localhost/x"}
    hooks = found.settings(FOLLOWED, {"url": "http://localhost/", "token": "/etc/t"})["hooks"]
    assert hooks["probe"]["auth_file"] == "/etc/t"


def test_parameters_are_named_all_at_once(node: NodeDirectory) -> None:
    own(node, "mine", OWN)
    found = shelf(node).load("mine")
    with pytest.raises(UsageError) as caught:
        found.settings(FOLLOWED, {"ur": "http://a/", "token": "relative"})
    for said in (
        "no parameter ur; did you mean url?",
        "token = 'relative' is not an absolute path",
        "url is missing",
    ):
        assert said in caught.value.reason
    assert caught.value.hint == "add --param url=http://localhost/"
    assert found.name == "mine"
    with pytest.raises(UsageError, match="recipe mine: it has no parameter ur") as caught:
        found.settings(FOLLOWED, {"ur": "http://a/", "url": "http://localhost/"})
    assert caught.value.hint == "instep recipe show mine"
    with pytest.raises(UsageError, match="without a user"):
        found.settings(FOLLOWED, {"url": "http://me:secret@a/"})
    with pytest.raises(ConfigError) as told:  # the result is read as instep.toml is: plain http elsewhere
        found.settings(FOLLOWED, {"url": "http://elsewhere.example/"})
    assert told.value.facts["problems"][0]["key"] == "partner.hooks.probe.tls"  # type: ignore[index]
    with pytest.raises(ConfigError, match="1 problem"):  # and a secret in the fileset is one
        found.settings(FOLLOWED, {"url": "http://localhost/", "token": "/srv/app/t"}, Path("/srv/app"))


@pytest.mark.parametrize("key", ["example", "default"])
def test_what_a_recipe_shows_is_of_its_own_kind(node: NodeDirectory, key: str) -> None:
    own(node, "mine", OWN.replace('example = "http://localhost/"', f'{key} = "localhost"'))
    with pytest.raises(ConfigError) as caught:
        shelf(node).load("mine")
    assert [problem["key"] for problem in caught.value.facts["problems"]] == ["parameters.url"]  # type: ignore[attr-defined]


def test_every_problem_has_its_line() -> None:
    text = (
        OWN.replace('about = "Mine"', "abut = 1")
        .replace("[writer]", '[writer]\npath = "/x"\nsetle = "5s"')
        .replace("{{url}}x", "{{nothing}}")
        .replace('kind = "path"', 'kind = "paht"')
    )
    found = problems(text)
    assert {(1, "abut"), (8, "parameters.token"), (9, "parameters.token.kind")} < set(found) | {
        (8, "parameters.token")
    }
    lines = {key: line for line, key in found}
    assert lines["writer.path"] == 17
    assert lines["partner.hooks.probe.http"] == 22
    assert "about" in lines
    assert "parameters.url" in lines, "used nowhere"


@pytest.mark.parametrize(
    ("change", "line", "key"),
    [
        (("ignore", "ignroe"), 17, "writer.ignroe"),
        (('run = ["/bin/true"]', 'run = "/bin/true"'), 14, "both.hooks.validate.run"),
        (('"GET {{url}}x"', '"FETCH {{url}}x"'), 20, "partner.hooks.probe.http"),
        (("[partner.hooks]", '[partner]\nignore = ["x"]\n[partner.hooks]'), 20, "partner.ignore"),
        (("[writer]", "[writter]"), 16, "writter"),
        (("[parameters.token]", "[parameters.Token]"), 8, "parameters.Token"),
        (("help = ", "help "), 6, ""),
    ],
)  # fmt: skip
def test_settings_are_checked_where_the_recipe_has_them(change: tuple[str, str], line: int, key: str) -> None:
    assert (line, key) in problems(OWN.replace(*change, 1))


def test_a_recipe_that_others_could_write_is_not_used(node: NodeDirectory, tmp_path: Path) -> None:
    path = own(node, "mine", OWN)
    path.chmod(0o660)
    with pytest.raises(RefusedError) as caught:
        shelf(node).load("mine")
    assert caught.value.error_code == "writable_recipe"
    path.chmod(0o600)
    with pytest.raises(RefusedError) as caught:  # a followed fileset: another node wrote it
        shelf(node).load("mine", [tmp_path])
    assert caught.value.error_code == "foreign_recipe"
    path.write_text("about = " + "x" * 70_000)
    with pytest.raises(ConfigError, match="larger"):
        shelf(node).load("mine")
    with pytest.raises(InstepError, match="did you mean mapserver"):
        shelf(node).load("mapsrever")
