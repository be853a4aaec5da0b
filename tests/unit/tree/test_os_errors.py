"""Every error of the kernel that an apply can meet names the path that people know, the operation, and what helps."""

from __future__ import annotations

import errno
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.errors import InstepError, Retry
from instep.testing.world.disk import ERRNOS
from instep.tree.archive.outlet import open_outlet, put_out
from instep.tree.root import failpoints
from instep.tree.root.os_errors import help_for, tree_error
from instep.tree.stage.stages import clear_stages
from tests.support.apply_world import World
from tests.support.killed_applies import NEW, OLD, prepare, second

PATHS = {
    parent for path in (*OLD, *NEW) for parent in (path.decode(), *map(str, Path(path.decode()).parents))
}
MET = (*ERRNOS, "ENOTSUP", "ESTALE", "EMLINK")
STEPS = (1, 4, 7, 10, 12)
OF_THE_WHOLE = ("stage.directories_sealed", "switch.begun", "switch.dirs_synced")


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm_all()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return prepare(tmp_path)


def failed(world: World, spec: str) -> InstepError:
    """The error that an apply with all kinds of steps ends with."""
    with pytest.raises(InstepError) as caught:
        second(world.root.parent, world, spec)
    failpoints.disarm_all()
    return caught.value


def assert_told(error: InstepError) -> None:
    assert re.match(r"maps: .+ cannot be [\w ,]+: ", error.reason), error.reason
    assert error.hint is not None
    assert error.hint.endswith("; then it goes on by itself, at once with: instep retry maps"), error.hint
    assert error.facts["operation"]
    assert error.retry is Retry.LATER
    assert not re.search(r"/proc/|stage/|\bo/", f"{error.reason} {error.hint}"), error.reason


@pytest.mark.parametrize("point", ["stage.laid", "stage.large_laid"])
def test_every_error_of_staging_names_the_path_that_people_know(world: World, point: str) -> None:
    for name in MET:
        error = failed(world, f"{point}={name.lower()}")
        clear_stages(world.place)
        assert_told(error)
        assert error.facts["path"] in PATHS
        assert error.facts["operation"] == "staged"


def test_every_kind_of_step_names_its_path_and_what_was_done(tmp_path: Path) -> None:
    met = set()
    for hit, name in zip(STEPS, MET, strict=False):
        (at := tmp_path / str(hit)).mkdir()
        error = failed(prepare(at), f"switch.step.before:{hit}={name.lower()}")
        assert_told(error)
        assert error.facts["path"] in PATHS
        met.add(error.facts["operation"])
    assert met >= {"made", "replaced", "removed"}, met


@pytest.mark.parametrize("point", OF_THE_WHOLE)
def test_what_belongs_to_no_path_names_the_control_folder(world: World, point: str) -> None:
    error = failed(world, f"{point}=enospc")
    assert_told(error)
    assert error.facts["path"] == str(world.place.control)


def test_no_step_is_left_with_a_gap_and_no_path_is_taken_for_one(tmp_path: Path) -> None:
    at = tmp_path / "{on} b"
    for number in errno.errorcode:
        code, step = help_for(number, at)
        assert code
        assert_told(tree_error(OSError(number, os.strerror(number)), "maps", at, b"a", "replaced"))
        assert step.count("{") == step.count("{on} b"), step


def test_a_disk_without_inodes_is_not_told_to_free_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = os.statvfs_result((4096, 4096, 1000, 900, 900, 50, 0, 0, 0, 255))
    monkeypatch.setattr(os, "statvfs", lambda _: full)
    assert "no free inode" in help_for(errno.ENOSPC, tmp_path)[1]


def test_a_flag_is_named_with_the_command_that_takes_it_away(tmp_path: Path) -> None:
    file = tmp_path / "a b"
    file.write_bytes(b"")
    if subprocess.run(["chattr", "+i", file], capture_output=True, check=False).returncode:
        pytest.skip("chattr is missing, or this file system knows no flags")
    try:
        with pytest.raises(PermissionError) as caught:
            file.write_bytes(b"x")
        error = tree_error(caught.value, "maps", tmp_path, b"a b", "replaced")
        assert error.hint is not None
        assert error.hint.startswith(f"it is immutable: chattr -i '{file}'; ")
    finally:
        subprocess.run(["chattr", "-i", file], check=True)


def test_a_directory_to_restore_to_that_is_full_is_named(tmp_path: Path) -> None:
    def full(_fd: int, _name: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", b"slot")

    with open_outlet(os.fsencode(tmp_path)) as outlet, pytest.raises(InstepError) as caught:
        put_out(outlet, b"a/b", full, shown_as=os.fsencode(tmp_path))
    assert caught.value.error_code == "disk_full"
    assert str(tmp_path / "a/b") in caught.value.reason
    assert "slot" not in caught.value.reason
