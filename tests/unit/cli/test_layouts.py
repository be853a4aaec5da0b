"""``layout move`` as an operator uses it: what it refuses by name, and that nothing is changed then."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import run
from tests.support.killed_moves import PROPERTIES, listing, make, pointed, wanted


@pytest.fixture(autouse=True)
def node_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTEP_DIR", str(tmp_path / "node"))
    return tmp_path / "node"


@pytest.fixture
def json_of(capsys: pytest.CaptureFixture[str]) -> Any:
    def call(*words: object) -> tuple[int, dict[str, Any]]:
        code = run(["layout", *map(str, words), "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def move(source: Path, dest: Path, *more: str) -> tuple[object, ...]:
    return ("move", source, dest, "--layout", "deploy-server", *more)


def test_a_dry_run_shows_all_and_changes_nothing(tmp_path: Path, json_of: Any) -> None:
    source, dest = make(tmp_path)
    before = listing(tmp_path)
    code, found = json_of(*move(source, dest, "--dry-run"))
    assert code == 0 and listing(tmp_path) == before
    there = {item["from"]: item["there"] for item in found["items"]}
    assert not there["var/sa"] and not there["conf/server/log4j.properties"] and there["logs"]
    assert found["set"] == {
        "file": "conf/server/installed.properties", "key": "server.appdata.dir", "was": "/opt/old", "value": str(dest),
    }  # fmt: skip
    assert found["form"] == "before-6.1.1.5" and found["to_copy"] == 12


def test_a_newer_server_s_folder_becomes_the_destination_and_its_version_stays(
    tmp_path: Path, json_of: Any
) -> None:
    source, dest = tmp_path / "server", tmp_path / "shared"
    (source / "appdata/conf").mkdir(parents=True)
    (source / "appdata/var").mkdir(mode=0o750)
    (source / "appdata/conf/installed.version").write_text("8.0.1")
    (source / "appdata/conf/encryption.keystore").write_bytes(b"k")
    (source / "conf/server").mkdir(parents=True)
    (source / "conf/server/installed.properties").write_bytes(PROPERTIES)
    goal = listing(source / "appdata")
    code, found = json_of(*move(source, dest, "--delete-originals"))
    assert (code, found["form"], found["left"]) == (0, "appdata", []), (
        "an item that is only copied stays by the layout"
    )
    assert listing(dest) == goal
    assert sorted(listing(source / "appdata")) == ["conf", "conf/installed.version"]
    assert (source / "conf/server/installed.properties").read_bytes() == pointed(dest)
    code, found = json_of(*move(source, dest))
    assert code == 0 and found["already_moved"], "the same command again has nothing to do"


def test_a_file_that_changes_meanwhile_stops_the_move_and_nothing_is_deleted(
    tmp_path: Path, json_of: Any
) -> None:
    source, dest = make(tmp_path)
    before, over = sorted(listing(source)), threading.Event()
    with (source / "logs/server.log").open("ab", buffering=0) as log:

        def write() -> None:
            while not over.is_set():
                log.write(b"one more line\n")
                over.wait(0.001)

        writer = threading.Thread(target=write)
        writer.start()
        try:
            code, found = json_of(*move(source, dest, "--delete-originals"))
        finally:
            over.set()
            writer.join()
    assert (code, found["error"]["code"]) == (4, "changed_since")
    assert found["error"]["facts"]["paths"] == ["logs/server.log"]
    assert sorted(listing(source)) == before
    assert (source / "conf/server/installed.properties").read_bytes() == PROPERTIES
    goal = wanted(source)
    assert json_of(*move(source, dest))[0] == 0, "it goes on when the writer has ended"
    assert listing(dest) == goal


def test_the_application_is_stopped_first_and_started_at_the_end(tmp_path: Path, json_of: Any) -> None:
    source, dest = make(tmp_path)
    said = tmp_path / "said"
    program = source / "bin/server"
    program.parent.mkdir()
    setting = source / "conf/server/installed.properties"
    program.write_text(
        f'#!/bin/sh\necho "$1: $(grep -c {dest} {setting})" >> {said}\n'
        f'if [ "$1" = stop ]; then kill "$(cat {source}/var/server.pid)"; rm {source}/var/server.pid; fi\n'
    )
    program.chmod(0o755)
    with subprocess.Popen(["sleep", "300"]) as application:
        (source / "var/server.pid").write_text(f"{application.pid}\n")
        assert json_of(*move(source, dest))[0] == 0
        assert application.wait(30) == -15
    assert said.read_text() == "stop: 0\nstart: 1\n", "started only when the setting names the new place"


def test_an_application_that_cannot_be_stopped_is_named(tmp_path: Path, json_of: Any) -> None:
    source, dest = make(tmp_path)
    (source / "var/server.pid").write_text(str(os.getpid()))
    before = listing(tmp_path)
    code, found = json_of(*move(source, dest))
    assert (code, found["error"]["code"], found["error"]["facts"]["pid"]) == (
        4,
        "application_runs",
        os.getpid(),
    )
    assert listing(tmp_path) == before


@pytest.mark.parametrize("text", ["2147483648", "99999999999999999999", "0", "-1", "none"])
def test_a_pid_file_that_names_no_process_stops_no_move(tmp_path: Path, json_of: Any, text: str) -> None:
    source, dest = make(tmp_path)
    (source / "var/server.pid").write_text(text)
    assert json_of(*move(source, dest))[0] == 0


def _link_in_the_way(source: Path, dest: Path) -> None:
    os.rename(source / "logs", source.parent / "elsewhere")
    (source / "logs").symlink_to(source.parent / "elsewhere")


def _other_file(source: Path, dest: Path) -> None:
    (dest / "conf").mkdir(parents=True)
    (dest / "conf/server.keystore").write_bytes(b"another key")


def _link_into_source(source: Path, dest: Path) -> None:
    (source / "patches/link").symlink_to(source / "logs/server.log")


def _twice(source: Path, dest: Path) -> None:
    (source / "conf/server/installed.properties").write_bytes(PROPERTIES + b"server.appdata.dir:x\n")


def _no_setting(source: Path, dest: Path) -> None:
    (source / "conf/server/installed.properties").unlink()


def _empty(source: Path, dest: Path) -> None:
    os.rename(source, source.parent / "away")
    source.mkdir()


@pytest.mark.parametrize(
    ("spoil", "target", "code", "error"),
    [
        (_link_in_the_way, "shared", 4, "outside_source"),
        (_other_file, "shared", 4, "destination_differs"),
        (_link_into_source, "shared", 4, "links_into_source"),
        (_twice, "shared", 4, "key_twice"),
        (_no_setting, "shared", 4, "no_properties"),
        (_empty, "shared", 4, "no_form"),
        (None, "server", 4, "destination_inside"),
        (None, "server/logs/shared", 4, "destination_inside"),
        (None, ".", 4, "destination_inside"),
        (None, "nowhere/shared", 2, "bad_destination"),
        (None, "server/conf/encryption.keystore", 2, "bad_destination"),
    ],
)  # fmt: skip
def test_bad_input_is_named_and_nothing_is_changed(
    tmp_path: Path, json_of: Any, spoil: Any, target: str, code: int, error: str
) -> None:
    source, dest = make(tmp_path)
    if spoil is not None:
        spoil(source, dest)
    before = listing(tmp_path)
    found = json_of(*move(source, tmp_path / target, "--delete-originals"))
    assert (found[0], found[1]["error"]["code"]) == (code, error)
    assert listing(tmp_path) == before


@pytest.mark.parametrize(
    ("was", "becomes", "why"),
    [
        ('move = "logs"', 'move = "../logs"', "leads out of its folder"),
        ('move = "logs"', 'move = "/var/log"', "leads out of its folder"),
        ('move = "logs"', 'steal = "logs"', "is not a known key"),
        ('move = "logs"', 'move = "logs", copy = "logs"', "has not one of move and copy"),
        ('move = "logs"', 'move = "var/sa"', "names var/sa twice"),
        ('move = "logs"', 'move = "logs", to = "var/sa"', "to one place"),
        ('move = "logs"', 'move = "conf/server"', "sets a key in"),
    ],
)  # fmt: skip
def test_a_wrong_layout_is_refused_with_its_line(
    tmp_path: Path, node_directory: Path, json_of: Any, was: str, becomes: str, why: str
) -> None:
    from tests.support.killed_moves import FILE

    own = node_directory / "layouts"
    own.mkdir(parents=True)
    (own / "mine.toml").write_text(FILE.read_text().replace(was, becomes))
    (own / "mine.toml").chmod(0o644)
    code, found = json_of("show", "mine")
    assert (code, found["error"]["code"]) == (3, "bad_layout")
    assert any(
        why in problem["why"] and problem["line"] for problem in found["error"]["facts"]["problems"]
    ), found
