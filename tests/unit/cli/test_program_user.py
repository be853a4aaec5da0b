"""``layout move`` by root: the application's own programs run as their owner, and none that a third user can change."""

from __future__ import annotations

import json
import os
import pwd
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import run
from tests.support.killed_moves import listing, make

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can run a program as another user")
OWNER, OTHER = pwd.getpwnam("daemon"), pwd.getpwnam("bin")
UNKNOWN_UID = 3_999_999_999


@pytest.fixture
def source() -> Iterator[Path]:
    """An installation of OWNER's. Its program ends it, and writes down the user that it runs as."""
    with tempfile.TemporaryDirectory() as base:
        at = Path(base) / "apps"
        at.mkdir()
        source, _ = make(at)
        (source / "bin").mkdir()
        (source / "bin/server").write_text(
            f'#!/bin/sh\necho "$1 $(id -u) $(id -g) $(id -G)" >> {source}/said\nrm -f {source}/var/server.pid\n'
        )
        (source / "bin/server").chmod(0o755)
        (source / "var/server.pid").write_text(f"{os.getpid()}\n")
        for each in (Path(base), at, source, source / "bin"):
            each.chmod(0o755)
        for each in (source, *source.rglob("*")):
            os.chown(each, OWNER.pw_uid, OWNER.pw_gid, follow_symlinks=False)
        yield source


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    monkeypatch.setenv("INSTEP_DIR", "/nowhere")

    def call(source: Path) -> tuple[int, dict[str, Any]]:
        code = run(["layout", "move", str(source), f"{source}.new", "--layout", "deploy-server", "--json"])
        return code, json.loads(capsys.readouterr().out)

    return call


def test_the_program_runs_as_its_owner(source: Path, moved: Any) -> None:
    assert moved(source)[0] == 0
    groups = " ".join(map(str, os.getgrouplist(OWNER.pw_name, OWNER.pw_gid)))
    own = f"{OWNER.pw_uid} {OWNER.pw_gid} {groups}"
    assert (source / "said").read_text() == f"stop {own}\nstart {own}\n"


def _owned_by(path: Path, uid: int) -> None:
    os.chown(path, uid, -1, follow_symlinks=False)


def _through_a_link(source: Path) -> None:
    """Another user's link leads back to the program: every part of the way but the link is in order."""
    (source / "bin").rename(source / "real")
    link = source.parent / "link"
    link.symlink_to(source / "real")
    _owned_by(link, OTHER.pw_uid)
    (source / "bin").symlink_to(link)
    _owned_by(source / "bin", OWNER.pw_uid)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda source: (source / "bin/server").chmod(0o775),
        lambda source: (source / "bin/server").chmod(0o757),
        lambda source: (source / "bin").chmod(0o777),
        lambda source: source.parent.chmod(0o775),
        lambda source: _owned_by(source / "bin/server", OTHER.pw_uid),
        lambda source: _owned_by(source / "bin", OTHER.pw_uid),
        lambda source: _owned_by(source.parent, OTHER.pw_uid),
        lambda source: _owned_by(source / "bin/server", 0),
        _through_a_link,
    ],
)  # fmt: skip
def test_a_program_that_others_can_change_is_not_run(
    source: Path, moved: Any, spoil: Callable[[Path], None]
) -> None:
    spoil(source)
    before = listing(source.parent)
    code, found = moved(source)
    assert code == 4
    while code != 0:  # each step names one object
        assert (code, found["error"]["code"]) == (4, "unsafe_program")
        assert listing(source.parent) == before, "nothing was stopped, and nothing moved"
        steps = found["error"]["hint"].removeprefix("look at it, then: ").split("; or stop")[0]
        subprocess.run(steps, shell=True, check=True)  # as the operator types it
        before = listing(source.parent)
        code, found = moved(source)
    assert (source / "said").read_text().startswith(f"stop {OWNER.pw_uid} "), found


def test_an_owner_that_the_machine_does_not_know_is_named(source: Path, moved: Any) -> None:
    for each in (source, *source.rglob("*")):
        _owned_by(each, UNKNOWN_UID)
    code, found = moved(source)
    assert (code, found["error"]["code"]) == (4, "unsafe_program")
    assert str(UNKNOWN_UID) in found["error"]["reason"] and not (source / "said").exists()
