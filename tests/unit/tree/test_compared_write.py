"""A file is written anew whole or not at all, and only where it still is what its writer read."""

from __future__ import annotations

import errno
import os
import resource
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from instep.model.ids import Digest
from instep.tree.objects import compared_write
from instep.tree.objects.compared_write import ChangedMeanwhileError, ComparedWrite
from instep.tree.objects.digest import digest_bytes
from instep.tree.root.beneath import RenameUnsupportedError, Root

OLD = digest_bytes(b"old\n")
Act = Callable[[Path], None]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub/f").write_text("old\n")
    return tree


def _put(
    tree: Path, base: Digest | None = OLD, path: bytes = b"sub/f", kind: type[ComparedWrite] = ComparedWrite
) -> None:
    new = tree.parent / "new"
    new.write_text("new\n")
    with Root(tree) as root, kind(root, path) as write, new.open("rb") as source:
        write.put(source.fileno(), base)


def _names(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


def test_the_new_file_keeps_mode_and_attributes_and_takes_no_other_name_along(tree: Path) -> None:
    """Goal: another hard link, such as that of the tree before an exchange, keeps the old bytes. Set-id bits, which the
    kernel takes from a written file, are not given again."""
    file = tree / "sub/f"
    other = tree.parent / "other"
    os.link(file, other)
    os.setxattr(file, "user.note", b"kept")
    owner = 12_345 if os.geteuid() == 0 else os.geteuid()
    os.chown(file, owner, -1)
    file.chmod(0o4640)
    _put(tree)
    assert file.stat().st_uid == owner
    assert (file.read_text(), other.read_text()) == ("new\n", "old\n")
    assert stat.S_IMODE(file.stat().st_mode) == 0o640
    assert os.getxattr(file, "user.note") == b"kept"
    assert _names(tree) == {"sub", "sub/f"}


def test_a_new_file_takes_a_free_place_only(tree: Path) -> None:
    _put(tree, None, b"sub/g")
    assert (tree / "sub/g").read_text() == "new\n"
    with pytest.raises(ChangedMeanwhileError):
        _put(tree, None, b"sub/f")
    with pytest.raises(ChangedMeanwhileError):
        _put(tree, OLD, b"sub/h")
    with pytest.raises(FileNotFoundError):
        _put(tree, None, b"gone/f")
    assert _names(tree) == {"sub", "sub/f", "sub/g"}


def _rename_over(file: Path) -> None:
    (file.parent / "x").write_text("of another\n")
    os.rename(file.parent / "x", file)


def _link_to_a_foreign_file(file: Path) -> None:
    file.unlink()
    os.link(file.parents[2] / "victim", file)


def _pipe(file: Path) -> None:
    file.unlink()
    os.mkfifo(file)


def _directory(file: Path) -> None:
    file.unlink()
    file.mkdir()


def _symlink(file: Path) -> None:
    file.unlink()
    file.symlink_to(file.parents[2] / "victim")


def _write_in_place(file: Path) -> None:
    with file.open("r+") as opened:
        opened.write("OLD\n")


def _wider_mode(file: Path) -> None:
    file.chmod(0o666)


ACTS = (
    _rename_over,
    _link_to_a_foreign_file,
    _pipe,
    _directory,
    _symlink,
    _write_in_place,
    _wider_mode,
    Path.unlink,
)


@pytest.mark.parametrize("act", ACTS)
@pytest.mark.parametrize("is_late", [False, True])
def test_whatever_another_program_put_there_stays(tree: Path, act: Act, is_late: bool) -> None:
    """Goal: before the comparison, and between it and the exchange. Nothing hangs, and nothing is left beside it."""
    victim, file = tree.parent / "victim", tree / "sub/f"
    victim.write_text("root's own\n")

    class Raced(ComparedWrite):
        def _swap(self) -> None:
            if not acted:
                acted.append(True)
                act(file)
            super()._swap()

    acted: list[bool] = []
    if not is_late:
        acted.append(True)
        act(file)
    if act is _wider_mode and not is_late:
        _put(tree)  # seen before the comparison, and taken along
        assert stat.S_IMODE(file.stat().st_mode) == 0o666
        return
    with pytest.raises(OSError) as raised:
        _put(tree, kind=Raced)
    assert raised.value.errno in (errno.ESTALE, errno.ELOOP)
    assert victim.read_text() == "root's own\n"
    names = {"sub"} if act is Path.unlink else {"sub", "sub/f"}
    assert _names(tree) == names
    if act is _rename_over:
        assert file.read_text() == "of another\n"
    elif act is _write_in_place:
        assert file.read_text() == "OLD\n"
    elif act is _link_to_a_foreign_file:
        assert file.samefile(victim)
    elif act is not Path.unlink:
        kinds: dict[Act, int] = {_pipe: stat.S_IFIFO, _directory: stat.S_IFDIR, _symlink: stat.S_IFLNK}
        assert stat.S_IFMT(file.lstat().st_mode) == kinds.get(act, stat.S_IFREG)


def test_a_program_that_writes_the_name_again_and_again_keeps_its_last_file(tree: Path) -> None:
    """Goal: a file that came before the exchange comes away, and another takes its name before that is put back."""
    file = tree / "sub/f"
    texts = iter(("first\n", "second\n"))

    class Raced(ComparedWrite):
        def _swap(self) -> None:
            text = next(texts, None)
            if text is not None:
                (tree / "sub/x").write_text(text)
                os.rename(tree / "sub/x", file)
            super()._swap()

    with pytest.raises(ChangedMeanwhileError):
        _put(tree, kind=Raced)
    assert file.read_text() == "second\n"
    assert _names(tree) == {"sub", "sub/f"}


@pytest.mark.parametrize("is_unnamed", [True, False])
def test_a_full_disk_leaves_the_file_as_it_was(
    tree: Path, is_unnamed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a limit of the file's size stands for the disk: a part is taken, then an error. Also on a file system that
    knows no files without a name."""
    if not is_unnamed:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    new = tree.parent / "new"
    new.write_bytes(b"hours of work\n" * 1_000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Root(tree) as root, new.open("rb") as source, pytest.raises(OSError) as raised:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4_096, before[1]))
        try:
            with ComparedWrite(root, b"sub/f") as write:
                write.put(source.fileno(), OLD)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.errno == errno.EFBIG
    assert (tree / "sub/f").read_text() == "old\n"
    assert _names(tree) == {"sub", "sub/f"}


def test_a_file_system_without_exchange_and_without_unnamed_files(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise RenameUnsupportedError(errno.EINVAL, "no flags here")

    monkeypatch.setattr(compared_write, "rename_exchange", refuse)
    monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    _put(tree)
    _put(tree, None, b"sub/g")
    assert (tree / "sub/f").read_text() == (tree / "sub/g").read_text() == "new\n"
    with pytest.raises(ChangedMeanwhileError):
        _put(tree)
    assert _names(tree) == {"sub", "sub/f", "sub/g"}


@pytest.mark.parametrize("moment", ["_link", "_swap", "_is_base", "_replace"])
@pytest.mark.parametrize("path", [b"sub/f", b"sub/g"])
@pytest.mark.parametrize("is_unnamed", [True, False])
@pytest.mark.parametrize("is_removed", [True, False])
def test_the_name_of_the_waiting_file_given_to_another_object_is_not_written(
    tree: Path, moment: str, path: bytes, is_unnamed: bool, is_removed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: the owner of the directory puts a link to a file of root's under that name, or under the file's own. No name
    in the tree becomes that file, and the write does not say that it counts."""
    if not is_unnamed:
        monkeypatch.setattr(os, "O_TMPFILE", os.O_DIRECTORY)
    if moment == "_replace":
        monkeypatch.setattr(compared_write, "rename_exchange", _no_exchange)
    secret = tree.parent / "secret"
    secret.write_text("root's own\n")

    def put_links(before: Callable[..., object], write: ComparedWrite, *given: object) -> object:
        for each in (tree / "sub").glob(".instep-edit-*"):
            each.unlink()
            if not is_removed:
                each.symlink_to(secret)
        return before(write, *given)

    before = getattr(ComparedWrite, moment)
    monkeypatch.setattr(
        ComparedWrite, moment, lambda write, *given: put_links(before, write, *given), raising=True
    )
    try:
        _put(tree, OLD if path == b"sub/f" else None, path)
    except ChangedMeanwhileError:
        is_written = False
    else:
        is_written = True
    assert secret.stat().st_nlink == 1 and secret.read_text() == "root's own\n"
    laid = tree / os.fsdecode(path)
    is_laid = laid.is_file() and not laid.is_symlink() and laid.read_text() == "new\n"
    assert is_laid or not is_written
    assert not list((tree / "sub").glob(".instep-edit-*"))


def _no_exchange(*_: object) -> None:
    raise RenameUnsupportedError(errno.EINVAL, "no flags here")
