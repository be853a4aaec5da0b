"""Errors that only real directories show: overlays, mounts below the root, projects, modes without root's
capabilities."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from instep.errors import InstepError, ResourceError
from instep.tree.root.place import prepare_place
from instep.tree.stage.ignored import refuse_ignored_in_the_way
from instep.tree.switch.recover import RecoveredKind, recover
from instep.tree.switch.switch import switch
from tests.support.apply_world import START_NS, Dir, File, Link, Tree, World
from tests.support.mounts import loop_xfs, mounted, need_root

BASE: Tree = {
    b"a/x": b"1",
    b"dir/one": b"one",
    b"dir/sub/two": b"two",
    b"flat/in": b"in",
    b"moving/m": b"m",
    b"moving/n/o": b"o",
    b"z": b"z",
}
NEXT: Tree = {b"a/x": b"new", b"flat": b"now a file", b"moved/m": b"m", b"moved/n/o": b"o", b"z": b"new z"}


def overlay_of(tmp_path: Path, tree: Tree) -> Iterator[World]:
    """A root whose files come from a lower layer, as in a container's image."""
    lower, upper, work = (tmp_path / name for name in ("lower", "upper", "work"))
    for each in (lower, upper, work):
        each.mkdir()
    image = World.make(lower)
    image.apply(tree)
    shutil.rmtree(image.place.control)
    options = f"lowerdir={lower},upperdir={upper},workdir={work},redirect_dir=off"
    with mounted("overlay", tmp_path / "merged", source="overlay", options=options) as merged:
        world = World.reopen(merged)
        prepare_place(world.place)
        world.pages, world.contents, world.live = image.pages, image.contents, image.live
        world.number = image.number
        yield world


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[World]:
    yield from overlay_of(tmp_path, BASE)


def apply(world: World, tree: Tree) -> None:
    journal = world.stage(world.generation(tree), now_ns=START_NS + 10**9)
    switch(world.place, journal, local=world.local, get_page=world.page, now_ms=5)


def test_directories_of_a_lower_layer_go_entry_by_entry(overlay: World) -> None:
    apply(overlay, NEXT)
    assert overlay.holds(NEXT)


def test_and_come_back_when_the_switch_cannot_go_on(overlay: World, monkeypatch: pytest.MonkeyPatch) -> None:
    from instep.tree.root import failpoints

    failpoints.arm("switch.closing", "eio")
    try:
        with pytest.raises(InstepError):
            apply(overlay, NEXT)
        found = recover(overlay.place, local=overlay.local, get_page=overlay.page, now_ms=6)
    finally:
        failpoints.disarm_all()
    assert found.kind is RecoveredKind.UNDONE
    assert overlay.holds(BASE)


def test_a_mount_below_the_root_is_named_before_the_first_step(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.apply(BASE)
    with mounted("tmpfs", world.root / "dir" / "sub"):
        with pytest.raises(ResourceError) as caught:
            apply(world, {**BASE, b"a/x": b"new", b"dir/sub/two": b"new"})
        assert caught.value.error_code == "mount_in_the_way"
        assert f"umount {world.root}/dir/sub" in str(caught.value.hint)
        assert (world.root / "a" / "x").read_bytes() == b"1"
        # A newer generation that leaves it alone goes past it.
        apply(world, {**BASE, b"a/x": b"new"})
    assert (world.root / "a" / "x").read_bytes() == b"new"


def test_a_mount_in_a_directory_that_a_link_replaces_is_named_as_a_mount(tmp_path: Path) -> None:
    world = World.make(tmp_path)
    world.apply(BASE)
    (world.root / "dir" / "own").mkdir()
    journal = world.stage(
        world.generation({b"dir": Link(b"/srv"), **{p: BASE[p] for p in BASE if not p.startswith(b"dir/")}})
    )
    with mounted("tmpfs", world.root / "dir" / "own"):
        with pytest.raises(ResourceError) as caught:
            refuse_ignored_in_the_way(world.place, journal)
        assert caught.value.error_code == "mount_in_the_way"
        assert f"umount {world.root}/dir/own" in str(caught.value.hint)
    refuse_ignored_in_the_way(world.place, journal)


CLOSED: Tree = {
    b"ro": Dir(0o555),
    b"ro/sub": Dir(0o111),
    b"ro/sub/deep/x": b"x",
    b"ro/sub/deep": Dir(0o500),
    b"no": Dir(0),
    b"no/file": b"n",
    b"secret": File(b"s", 0),
}
STEPS: tuple[Tree, ...] = (
    CLOSED,
    {**CLOSED, b"ro/sub/deep/x": b"changed", b"ro/sub/deep/y": b"y", b"secret": File(b"other", 0)},
    {
        b"moved/sub/deep/x": b"x",
        b"moved": Dir(0o555),
        b"moved/sub": Dir(0o111),
        b"moved/sub/deep": Dir(0o500),
    },
    {b"moved": Link(b"nowhere"), b"secret": File(b"s", 0)},
    {},
)


def test_a_daemon_without_capabilities_stages_and_switches_directories_that_nobody_may_write(
    tmp_path: Path,
) -> None:
    """In a process of its own, which has given its capabilities away."""
    need_root("gives its capabilities away")
    if shutil.which("setpriv") is None:
        pytest.skip("needs setpriv")
    words = [
        "setpriv",
        "--bounding-set=-all",
        "--inh-caps=-all",
        sys.executable,
        "-W",
        "error",
        __file__,
        str(tmp_path),
    ]
    source = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run(
        words,
        env={**os.environ, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


def through_all_steps(at: Path) -> None:
    world = World.make(at)
    for tree in STEPS:
        world.apply(tree)
        for name, entry in sorted(tree.items()):
            if isinstance(entry, Dir):
                found = (
                    os.lstat(world.root / os.fsdecode(name)).st_mode & 0o7777
                    if b"/" not in name
                    else entry.mode
                )
                assert found == entry.mode, name


def project_of(directory: Path, number: int) -> None:
    """New objects in ``directory`` belong to project ``number``: ``FS_IOC_FSSETXATTR`` with ``PROJINHERIT``."""
    import fcntl
    import struct

    fd = os.open(directory, os.O_RDONLY)
    try:
        raw = bytearray(fcntl.ioctl(fd, 0x801C581F, bytes(28)))
        flags, *_ = struct.unpack_from("I", raw, 0)
        struct.pack_into("I", raw, 0, flags | 0x200)
        struct.pack_into("I", raw, 12, number)
        fcntl.ioctl(fd, 0x401C5820, bytes(raw))
    finally:
        os.close(fd)


def test_a_directory_of_another_project_takes_what_is_staged_outside_of_it(tmp_path: Path) -> None:
    with loop_xfs(tmp_path / "image", tmp_path / "disk") as disk:
        try:
            world = World.make(disk)
            world.apply(BASE)
            for path in ("dir", "dir/sub", "a"):
                project_of(world.root / path, 7)
        except OSError as error:
            pytest.skip(f"no projects on this file system: {error}")
        target = {
            **BASE,
            b"a/x": b"new",
            b"dir/three/four": b"4",
            b"dir/sub/two": b"new",
        }
        apply(world, target)
        assert world.holds(target)


if __name__ == "__main__":
    through_all_steps(Path(sys.argv[1]))


def test_a_file_system_that_is_mounted_read_only_is_named_with_the_command_that_helps(tmp_path: Path) -> None:
    """Goal: the hint names the very mount, and works as it is typed."""
    need_root("mounting")
    at = tmp_path / "with space"
    at.mkdir()
    with mounted("tmpfs", at) as there:
        (there / "root").mkdir()
        place = World.reopen(there).place
        subprocess.run(["mount", "-o", "remount,ro", there], check=True)
        with pytest.raises(ResourceError) as caught:
            prepare_place(place)
        hint = caught.value.hint or ""
        command = hint.partition("then: ")[2]
        assert command == f"mount -o remount,rw '{there}'"
        subprocess.run(["sh", "-c", command], check=True)
        prepare_place(place)
