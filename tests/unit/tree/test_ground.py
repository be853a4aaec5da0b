"""The ground of the tree: descriptors beneath a root, the marker, the place, digests, failpoints."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from instep.errors import RefusedError, ResourceError, UsageError
from instep.model.ids import FilesetName, NodeName
from instep.tree.objects.digest import SMALL_MAX, digest_fd, read_once
from instep.tree.root import failpoints
from instep.tree.root.beneath import HAS_OPENAT2, Root, rename_exchange, rename_noreplace, syncfs
from instep.tree.root.marker import check_marker, create_marker, open_marked, read_marker, remove_marker
from instep.tree.root.place import prepare_place, resolve_place

DATA, OTHER = FilesetName("data"), FilesetName("other")
S1 = NodeName("s1")


@pytest.fixture(params=["openat2", "walk"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Root]:
    """A root with ``a/b/file``, opened in both ways."""
    if request.param == "openat2" and not HAS_OPENAT2:
        pytest.skip("this kernel has no openat2")
    (tmp_path / "root/a/b").mkdir(parents=True)
    (tmp_path / "root/a/b/file").write_bytes(b"inside")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside/file").write_bytes(b"outside")
    with Root(tmp_path / "root", walk=request.param == "walk") as opened:
        yield opened


def test_root_opens_what_lies_beneath(root: Root) -> None:
    fd = root.open(b"a/b/file", os.O_RDONLY)
    assert os.read(fd, 10) == b"inside"
    os.close(fd)
    assert root.stat(b"a/b/file").st_size == 6
    parent, name = root.open_parent(b"a/b/file")
    assert os.stat(name, dir_fd=parent).st_size == 6
    assert root.stat_or_none(b"a/none/file") is None
    assert root.stat_or_none(b"a/b/file/below") is None


@pytest.mark.parametrize(
    "path", [b"../outside/file", b"a/../../outside/file", b"/etc/passwd", b"link/file", b"a/up/file", b"leaf"]
)
def test_root_refuses_every_way_out(root: Root, path: bytes) -> None:
    os.symlink("../outside", b"link", dir_fd=root.fd)
    os.symlink("../../outside", b"a/up", dir_fd=root.fd)
    os.symlink("../outside/file", b"leaf", dir_fd=root.fd)
    with pytest.raises(OSError) as caught:
        os.close(root.open(path, os.O_RDONLY))
    assert caught.value.errno in (errno.ELOOP, errno.EXDEV, errno.ENOTDIR)


def test_root_refuses_to_create_through_a_symlink(root: Root, tmp_path: Path) -> None:
    os.symlink("../outside", b"link", dir_fd=root.fd)
    with pytest.raises(OSError):
        root.open(b"link/new", os.O_WRONLY | os.O_CREAT, 0o600)
    assert not (tmp_path / "outside/new").exists()


def test_forget_drops_a_moved_directory(root: Root) -> None:
    root.open_parent(b"a/b/file")
    os.rename(b"a", b"z", src_dir_fd=root.fd, dst_dir_fd=root.fd)
    root.forget(b"a")
    assert root.stat_or_none(b"a/b/file") is None


def test_parent_descriptors_stay_bounded(root: Root) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for number in range(200):
        os.mkdir(b"d%d" % number, dir_fd=root.fd)
        root.open_parent(b"d%d/x" % number)
    assert len(os.listdir("/proc/self/fd")) <= before + 64


def test_renames(tmp_path: Path) -> None:
    (tmp_path / "one").write_text("1")
    (tmp_path / "two").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY)
    rename_exchange(fd, b"one", fd, b"two")
    assert (tmp_path / "two").read_text() == "1"
    with pytest.raises(FileExistsError):
        rename_noreplace(fd, b"one", fd, b"two")
    rename_noreplace(fd, b"two", fd, b"three")
    with pytest.raises(FileNotFoundError):
        rename_exchange(fd, b"one", fd, b"none")
    syncfs(fd)
    os.close(fd)


def test_marker_missing_foreign_and_never_recreated(tmp_path: Path) -> None:
    with pytest.raises(RefusedError) as caught:
        check_marker(tmp_path, DATA, S1)
    assert caught.value.error_code == "marker_missing"
    assert read_marker(tmp_path) is None
    made = create_marker(tmp_path, DATA, S1)
    assert check_marker(tmp_path, DATA, S1, made.random) == made
    for node, random, code in ((NodeName("s2"), None, "marker_foreign"), (S1, "0", "marker_replaced")):
        with pytest.raises(RefusedError) as caught:
            check_marker(tmp_path, DATA, node, random)
        assert caught.value.error_code == code
    with pytest.raises(RefusedError) as caught:
        create_marker(tmp_path, DATA, S1)
    assert caught.value.error_code == "marker_exists"
    for take in (lambda: create_marker(tmp_path, OTHER, S1), lambda: open_marked(tmp_path, OTHER)):
        with pytest.raises(RefusedError) as caught:
            take()
        assert caught.value.error_code == "marker_foreign"
    open_marked(tmp_path, DATA).close()
    with pytest.raises(RefusedError) as caught:
        check_marker(tmp_path / "gone", DATA, S1)
    assert caught.value.error_code == "root_missing"


def test_a_marker_is_removed_for_its_own_fileset_and_takes_nothing_else_along(tmp_path: Path) -> None:
    made = create_marker(tmp_path, DATA, S1)
    (tmp_path / ".instep" / "other").touch()
    remove_marker(tmp_path, OTHER, S1)
    remove_marker(tmp_path, DATA, NodeName("s2"))
    assert read_marker(tmp_path) == made
    remove_marker(tmp_path, DATA, S1)
    assert read_marker(tmp_path) is None
    assert os.listdir(tmp_path / ".instep") == ["other"]
    (tmp_path / ".instep" / "other").unlink()
    create_marker(tmp_path, DATA, S1)
    remove_marker(tmp_path, DATA, S1)
    assert os.listdir(tmp_path) == []


def test_marker_is_not_read_through_a_symlink(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    create_marker(tmp_path / "real", DATA, S1)
    (tmp_path / "root").mkdir()
    (tmp_path / "root/.instep").symlink_to("../real/.instep")
    with pytest.raises(RefusedError) as caught:
        read_marker(tmp_path / "root")
    assert caught.value.error_code == "marker_damaged"


def test_place_lies_beside_the_root_and_is_private(tmp_path: Path) -> None:
    root = tmp_path / "data"
    root.mkdir()
    place = resolve_place(root, DATA)
    assert place.control == tmp_path / ".instep-data"
    assert not place.control.exists()
    prepare_place(place)
    prepare_place(place)
    assert place.control.stat().st_mode & 0o777 == 0o700
    assert resolve_place(root, DATA) == place


def test_neighbouring_roots_of_two_nodes_do_not_share_a_control_folder(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    first = resolve_place(tmp_path / "one", DATA)
    prepare_place(first)
    second = resolve_place(tmp_path / "two", DATA)
    assert second.control == tmp_path / "two/.instep"
    assert second.is_control_inside


def test_place_refuses(tmp_path: Path) -> None:
    (tmp_path / "root/below").mkdir(parents=True)
    (tmp_path / "link").symlink_to("root")
    (tmp_path / "file").write_text("")
    cases: list[tuple[str, Path, dict[str, object]]] = [
        ("root_missing", tmp_path / "none", {}),
        ("root_is_symlink", tmp_path / "link", {}),
        ("root_not_directory", tmp_path / "file", {}),
        ("roots_overlap", tmp_path / "root", {"others": [tmp_path / "root/below"]}),
        ("roots_overlap", tmp_path / "root/below", {"others": [tmp_path / "root"]}),
        ("root_holds_node", tmp_path / "root", {"node_dir": tmp_path / "root/below"}),
    ]
    for code, root, more in cases:
        with pytest.raises(RefusedError) as caught:
            resolve_place(root, DATA, **more)  # type: ignore[arg-type]
        assert caught.value.error_code == code
    with pytest.raises(ResourceError):
        resolve_place(tmp_path / "root", DATA, "/proc")


def test_digest_of_a_large_file(tmp_path: Path) -> None:
    data = os.urandom(SMALL_MAX * 2 + 77)
    (tmp_path / "large").write_bytes(data)
    fd = os.open(tmp_path / "large", os.O_RDONLY)
    assert digest_fd(fd) == (blake3(data).digest(), len(data))
    assert read_once(fd, len(data)) == (blake3(data).digest(), len(data), None)
    os.close(fd)


def test_failpoints_count_and_raise() -> None:
    name = failpoints.register("test.point")
    assert name in failpoints.registered()
    failpoints.failpoint(name)
    failpoints.arm_from_text("test.point:2=enospc")
    failpoints.failpoint(name)
    with pytest.raises(OSError) as caught:
        failpoints.failpoint(name)
    assert caught.value.errno == errno.ENOSPC
    failpoints.disarm_all()
    failpoints.failpoint(name)
    with pytest.raises(UsageError):
        failpoints.arm("test.point", "explode")
