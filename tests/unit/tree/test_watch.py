"""The watcher against a real kernel: it may say too much, never too little."""

from __future__ import annotations

import os
import select
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from instep.errors import RefusedError, ResourceError
from instep.model.definition import Definition
from instep.tree.beneath import rename_exchange
from instep.tree.rules import Rules
from instep.tree.watch import Gone, Overflow, Touched, Watcher, WatchEvent

DEADLINE_MS = 2_000


class Watched:
    """A watched root and what its watcher tells."""

    def __init__(self, root: Path, watcher: Watcher) -> None:
        self.root = root
        self.watcher = watcher

    def told(self) -> list[WatchEvent]:
        """Everything told until the descriptor falls silent; at least one item within the deadline."""
        events: list[WatchEvent] = []
        poll = select.poll()
        poll.register(self.watcher.fd, select.POLLIN)
        while poll.poll(0 if events else DEADLINE_MS):
            events += self.watcher.read()
        assert events, "nothing was told within the deadline"
        return events


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    started: list[Watcher] = []

    def begin(*paths: str, ignore: tuple[str, ...] = ()) -> Watched:
        root = tmp_path / "root"
        for path in ("", *paths):
            (root / path).mkdir(parents=True, exist_ok=True)
        watcher = Watcher(root, Rules(Definition(ignore=ignore))).start()
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
    assert watched.watcher.directories == 4
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
    assert watched.watcher.directories == 1


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
    assert watched.watcher.directories == 1


def test_overflow_is_told_after_the_watches_were_laid_anew(watch: Callable[..., Watched]) -> None:
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    if limit > 20_000:
        pytest.skip(f"the kernel queues {limit} events, too many to fill in a quick test")
    watched = watch("a")
    for name in ("one", "two"):
        (watched.root / name).write_text("x")
    for _ in range(limit // 2 + 10):  # alternating, because the kernel merges equal neighbours
        os.utime(watched.root / "one")
        os.utime(watched.root / "two")
    (watched.root / "a/unseen").mkdir()
    assert Overflow(b"") in watched.told()
    assert watched.watcher.directories == 3
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

    def full(path: bytes, mask: int) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(watched.watcher._inotify, "add_watch", full)
    (watched.root / "new").mkdir()
    assert Touched(b"new", "tree") in watched.told()
    assert isinstance(watched.watcher.problem, ResourceError)


def test_a_big_walk_is_done_in_slices(watch: Callable[..., Watched]) -> None:
    watched = watch()
    for number in range(600):
        (watched.root / f"new/d{number}").mkdir(parents=True)
    first = watched.watcher.read()
    assert Touched(b"new", "tree") not in first
    assert Touched(b"new", "tree") in watched.told()
    assert watched.watcher.directories == 602
