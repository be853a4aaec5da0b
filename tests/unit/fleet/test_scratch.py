"""Folders for the length of a call: a killed program's go with the next sweep, those in use and of others stay."""

from __future__ import annotations

import os
import signal
import tempfile
from pathlib import Path

import pytest

from instep.fleet.scratch import PREFIX, scratch_folder, sweep_scratch


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path


def killed_in_a_call() -> None:
    pid = os.fork()
    if pid == 0:
        with scratch_folder() as folder:
            (folder / "view").mkdir()
            (folder / "view/link").symlink_to("/etc")
            os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_folder_lasts_as_long_as_its_block(base: Path) -> None:
    with scratch_folder() as folder:
        assert folder.parent == base and folder.stat().st_mode & 0o777 == 0o700
        (folder / "file").write_text("text")
    assert os.listdir(base) == []


def test_a_killed_program_s_folder_is_swept_and_one_in_use_stays(base: Path) -> None:
    killed_in_a_call()
    killed_in_a_call()
    with scratch_folder() as folder:
        assert sweep_scratch() == 2
        assert os.listdir(base) == [folder.name]


def test_only_folders_of_this_user_are_swept(base: Path) -> None:
    (base / "other").mkdir()
    (base / f"{PREFIX}link").symlink_to(base / "other")
    (base / f"{PREFIX}file").write_text("text")
    os.mkfifo(base / f"{PREFIX}pipe")
    if os.geteuid() == 0:
        (base / f"{PREFIX}foreign").mkdir()
        os.chown(base / f"{PREFIX}foreign", 12_345, -1)
    before = sorted(os.listdir(base))
    assert sweep_scratch() == 0
    assert sorted(os.listdir(base)) == before


def test_a_folder_that_is_swept_before_it_is_locked_is_made_anew(
    base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, made = tempfile.mkdtemp, []

    def swept_at_once(prefix: str) -> str:
        made.append(make(prefix=prefix))
        if len(made) == 1:
            assert sweep_scratch() == 1
        return made[-1]

    monkeypatch.setattr(tempfile, "mkdtemp", swept_at_once)
    with scratch_folder() as folder:
        assert str(folder) == made[1] and folder.is_dir()
