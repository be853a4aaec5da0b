"""``fileset external``: the file after each command, and the list of each application's parts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import run

FILE = """name = "s1"
[filesets.site]
path = "/srv/site"   # the web root
writer = "s1"
ignore = ["/cache/"]
[filesets.site.hooks]
reload = { touch = "/run/site" }
[filesets.docs]
path = "/srv/docs"
writer = "p1"
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "instep.toml").write_text(FILE)
    monkeypatch.setenv("INSTEP_DIR", str(tmp_path))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    found = run(["fileset", "external", *words, "--json"])
    out = capsys.readouterr().out
    assert found == code, out
    return json.loads(out)


def test_a_part_is_named_marked_and_removed(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: each command changes its part alone, once; a mark takes the other's place; the rest of the file stays."""
    assert told(capsys, "add", "site", "cms-db")["changed"]
    assert not told(capsys, "add", "site", "cms-db")["changed"]
    told(capsys, "add", "site", "mail", "--kind", "service", "--not-covered", "one for all")
    told(capsys, "add", "site", "cms-db", "--not-covered", "rebuilt each night")
    told(capsys, "add", "site", "cms-db", "--covered-by", "streaming replication")
    (row,) = told(capsys, "list", "site")["filesets"]
    assert (row["path"], row["ignore"]) == ("/srv/site", ["/cache/"])
    assert row["external"] == [
        {"name": "cms-db", "kind": "database", "covered_by": "streaming replication", "not_covered": None, "marked": True},
        {"name": "mail", "kind": "service", "covered_by": None, "not_covered": "one for all", "marked": True},
    ]  # fmt: skip
    told(capsys, "remove", "site", "mail")
    told(capsys, "remove", "site", "cms-db")
    assert not told(capsys, "remove", "site", "cms-db")["changed"]
    assert (node / "instep.toml").read_text() == FILE


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("add", "site", "db", "--covered-by", "x", "--not-covered", "y"), 2),
        (("add", "site", "db", "--covered-by", "postgresql://cms:geheim@db/cms"), 3),
        (("add", "site", "db", "--covered-by", ""), 3),
        (("add", "maps", "db"), 2),
        (("list", "maps"), 2),
    ],
)
def test_a_wrong_part_changes_nothing(
    node: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int
) -> None:
    error = told(capsys, *words, code=code)["error"]
    assert "geheim" not in json.dumps(error)
    assert (node / "instep.toml").read_text() == FILE


@pytest.mark.usefixtures("node")
def test_the_list_names_the_parts_of_each_application(capsys: pytest.CaptureFixture[str]) -> None:
    told(capsys, "add", "site", "cms-db")
    assert run(["fileset", "external", "list"]) == 0
    text = capsys.readouterr().out
    assert "ignored files: /cache/" in text
    assert "the database cms-db: not marked" in text
    assert "next: instep fileset external add site cms-db --covered-by TEXT" in text
    assert "docs   /srv/docs, written on p1" in text


def test_an_inline_array_is_edited_too(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (node / "instep.toml").write_text(FILE.replace("ignore", 'external = [{ name = "a" }]\nignore'))
    told(capsys, "add", "site", "b", "--covered-by", "itself")
    told(capsys, "remove", "site", "a")
    (row,) = told(capsys, "list", "site")["filesets"]
    assert [(one["name"], one["covered_by"]) for one in row["external"]] == [("b", "itself")]
