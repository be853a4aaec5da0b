"""The watcher against a real kernel: it may say too much, never too little."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import select
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.errors import RefusedError, ResourceError
from instep.model.definition import Definition
from instep.tree.root.beneath import rename_exchange
from instep.tree.root.kernel import remote_kind
from instep.tree.scan.rules import Rules
from instep.tree.scan.touched import Gone, Overflow, Touched, WatchEvent
from instep.tree.watch.inotify import InotifyWatcher
from instep.tree.watch.watch import Watcher

DEADLINE_S = 20


class Watched:
    """A watched root and its watcher's events."""

    def __init__(self, root: Path, watcher: Watcher) -> None:
        self.root = root
        self.watcher = watcher

    def told(self) -> list[WatchEvent]:
        """All events until nothing new comes; at least one within the deadline. fanotify also wakes for other
        programs on this file system, so silence of the descriptor is no sign.
        """
        events: list[WatchEvent] = []
        poll = select.poll()
        poll.register(self.watcher.fd, select.POLLIN)
        deadline = time.monotonic() + DEADLINE_S
        while poll.poll(0 if events else DEADLINE_S * 1000) and time.monotonic() < deadline:
            got = self.watcher.read()
            if events and not got:
                break
            events += got
        assert events, "no event came within the deadline"
        return events

    def assert_watches(self, count: int) -> None:
        """inotify watches each directory once; fanotify has one mark."""
        if isinstance(self.watcher._watcher, InotifyWatcher):
            assert self.watcher._watcher.directories == count


@pytest.fixture(params=["inotify", "fanotify"])
def watch(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Watched]]:
    started: list[Watcher] = []

    def begin(*paths: str, ignore: tuple[str, ...] = ()) -> Watched:
        root = tmp_path / "root"
        for path in ("", *paths):
            (root / path).mkdir(parents=True, exist_ok=True)
        try:
            watcher = Watcher(root, Rules(Definition(ignore=ignore)), request.param).start()
        except ResourceError as error:
            pytest.skip(error.reason)
        started.append(watcher)
        return Watched(root, watcher)

    yield begin
    for watcher in started:
        watcher.close()


def test_changes_of_files(watch: Callable[..., Watched]) -> None:
    watched = watch("a/b")
    (watched.root / "a/b/file").write_text("1")
    assert set(watched.told()) == {Touched(b"a/b/file", "entry")}
    os.chmod(watched.root / "a/b/file", 0o600)
    os.rename(watched.root / "a/b/file", watched.root / "a/moved")
    assert set(watched.told()) == {Touched(b"a/b/file", "entry"), Touched(b"a/moved", "entry")}
    os.chmod(watched.root / "a/b", 0o700)
    assert set(watched.told()) == {Touched(b"a/b", "entry")}
    os.unlink(watched.root / "a/moved")
    assert set(watched.told()) == {Touched(b"a/moved", "entry")}


def test_names_that_are_not_utf8(watch: Callable[..., Watched]) -> None:
    watched = watch()
    name = b"\xff\n\xfe"
    Path(os.fsdecode(os.path.join(os.fsencode(watched.root), name))).write_text("x")
    assert set(watched.told()) == {Touched(name, "entry")}


def test_a_new_directory_is_told_as_a_tree_and_watched(watch: Callable[..., Watched]) -> None:
    watched = watch()
    (watched.root / "new/deep/er").mkdir(parents=True)
    (watched.root / "new/deep/er/file").write_text("before the watch stood")
    assert Touched(b"new", "tree") in watched.told()
    watched.assert_watches(4)
    (watched.root / "new/deep/er/file2").write_text("after")
    assert Touched(b"new/deep/er/file2", "entry") in watched.told()


def test_a_renamed_directory_is_watched_under_its_new_name(watch: Callable[..., Watched]) -> None:
    watched = watch("old/sub")
    (watched.root / "old").rename(watched.root / "new")
    assert set(watched.told()) == {Touched(b"old", "tree"), Touched(b"new", "tree")}
    (watched.root / "new/sub/x").write_text("x")
    assert set(watched.told()) == {Touched(b"new/sub/x", "entry")}
    shutil.rmtree(watched.root / "new")
    watched.told()
    watched.assert_watches(1)


def test_exchanged_directories_are_both_watched(watch: Callable[..., Watched]) -> None:
    watched = watch("a/one", "b/two")
    fd = os.open(watched.root, os.O_RDONLY)
    rename_exchange(fd, b"a", fd, b"b")
    os.close(fd)
    assert set(watched.told()) == {Touched(b"a", "tree"), Touched(b"b", "tree")}
    for path in ("a/two/x", "b/one/x"):
        (watched.root / path).write_text("x")
        assert set(watched.told()) == {Touched(path.encode(), "entry")}


def test_a_directory_moved_out_is_no_longer_watched(watch: Callable[..., Watched], tmp_path: Path) -> None:
    watched = watch("a/b", "stay")
    (watched.root / "a").rename(tmp_path / "outside")
    watched.told()
    (tmp_path / "outside/b/x").write_text("x")
    (watched.root / "stay/y").write_text("y")
    assert set(watched.told()) == {Touched(b"stay/y", "entry")}


def test_ignored_and_reserved_paths_are_not_told(watch: Callable[..., Watched]) -> None:
    watched = watch("cache", ".instep", ignore=("cache/", "*.tmp"))
    for path in ("cache/x", ".instep/id", "a.tmp"):
        (watched.root / path).write_text("x")
    (watched.root / "seen").write_text("x")
    assert set(watched.told()) == {Touched(b"seen", "entry")}
    watched.assert_watches(1)


def test_overflow_is_told_after_the_watches_were_laid_anew(watch: Callable[..., Watched]) -> None:
    limit = max(
        int(Path(f"/proc/sys/fs/{how}/max_queued_events").read_text()) for how in ("inotify", "fanotify")
    )
    if limit > 20_000:
        pytest.skip(f"the kernel queues {limit} events, too many to fill in a quick test")
    watched = watch("a")
    (watched.root / "0").write_text("x")
    for number in range(limit + 10):  # always other names, because the kernel merges equal events
        os.rename(watched.root / str(number), watched.root / str(number + 1))
    (watched.root / "a/unseen").mkdir()
    assert Overflow(b"") in watched.told()
    watched.assert_watches(3)
    (watched.root / "a/unseen/file").write_text("x")
    assert set(watched.told()) == {Touched(b"a/unseen/file", "entry")}


def test_a_removed_or_renamed_root_is_gone(watch: Callable[..., Watched]) -> None:
    watched = watch("a")
    watched.root.rename(watched.root.with_name("elsewhere"))
    assert any(isinstance(event, Gone) for event in watched.told())
    assert watched.watcher.read() == []
    watched = watch()
    shutil.rmtree(watched.root)
    assert any(isinstance(event, Gone) for event in watched.told())


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    watcher = Watcher(tmp_path / "none", Rules(Definition()))
    with pytest.raises(RefusedError):
        watcher.start()
    watcher.close()


def test_exhausted_watches_are_named(watch: Callable[..., Watched], monkeypatch: pytest.MonkeyPatch) -> None:
    watched = watch()
    by_inotify = watched.watcher._watcher
    if not isinstance(by_inotify, InotifyWatcher):
        pytest.skip("fanotify has one mark only")

    def full(path: bytes, mask: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(by_inotify._inotify, "add_watch", full)
    (watched.root / "new").mkdir()
    assert Touched(b"new", "tree") in watched.told()
    assert isinstance(watched.watcher.problem, ResourceError)


def _no_watch(*_: object, **__: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def _no_instance(*_: object, **__: object) -> None:
    raise OSError(errno.EMFILE, "Too many open files")


@pytest.mark.parametrize(
    ("call", "fails", "setting"),
    [
        ("instep.tree.watch.inotify.INotify", _no_instance, "inotify_instances|inotify.max_user_instances"),
        (
            "instep.tree.watch.inotify.INotify.add_watch",
            _no_watch,
            "inotify_watches|inotify.max_user_watches",
        ),
    ],
)
def test_a_limit_that_is_used_up_is_named_with_the_command_that_raises_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fails: Callable[..., object], setting: str
) -> None:
    monkeypatch.setattr(call, fails)
    monkeypatch.setattr(
        "instep.tree.watch.watch.FanotifyWatcher", InotifyWatcher
    )  # which cannot watch either
    with pytest.raises(ResourceError) as caught:
        Watcher(tmp_path, Rules(Definition())).start()
    assert re.fullmatch(rf"sysctl -w (fs|user)\.(max_)?({setting})=\d+", caught.value.hint or "")


@pytest.mark.parametrize(
    ("call", "fails"),
    [
        ("instep.tree.watch.inotify.INotify", _no_instance),
        ("instep.tree.watch.inotify.INotify.add_watch", _no_watch),
        ("instep.tree.watch.inotify.os.eventfd", _no_instance),
    ],
)
def test_fanotify_watches_whatever_inotify_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, fails: Callable[..., object]
) -> None:
    monkeypatch.setattr(call, fails)
    watcher = Watcher(tmp_path, Rules(Definition()))
    try:
        watcher.start()
    except ResourceError as error:
        if os.geteuid() == 0:
            raise
        pytest.skip(error.reason)
    with contextlib.closing(watcher):
        assert watcher.how == "fanotify"
        assert watcher.problem is None


def test_the_watch_knows_what_was_written_and_not_closed(watch: Callable[..., Watched]) -> None:
    watched = watch()
    with (watched.root / "file").open("wb", buffering=0) as file:
        file.write(b"half")
        watched.told()
        assert b"file" in watched.watcher.written
    watched.told()
    assert b"file" not in watched.watcher.written


def test_a_big_walk_is_done_in_slices(watch: Callable[..., Watched]) -> None:
    watched = watch()
    for number in range(600):
        (watched.root / f"new/d{number}").mkdir(parents=True)
    if watched.watcher.how == "inotify":
        assert Touched(b"new", "tree") not in watched.watcher.read()
    assert Touched(b"new", "tree") in watched.told()
    watched.assert_watches(602)


def test_a_file_system_of_other_machines_is_never_said_to_be_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instep.tree.watch.watch.remote_kind", lambda fd: "nfs")
    with contextlib.closing(Watcher(tmp_path, Rules(Definition()))) as watcher:
        problem = watcher.start().problem
        assert problem is not None
        assert (problem.error_code, problem.facts["kind"]) == ("remote_file_system", "nfs")
        (tmp_path / "local").write_text("changes that this kernel sees are reported all the same")
        assert Touched(b"local", "entry") in watcher.read()


def test_the_kernel_says_what_kind_of_file_system_it_is(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_PATH)
    try:
        assert remote_kind(fd) is None
    finally:
        os.close(fd)
