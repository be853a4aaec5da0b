"""An object beside a root, or one that an operator names, may be swapped by any user who may write there: it is never
followed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.errors import InstepError, RefusedError, ResourceError
from instep.model.ids import FilesetName, NodeName
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Journal
from instep.tree.root.marker import create_marker, remove_marker
from instep.tree.root.place import Place, prepare_place, resolve_place
from instep.tree.stage.stages import clear_stages
from tests.support.apply_world import File, World

STRANGER = 65_534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user, which only root may")


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World.make(tmp_path)
    made.apply({b"a": b"1"})
    made.apply({b"a": b"2"})
    return made


def refusal(act: Callable[[], object]) -> InstepError:
    with pytest.raises(InstepError) as caught:
        act()
    return caught.value


def seen_below(top: Path) -> list[tuple[str, int, bytes]]:
    return [
        (str(path.relative_to(top)), path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
        for path in sorted(top.rglob("*"))
    ]


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    """Files of root's, named like the files of a control folder."""
    top = tmp_path / "victim"
    for name in ("stage/private/key", "archive/old/index", "journal"):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_text("of root")
    return top


def _a_symlink(world: World, victim: Path) -> None:
    world.place.control.symlink_to(victim)


def _a_folder_with_symlinks(world: World, victim: Path) -> None:
    control = world.place.control
    control.mkdir(mode=0o700)
    for name in ("stage", "archive", "journal"):
        (control / name).symlink_to(victim / name)
    os.chown(control, STRANGER, STRANGER)


def _another_directory_of_ours(world: World, victim: Path) -> None:
    victim.chmod(0o700)
    victim.rename(world.place.control)
    victim.symlink_to(world.place.control)


def _that_of_another_root(world: World, victim: Path) -> None:
    root = victim.parent / "other"
    root.mkdir()
    other = FilesetName("other")
    create_marker(root, other, NodeName("s1"))
    place = resolve_place(root, other)
    prepare_place(place)
    place.control.rename(world.place.control)


@as_root
@pytest.mark.parametrize(
    ("swapped_in", "why"),
    [
        (_a_symlink, "not a directory"),
        (_a_folder_with_symlinks, "belongs to uid 65534, and this daemon runs as uid 0"),
        (_another_directory_of_ours, "no file place"),
        (_that_of_another_root, "other"),
    ],
)
@pytest.mark.parametrize("act", ["apply", "clear", "prune", "list", "journal"])
def test_what_came_in_place_of_the_control_folder_is_refused_by_name(
    world: World, victim: Path, swapped_in: Callable[[World, Path], None], why: str, act: str
) -> None:
    batches = [batch.name for batch in Archive(world.place).batches()]
    assert batches
    before = seen_below(victim)
    world.place.control.rename(world.place.control.with_name("taken away"))
    swapped_in(world, victim)
    acts: dict[str, Callable[[], object]] = {
        "apply": lambda: world.apply({b"a": b"3"}),
        "clear": lambda: clear_stages(world.place),
        "prune": lambda: Archive(world.place).prune(batches),
        "list": lambda: Archive(world.place).batches(),
        "journal": lambda: Journal.load(world.place),
    }
    refused = refusal(acts[act])
    assert refused.error_code == "control_replaced"
    assert why in str(refused)
    assert f"instep fileset set {world.place.fileset} stage=" in str(refused.hint)
    assert seen_below(victim) == before


def test_a_directory_that_holds_something_is_not_taken_for_a_control_folder(world: World) -> None:
    control = world.place.control
    control.rename(control.with_name("taken away"))
    control.mkdir(mode=0o755)
    (control / "precious").write_text("x")
    assert refusal(lambda: prepare_place(world.place)).error_code == "stage_unusable"
    assert stat.S_IMODE(control.stat().st_mode) == 0o755
    (control / "precious").unlink()
    prepare_place(world.place)
    assert stat.S_IMODE(control.stat().st_mode) == 0o700


def test_a_marker_below_a_symlink_is_not_removed(tmp_path: Path) -> None:
    root, victim = tmp_path / "root", tmp_path / "victim"
    root.mkdir()
    create_marker(root, FilesetName("maps"), NodeName("s1"))
    (root / ".instep").rename(victim)
    (root / ".instep").symlink_to(victim)
    refused = refusal(lambda: remove_marker(root, FilesetName("maps"), NodeName("s1")))
    assert refused.error_code == "marker_damaged"
    assert (victim / "id").exists()


@as_root
def test_a_marker_that_a_stranger_made_in_a_directory_for_everybody_is_none(tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o1777)
    create_marker(shared, FilesetName("maps"), NodeName("s1"))
    os.chown(shared / ".instep/id", STRANGER, STRANGER)
    place = Place(shared, tmp_path / ".instep-maps", FilesetName("maps"))
    prepare_place(place)
    refused = refusal(lambda: World(place).apply({b"a": b"1"}))
    assert (refused.error_code, f"uid {STRANGER}" in str(refused)) == ("marker_damaged", True)


# --- what an operator names ------------------------------------------------------------------------------------


@as_root
def test_what_is_restored_follows_no_symlink_of_another_user(world: World, tmp_path: Path) -> None:
    secret, found = tmp_path / "secret", tmp_path / "found"
    secret.mkdir(mode=0o700)
    world.apply({b"styles/road": b"one"})
    world.apply({b"styles/road": b"two"})
    archive = Archive(world.place)
    found.mkdir()
    (found / "styles").symlink_to(secret)
    refused = refusal(lambda: archive.restore(b"styles/road", found))
    assert (refused.error_code, str(found / "styles") in str(refused)) == ("target_is_symlink", True)
    everybody = tmp_path / "everybody"
    everybody.mkdir()
    everybody.chmod(0o1777)
    (everybody / "found").symlink_to(secret)
    for to in (everybody / "found", everybody / "found" / "deeper"):
        refused = refusal(lambda to=to: archive.restore(b"styles/road", to))  # type: ignore[misc]
        assert (refused.error_code, str(everybody / "found") in str(refused)) == ("target_is_symlink", True)
    assert os.listdir(secret) == []


def test_a_symlink_that_only_we_can_have_made_is_followed_and_missing_directories_are_made(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    restored = Archive(world.place).restore(b"a", tmp_path / "link/new/deep")
    assert restored == os.fsencode(tmp_path / "link/new/deep/a")
    assert (tmp_path / "there/new/deep/a").read_bytes() == b"1"
    assert os.listdir(tmp_path / "there/new/deep") == ["a"]


def test_a_file_in_the_way_of_what_is_restored_is_named(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ResourceError, match="file"):
        Archive(world.place).restore(b"a", tmp_path / "file")
    (tmp_path / "a").write_text("mine")
    with pytest.raises(RefusedError, match="exists already"):
        Archive(world.place).restore(b"a", tmp_path)
    assert (tmp_path / "a").read_text() == "mine"


def test_set_id_bits_that_are_found_come_out_of_no_archive(world: World, tmp_path: Path) -> None:
    """They are local drift: the owner of the tree set them."""
    world.apply({b"d/tool": File(b"#!/bin/sh\n", 0o755), b"a": b"2"})
    (world.root / "d/tool").chmod(0o4755)
    (world.root / "d").chmod(0o2555)
    world.apply({b"a": b"2"})
    Archive(world.place).restore(b"d", tmp_path / "to")
    modes = [stat.S_IMODE((tmp_path / "to" / name).stat().st_mode) for name in ("d", "d/tool")]
    assert modes == [0o555, 0o755]
