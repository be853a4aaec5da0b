"""P2, P3 and P5 when a switch cannot go on: failed at every step, undone, interrupted while it is undone, applied
anew."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from instep.errors import InstepError
from instep.tree.archive.archive import Archive
from instep.tree.journal.journal import Journal
from instep.tree.root import beneath, failpoints
from instep.tree.root.beneath import RenameUnsupportedError
from instep.tree.switch.recover import RecoveredKind, recover
from tests.support.apply_world import World
from tests.support.killed_applies import NEW, observed, old_tree, prepare, second, wanted

UNDO_POINTS = [name for name in failpoints.registered() if name.startswith("undo.")]
HITS = (1, 2, 4, 9, 20)


@pytest.fixture(autouse=True)
def _disarmed() -> Iterator[None]:
    yield
    failpoints.disarm_all()


@pytest.fixture(params=["renameat2", "without renameat2"])
def renaming(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "without renameat2":
        forget_renameat2(monkeypatch)


@pytest.fixture
def without_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    forget_renameat2(monkeypatch)


def forget_renameat2(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise RenameUnsupportedError(errno.EINVAL, "no flags here")

    for name in ("rename_exchange", "rename_noreplace"):
        monkeypatch.setattr(beneath, name, refuse)


def failed_at(at: Path, spec: str) -> World | None:
    """A switch that failed there; None when it came to its end."""
    at.mkdir()
    world = prepare(at)
    try:
        second(at, world, spec)
    except InstepError:
        return world
    return None


def look(world: World) -> RecoveredKind:
    return recover(world.place, local=world.local, get_page=world.page, now_ms=10).kind


def assert_old(world: World) -> None:
    assert observed(world) == wanted(world, old_tree())
    assert Journal.load(world.place) is None


def assert_arrives(at: Path, world: World) -> None:
    """The leftovers of the first attempt are not in the way of the next."""
    failpoints.disarm_all()
    second(at, world, "")
    assert observed(world) == wanted(world, NEW)


@pytest.mark.usefixtures("renaming")
@pytest.mark.parametrize("point", ["switch.step.before", "switch.step.after"])
def test_a_switch_that_fails_at_any_step_and_again_is_undone(tmp_path: Path, point: str) -> None:
    for hit in count(1):
        at = tmp_path / str(hit)
        world = failed_at(at, f"{point}:{hit}=eio")
        if world is None:
            break
        assert look(world) is RecoveredKind.UNDONE, hit
        assert_old(world)
        assert_arrives(at, world)


@pytest.mark.parametrize("point", ["switch.linked", "renames.linked_new"])
def test_a_crash_between_link_and_rename_is_finished(
    tmp_path: Path, point: str, without_renameat2: None
) -> None:
    for hit in count(1):
        at = tmp_path / str(hit)
        world = failed_at(at, f"{point}:{hit}=eio")
        if world is None:
            break
        failpoints.disarm_all()
        assert look(world) is RecoveredKind.FINISHED
        assert observed(world) == wanted(world, NEW)


@pytest.mark.usefixtures("renaming")
@pytest.mark.parametrize("point", UNDO_POINTS)
def test_an_undo_that_is_interrupted_anywhere_goes_on_and_never_forward(tmp_path: Path, point: str) -> None:
    for hit in HITS:
        at = tmp_path / str(hit)
        world = failed_at(at, "switch.closing=eio")
        assert world is not None
        failpoints.arm(f"{point}:{hit}", "eio")
        try:
            assert look(world) is RecoveredKind.UNDONE
        except InstepError as error:
            assert error.error_code == "half_switched"  # noqa: PT017  not every point is hit so often
        failpoints.disarm_all()
        journal = Journal.load(world.place)
        if journal is not None:
            assert journal.is_undoing
            assert look(world) is RecoveredKind.UNDONE
        assert_old(world)
        assert_arrives(at, world)


def test_a_step_that_cannot_be_taken_back_keeps_no_other_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = failed_at(tmp_path / "w", "switch.closing=eio")
    assert world is not None
    exchange = beneath.rename_exchange

    def refuse_one(from_fd: int, from_name: bytes, to_fd: int, to_name: bytes) -> None:
        if to_name == b"changed":
            raise PermissionError(errno.EPERM, "the file is immutable")
        exchange(from_fd, from_name, to_fd, to_name)

    with monkeypatch.context() as stuck:
        stuck.setattr(beneath, "rename_exchange", refuse_one)
        with pytest.raises(InstepError) as caught:
            look(world)
    assert caught.value.error_code == "half_switched"
    found, old = observed(world), wanted(world, old_tree())
    assert {path for path in found.keys() | old.keys() if found.get(path) != old.get(path)} == {"a/changed"}
    assert look(world) is RecoveredKind.UNDONE
    assert_old(world)


@pytest.mark.usefixtures("renaming")
def test_what_was_written_into_new_files_before_the_undo_is_archived(tmp_path: Path) -> None:
    world = failed_at(tmp_path / "w", "switch.removals=eio")
    assert world is not None
    for path in ("a/added", "a/changed", "fresh/two", "becomes-file"):
        (world.root / path).write_text(f"written into {path}")
    (world.root / "fresh" / "of-mine").write_text("made in a new directory")
    (world.root / "fresh" / "cache.tmp").write_text("ignored")
    (world.root / "saved").write_text("saved over a link")
    (world.root / "saved").rename(world.root / "link")
    assert look(world) is RecoveredKind.UNDONE
    kept = {}
    for name in (b"a/added", b"a/changed", b"fresh/two", b"becomes-file", b"fresh/of-mine"):
        where = Archive(world.place).restore(name, tmp_path / "out")
        kept[name] = Path(where.decode()).read_text()
    assert kept == {p: f"written into {p.decode()}" for p in kept} | {
        b"fresh/of-mine": "made in a new directory"
    }
    assert (world.root / "fresh" / "cache.tmp").read_text() == "ignored"
    assert (world.root / "link").read_text() == "saved over a link"
    assert (world.root / "a" / "changed").read_bytes() == b"old"
