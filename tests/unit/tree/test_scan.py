"""The scan: order, the stat cache and its racy rule, problems, partial scans, comparing."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from blake3 import blake3

import instep
from instep.errors import RefusedError
from instep.model.definition import Definition, Preserve
from instep.model.ids import Digest, FilesetName, NodeName
from instep.model.manifest.chunklist import check_chunks
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.entry_rules import check_entry
from instep.model.paths import sort_key
from instep.model.statrow import StatRow
from instep.tree.objects.fidelity import Local
from instep.tree.objects.rows import RowsInOrder
from instep.tree.root.beneath import Root
from instep.tree.root.marker import create_marker
from instep.tree.root.place import Place
from instep.tree.scan.compare import compare, entries_of
from instep.tree.scan.cover import Cover, cover
from instep.tree.scan.listing import Problem
from instep.tree.scan.openness import Openness
from instep.tree.scan.rules import Rules
from instep.tree.scan.scan import Scanned, scan
from instep.tree.scan.settling import trusted_at

PLAIN = Definition()
LATER_NS = 10_000_000_000


class Tree:
    """A small tree and the rows that its last scan left."""

    def __init__(self, base: Path) -> None:
        self.root = base / "root"
        self.root.mkdir()
        self.place = Place(self.root, base / "control", FilesetName("data"))
        self.rows: dict[bytes, StatRow] = {}
        self.now_ns = 0

    def write(self, path: str, text: str = "text") -> Path:
        target = self.root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        return target

    def scan(
        self,
        definition: Definition = PLAIN,
        *,
        deep: bool = False,
        by_inode: bool = False,
        age_ns: int = LATER_NS,
    ) -> list[Scanned | Problem]:
        """Scan ``age_ns`` after the newest change, and keep the rows."""
        newest = max((p.lstat().st_ctime_ns for p in self.root.rglob("*")), default=0)
        self.now_ns = newest + age_ns
        inodes = {(row.dev, row.ino): row for row in self.rows.values()}
        items = list(
            scan(
                self.place,
                definition,
                RowsInOrder(sorted(self.rows.values(), key=lambda row: sort_key(row.path))),
                (lambda dev, ino: inodes.get((dev, ino))) if by_inode else None,
                self.now_ns,
                deep=deep,
            )
        )
        self.rows = {s.row.path: s.row for s in items if isinstance(s, Scanned) and s.row is not None}
        return items


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


def entries(items: Iterable[Scanned | Problem]) -> list[Entry]:
    found = []
    for item in items:
        assert isinstance(item, Scanned), item
        found.append(item.entry)
    return found


def paths(items: Iterable[Scanned | Problem]) -> list[bytes]:
    return [entry.path for entry in entries(items)]


def problems(items: Iterable[Scanned | Problem]) -> list[tuple[bytes, str]]:
    return [(item.path, item.what) for item in items if isinstance(item, Problem)]


def fresh(items: Iterable[Scanned | Problem]) -> list[bytes]:
    return [item.entry.path for item in items if isinstance(item, Scanned) and item.is_fresh_read]


def test_order_is_that_of_the_sort_key(tree: Tree) -> None:
    for path in ("a/x", "a-b", "a.b/c", "a/x.y/z", "b", "A", "a0"):
        tree.write(path)
    found = paths(tree.scan())
    assert found == sorted(found, key=sort_key)
    assert found[:4] == [b"A", b"a", b"a/x", b"a/x.y"]


def test_entries_say_what_is_there(tree: Tree) -> None:
    file = tree.write("dir/file", "hello")
    file.chmod(0o640)
    os.utime(file, ns=(1, 1_700_000_000_123_456_789))
    (tree.root / "link").symlink_to("dir/file")
    directory, entry, link = entries(tree.scan())
    assert (directory.kind, directory.size, directory.digest) == (Kind.DIR, 0, b"")
    assert (entry.mode, entry.size, entry.mtime_ns) == (0o640, 5, 1_700_000_000_123_456_789)
    assert entry.digest == blake3(b"hello").digest()
    assert (link.kind, link.size, link.digest) == (Kind.SYMLINK, 8, blake3(b"dir/file").digest())


def test_strange_names_come_through(tree: Tree) -> None:
    names = [b"new\nline", b"quo'te\"", b"\xff\xfe not utf-8", "umläut".encode(), b"n" * 255, b"a\x01b", b" "]
    base = os.fsencode(tree.root)
    for name in names:
        os.mkdir(os.path.join(base, name))
        Path(os.fsdecode(os.path.join(base, name, name))).write_text("x")
    found = paths(tree.scan())
    assert found == sorted([*names, *(n + b"/" + n for n in names)], key=sort_key)
    assert fresh(tree.scan()) == []


def test_the_control_folder_is_never_scanned(tree: Tree) -> None:
    for path in (".instep/id", ".INSTEP-x/y", ".insteps", "sub/.instep/kept"):
        tree.write(path)
    assert paths(tree.scan()) == [b"sub", b"sub/.instep", b"sub/.instep/kept"]


def test_a_directory_of_very_many_entries_is_taken_in_slices(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(20):
        tree.write(f"many/{number}")
        tree.write(f"many/dir{number}/x")
    whole = tree.scan()
    monkeypatch.setattr("instep.tree.scan.listing._MANY", 7)
    assert entries(tree.scan()) == entries(whole)


def test_unchanged_files_are_not_read_again(tree: Tree) -> None:
    tree.write("a/one")
    changed = tree.write("a/two")
    assert fresh(tree.scan()) == [b"a/one", b"a/two"]
    assert fresh(tree.scan()) == []
    changed.write_text("other")
    assert fresh(tree.scan()) == [b"a/two"]


def test_a_young_file_is_read_again_by_the_next_scan(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system's clock is not known: a network file system, FUSE, FAT."""
    monkeypatch.setattr("instep.tree.scan.scan.change_clock_ns", lambda _: None)
    tree.write("young")
    tree.scan(age_ns=1_999_999_999)
    assert fresh(tree.scan(age_ns=2_000_000_000)) == [b"young"]
    assert fresh(tree.scan()) == []


@pytest.mark.parametrize(("past_ns", "reads"), [(0, [b"young"]), (1, [])])
def test_a_file_is_settled_once_the_clock_of_changes_has_ticked(
    tree: Tree, monkeypatch: pytest.MonkeyPatch, past_ns: int, reads: list[bytes]
) -> None:
    written = tree.write("young").stat().st_ctime_ns
    monkeypatch.setattr("instep.tree.scan.scan.change_clock_ns", lambda _: written + past_ns)
    tree.scan(age_ns=1_000)
    assert fresh(tree.scan()) == reads


def test_an_inode_with_room_for_whole_seconds_only_waits_for_two(tree: Tree) -> None:
    found = os.stat_result((0,) * 10, {"st_ctime_ns": 5_000_000_000})
    assert trusted_at(found, Openness.CLOSED, 5_100_000_000, 5_100_000_000) == 5_100_000_000


@pytest.mark.parametrize("where", ["/dev/shm", ""])
def test_a_second_write_within_one_tick_is_seen(tmp_path: Path, where: str) -> None:
    """On two kinds of file systems, with the kernel's clocks: a scan reads between two writes that follow at once."""
    with tempfile.TemporaryDirectory(dir=where or tmp_path) as folder:
        tree = Tree(Path(folder))
        for turn in range(200):
            target = tree.write("hot", f"first  {turn:4}")
            tree.scan(age_ns=1_000_000_000)
            target.write_text(f"second {turn:4}")
            assert fresh(tree.scan(age_ns=1_000_000_000)) == [b"hot"]


def test_a_far_future_mtime_does_not_make_a_file_young_for_ever(tree: Tree) -> None:
    os.utime(tree.write("future"), ns=(0, 4_000_000_000_000_000_000))
    tree.scan()
    assert fresh(tree.scan()) == []


def test_files_in_a_renamed_directory_are_not_read(tree: Tree) -> None:
    tree.write("old/deep/file")
    tree.scan()
    (tree.root / "old").rename(tree.root / "new")
    items = tree.scan(by_inode=True)
    assert fresh(items) == []
    assert tree.rows[b"new/deep/file"].path == b"new/deep/file"
    assert [i.is_row_new for i in items if isinstance(i, Scanned) and i.row] == [True]


def rot(tree: Tree, path: bytes) -> None:
    """As if the disk had changed the file's bytes under the same stat: the row has another digest."""
    tree.rows[path] = tree.rows[path]._replace(digest=blake3(b"as it was").digest())


def test_same_stat_but_other_digest_is_damage_when_settled(tree: Tree) -> None:
    tree.write("file")
    tree.scan()
    rot(tree, b"file")
    assert problems(tree.scan()) == []
    assert problems(tree.scan(deep=True)) == [(b"file", "damaged")]


def test_same_stat_but_other_digest_is_a_change_when_racy(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("instep.tree.scan.scan.change_clock_ns", lambda _: None)
    tree.write("file")
    tree.scan(age_ns=1)
    rot(tree, b"file")
    assert fresh(tree.scan(deep=True)) == [b"file"]


def test_a_file_that_keeps_changing_is_unstable(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tree.write("busy")
    real_pread, count = os.pread, 0

    def changing_pread(fd: int, size: int, offset: int) -> bytes:
        nonlocal count
        count += 1
        data = real_pread(fd, size, offset)
        target.write_text("x" * count * 10)
        return data

    monkeypatch.setattr("instep.tree.objects.digest.os.pread", changing_pread)
    assert problems(tree.scan()) == [(b"busy", "unstable")]
    assert count == 3


def test_special_files_are_reported(tree: Tree) -> None:
    os.mkfifo(tree.root / "pipe")
    with socket.socket(socket.AF_UNIX) as unix:
        here = os.open(tree.root, os.O_RDONLY)
        unix.bind(f"/proc/self/fd/{here}/sock")
        os.close(here)
        found = tree.scan()
    assert problems(found) == [(b"pipe", "pipe"), (b"sock", "socket")]


def test_the_unreadable_is_reported(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write("dir/below")
    tree.write("file")
    real_open = Root.open

    def refusing(self: Root, path: bytes, flags: int, mode: int = 0, *, cross_mounts: bool = False) -> int:
        if path in (b"dir", b"file"):
            raise PermissionError(13, "Permission denied")
        return real_open(self, path, flags, mode, cross_mounts=cross_mounts)

    monkeypatch.setattr(Root, "open", refusing)
    assert problems(tree.scan()) == [(b"dir", "unreadable"), (b"file", "unreadable")]


def test_an_unlistable_root_hides_everything(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    tree.write("file")
    manifest = entries(tree.scan())

    def refusing(self: Root, path: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Root, "open_dir", refusing)
    items = tree.scan()
    assert problems(items) == [(b"", "unreadable")]
    (only,) = compare(manifest, items)
    assert only.problem == items[0]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_mounts_are_reported_and_not_crossed(tree: Tree) -> None:
    """A tmpfs, a bind mount of a directory and of a file of the same file system, and a file that a container masks, in a
    mount namespace."""
    for path in ("tmpfs/x", "bound/x", "boundfile", "masked", "source/s", "plain"):
        tree.write(path)
    script = """
from pathlib import Path
from instep.model.manifest.chunklist import check_chunks
from instep.model.definition import Definition
from instep.tree.root.place import Place
from instep.tree.scan.scan import Problem, scan
for item in scan(Place(Path("."), Path("../c"), "data"), Definition(), lambda path: None, None, 0):
    is_problem = isinstance(item, Problem)
    print(item.what if is_problem else "-", (item.path if is_problem else item.entry.path).decode())
"""
    command = (
        f"cd {tree.root} && mount -t tmpfs none tmpfs && mount --bind source bound"
        " && mount --bind source/s boundfile && mount --bind /dev/null masked"
        ' && exec "$PYTHON" -c "$SCRIPT"'
    )
    source = str(Path(instep.__file__).parents[1])
    result = subprocess.run(
        ["unshare", "-m", "sh", "-c", command],
        env={**os.environ, "SCRIPT": script, "PYTHON": sys.executable, "PYTHONPATH": source},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # Not as another user, and not in a changed root directory that is no mount point.
    if any(why in result.stderr for why in ("not permitted", "cannot change root filesystem propagation")):
        pytest.skip(f"mounting is not possible here: {result.stderr.strip()}")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "mount bound",
        "mount boundfile",
        "mount masked",
        "- plain",
        "- source",
        "- source/s",
        "mount tmpfs",
    ]


def test_large_files_get_chunk_lists(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random.Random(1).randbytes((1 << 20) + 1)
    (tree.root / "large").write_bytes(data)
    pages: dict[Digest, bytes] = {}
    rows: dict[bytes, StatRow] = {}
    for _ in range(2):  # the second time the row is too young: the file is read, its chunks are known
        (item,) = scan(tree.place, PLAIN, rows.get, None, 0, put_page=pages.__setitem__)
        assert isinstance(item, Scanned)
        assert item.is_fresh_read
        assert item.row is not None
        assert item.entry.extra is not None
        assert item.entry.extra.chunks is not None
        check_chunks(item.entry.extra.chunks, len(data), pages.__getitem__)
        assert item.entry.digest == blake3(data).digest()
        check_entry(item.entry)
        rows[b"large"] = item.row
        monkeypatch.setattr("instep.tree.scan.scan.chunk_file", None)


def test_sink_gets_what_was_read(tree: Tree) -> None:
    tree.write("file", "hello")
    (tree.root / "link").symlink_to("file")
    got: list[tuple[bytes, bytes | None]] = []
    list(
        scan(
            tree.place,
            PLAIN,
            lambda _: None,
            None,
            0,
            sink=lambda digest, data, _: got.append((digest, data)),
        )
    )
    assert got == [(blake3(b"hello").digest(), b"hello"), (blake3(b"file").digest(), b"file")]


def test_marker_guards_the_scan_at_both_ends(tree: Tree) -> None:
    tree.write("a")
    marker = create_marker(tree.root, FilesetName("data"), NodeName("s1"))
    running = scan(tree.place, PLAIN, lambda _: None, None, 0, marker=marker)
    next(running)
    (tree.root / ".instep/id").unlink()
    with pytest.raises(RefusedError) as caught:
        list(running)
    assert caught.value.error_code == "marker_missing"
    with pytest.raises(RefusedError):
        next(scan(tree.place, PLAIN, lambda _: None, None, 0, marker=marker))


def partial(
    tree: Tree, trees: Iterable[bytes], alone: Iterable[bytes], definition: Definition = PLAIN
) -> list[bytes]:
    wanted = cover(trees, alone, Local())
    return paths(scan(tree.place, definition, lambda _: None, None, 0, covered=wanted))


def test_partial_scans(tree: Tree) -> None:
    for path in ("a/b/c", "a/d", "e", "f/g"):
        tree.write(path)
    (tree.root / "out").symlink_to("a")
    assert partial(tree, [b"a/b", b"a"], [b"a/d", b"e", b"gone", b"gone/x"]) == [
        b"a",
        b"a/b",
        b"a/b/c",
        b"a/d",
        b"e",
    ]
    assert partial(tree, [], [b"f", b"out/d"]) == [b"f"]
    assert partial(tree, [b"f"], [b".instep/id"], Definition(ignore=("f/",))) == []
    assert partial(tree, [], [b"f/g"], Definition(ignore=("f/",))) == []
    assert partial(tree, [b""], []) == paths(tree.scan())


def test_cover_is_everything_where_hard_links_are_kept() -> None:
    local = Local(preserve=frozenset((Preserve.HARDLINKS,)), is_own=True)
    assert cover([], [b"x"], local) == Cover((b"",), ())


def test_compare_names_each_kind_of_difference(tree: Tree) -> None:
    for path in ("same", "changed", "removed/x", "dir/y"):
        tree.write(path)
    manifest = entries(tree.scan())
    tree.write("changed", "other text")
    tree.write("added")
    (tree.root / "removed/x").unlink()
    (tree.root / "removed").rmdir()
    os.utime(tree.root / "dir", ns=(1, 1))
    found = {d.path: (d.expected is not None, d.found is not None) for d in compare(manifest, tree.scan())}
    assert found == {
        b"added": (False, True),
        b"changed": (True, True),
        b"removed": (True, False),
        b"removed/x": (True, False),
    }


def test_compare_says_nothing_of_what_an_unreadable_directory_hides(tree: Tree) -> None:
    for path in ("dir/below", "dir2/z"):
        tree.write(path)
    manifest = entries(tree.scan())
    scanned: list[Scanned | Problem] = [Problem(b"dir", "unreadable", ""), *tree.scan()[2:]]
    (only,) = compare(manifest, scanned)
    assert (only.path, only.found) == (b"dir", None)
    assert only.problem is not None


def test_entries_of_a_cover(tree: Tree) -> None:
    for path in ("a/b/c", "a/d", "e", "f/g"):
        tree.write(path)
    every = entries(tree.scan())
    by_path = {entry.path: entry for entry in every}
    after: Callable[[bytes], Iterable[Entry]] = lambda p: (  # noqa: E731
        e for e in every if sort_key(e.path) > sort_key(p)
    )
    wanted = cover([b"a/b", b"none"], [b"e", b"f"], Local())
    found = [e.path for e in entries_of(wanted, by_path.get, lambda p: iter(after(p)))]
    assert found == [b"a/b", b"a/b/c", b"e", b"f"]


@pytest.mark.parametrize(
    ("ignore", "include", "path", "is_dir", "ignored"),
    [
        (["*.log"], [], b"a/b.log", False, True),
        (["*.log"], ["keep.log"], b"a/keep.log", False, False),
        (["/top"], [], b"a/top", False, False),
        (["cache/"], [], b"cache", False, False),
        (["cache/"], [], b"x/cache", True, True),
        (["cache/"], [], b"x/cache/deep/file", False, True),
        (["*.log"], ["keep"], b"keep/a.log", False, True),
        (["cache/"], ["cache/keep.txt"], b"cache", True, False),
        (["cache/"], ["cache/keep.txt"], b"cache/keep.txt", False, False),
        (["cache/"], ["cache/keep.txt"], b"cache/other", False, True),
        (["a/**"], [], b"a", True, False),
        (["a/**"], [], b"a/b", False, True),
        (["*"], [], b"any\nthing", False, True),
        (["foo"], [], b"foo\n", False, False),
        (["foo"], [], b"new\nline/foo", False, True),
        (["\\xff?"], [], b"\xff\xfe", False, False),
        (["*.tmp"], [], b"\xff\xfe.tmp", False, True),
        (["# comment", ""], [], b"# comment", False, False),
    ],
)
def test_rules(ignore: list[str], include: list[str], path: bytes, is_dir: bool, ignored: bool) -> None:
    rules = Rules(Definition(ignore=tuple(ignore), include=tuple(include)))
    assert rules.ignored(path, is_dir) is ignored


def test_ignored_directories_are_not_entered(tree: Tree) -> None:
    for path in ("cache/a/b", "cache/keep.txt", "src/x.pyc", "src/x.py"):
        tree.write(path)
    definition = Definition(ignore=("cache/", "*.pyc"), include=("cache/keep.txt",))
    assert paths(tree.scan(definition)) == [b"cache", b"cache/keep.txt", b"src", b"src/x.py"]
