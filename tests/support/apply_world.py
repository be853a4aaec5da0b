"""A small place with a root, manifests of described trees, and one-call applies: for tests of stage and switch."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from blake3 import blake3

from instep.model.definition import Definition
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, NodeName
from instep.model.manifest.entry import CHUNKED_OVER, Entry, Extra, Kind
from instep.model.manifest.manifest import build
from instep.model.paths import sort_key
from instep.tree.journal.journal import Journal
from instep.tree.objects.fidelity import Local
from instep.tree.root.marker import create_marker
from instep.tree.root.place import Place, prepare_place, resolve_place
from instep.tree.stage.next_tree import Exchange
from instep.tree.stage.stage import Stage, Want
from instep.tree.switch.linger import end_linger, lingering
from instep.tree.switch.step_work import Switched
from instep.tree.switch.switch import finish, switch

FILESET = FilesetName("maps")
START_NS = 1_700_000_000_000_000_000


@dataclass(frozen=True)
class File:
    data: bytes
    mode: int = 0o644
    mtime_ns: int = START_NS
    extra: Extra | None = None


@dataclass(frozen=True)
class Dir:
    mode: int = 0o755
    mtime_ns: int = START_NS


@dataclass(frozen=True)
class Link:
    target: bytes
    mtime_ns: int = START_NS


Tree = Mapping[bytes, File | Dir | Link | bytes]


def entries(tree: Tree) -> list[Entry]:
    """Entries of a described tree; parents that are not named are plain directories, bytes are plain files."""
    full: dict[bytes, File | Dir | Link] = {}
    for path, what in tree.items():
        parent = path.rpartition(b"/")[0]
        while parent:
            full.setdefault(parent, Dir())
            parent = parent.rpartition(b"/")[0]
        full[path] = File(what) if isinstance(what, bytes) else what
    return [_entry(path, full[path]) for path in sorted(full, key=sort_key)]


def _entry(path: bytes, what: File | Dir | Link) -> Entry:
    match what:
        case File(data, mode, mtime_ns, extra):
            if len(data) > CHUNKED_OVER and (extra is None or extra.chunks is None):
                extra = Extra(chunks=digest(b"chunks of " + data[:64]))
            return Entry(path, Kind.FILE, mode, len(data), mtime_ns, digest(data), 1, extra)
        case Dir(mode, mtime_ns):
            return Entry(path, Kind.DIR, mode, 0, mtime_ns, EMPTY_DIGEST, 1)
        case Link(target, mtime_ns):
            return Entry(path, Kind.SYMLINK, 0o777, len(target), mtime_ns, digest(target), 1)


def digest(data: bytes) -> Digest:
    return Digest(blake3(data).digest())


def seen(root: Path) -> dict[str, tuple[object, ...]]:
    """A reader's view below ``root``: kind, mode, time and content by path; times of directories as well."""
    found: dict[str, tuple[object, ...]] = {}
    for path in _walk(root):
        name = str(path.relative_to(root))
        if name.startswith(".instep"):
            continue
        status = path.lstat()
        if stat.S_ISLNK(status.st_mode):
            found[name] = ("symlink", os.readlink(path), status.st_mtime_ns)
        elif stat.S_ISDIR(status.st_mode):
            found[name] = ("dir", oct(stat.S_IMODE(status.st_mode)), status.st_mtime_ns)
        else:
            found[name] = ("file", oct(stat.S_IMODE(status.st_mode)), status.st_mtime_ns, path.read_bytes())
    return found


def _walk(root: Path) -> Iterator[Path]:
    for each in sorted(root.iterdir()):
        yield each
        if each.is_dir() and not each.is_symlink():
            yield from _walk(each)


def expected(tree: Tree, contents: Mapping[Digest, bytes]) -> dict[str, tuple[object, ...]]:
    """What ``seen`` shows when the root holds exactly ``tree``."""
    found: dict[str, tuple[object, ...]] = {}
    for entry in entries(tree):
        name = os.fsdecode(entry.path)
        if entry.kind is Kind.SYMLINK:
            found[name] = ("symlink", os.fsdecode(contents[entry.digest]), entry.mtime_ns)
        elif entry.kind is Kind.DIR:
            found[name] = ("dir", oct(entry.mode), entry.mtime_ns)
        else:
            found[name] = ("file", oct(entry.mode), entry.mtime_ns, contents[entry.digest])
    return found


@dataclass
class World:
    """One node's place. ``contents`` stands for the partner that everything wanted comes from."""

    place: Place
    definition: Definition = field(default_factory=Definition)
    local: Local = field(default_factory=Local)
    pages: dict[Digest, bytes] = field(default_factory=dict)
    contents: dict[Digest, bytes] = field(default_factory=dict)
    fetched: list[bytes] = field(default_factory=list)
    number: int = 0
    live: HeadRef | None = None
    exchange: Exchange | None = None

    @classmethod
    def make(cls, at: Path, definition: Definition | None = None) -> World:
        root = at / "root"
        root.mkdir()
        create_marker(root, FILESET, NodeName("s1"))
        place = resolve_place(root, FILESET)
        prepare_place(place)
        return cls(place, definition or Definition())

    @classmethod
    def reopen(cls, at: Path, definition: Definition | None = None) -> World:
        return cls(resolve_place(at / "root", FILESET), definition or Definition())

    @property
    def root(self) -> Path:
        return self.place.root

    def generation(self, tree: Tree) -> HeadRef:
        """A next head with this tree; its contents can be fetched."""
        listed = entries(tree)
        for what in tree.values():
            data = what if isinstance(what, bytes) else b""
            match what:
                case File(data=inner):
                    data = inner
                case Link(target=target):
                    data = target
            self.contents[digest(data)] = data
        root = build(listed, lambda page, raw: self.pages.__setitem__(page, raw))
        self.number += 1
        return HeadRef(1, self.number, digest(b"%d" % self.number + root), root)

    def page(self, name: Digest) -> bytes:
        return self.pages[name]

    def fetch(self, want: Want) -> bytes:
        self.fetched.append(want.entry.path)
        return self.contents[want.digest]

    def open(self, target: HeadRef, **options: object) -> Stage:
        options.setdefault("previous", self.live)
        options.setdefault("exchange", self.exchange)
        live = self.live.root if self.live is not None else None
        return Stage(
            self.place,
            target,
            live,
            self.page,
            self.definition,
            local=self.local,
            **options,  # type: ignore[arg-type]
        )

    def stage(self, target: HeadRef, now_ns: int = START_NS, **options: object) -> Journal:
        stage = self.open(target, **options)
        try:
            while wants := stage.wants(limit_entries=3):
                for want in wants:
                    if want.is_large:
                        with closing(stage.large(want)) as large:
                            data = self.fetch(want)
                            for offset, length in large.missing():
                                large.write(offset, data[offset : offset + length])
                            large.finish()
                    else:
                        stage.lay(want, self.fetch(want))
            return stage.seal(now_ns)
        finally:
            stage.close()

    def apply(self, tree: Tree, **options: object) -> Switched:
        target = self.generation(tree)
        journal = self.stage(target, now_ns=START_NS + self.number * 1_000_000, **options)
        switched = switch(self.place, journal, local=self.local, get_page=self.page, now_ms=self.number)
        finish(self.place, switched.journal)
        self.live = target
        self.end_linger()
        return switched

    def of_tree(self, entry: Entry) -> int | None:
        """A live file with the contents of the entry, wherever it lies."""
        for path in _walk(self.root):
            if path.is_file() and not path.is_symlink() and digest(path.read_bytes()) == entry.digest:
                return os.open(path, os.O_RDONLY)
        return None

    def end_linger(self) -> int:
        """Take down every old tree; how many objects no switch knew."""
        return sum(end_linger(self.place, batch, 1).late for batch in lingering(self.place))

    def holds(self, tree: Tree) -> bool:
        return seen(self.root) == expected(tree, self.contents)
