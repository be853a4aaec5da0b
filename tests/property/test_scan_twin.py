"""The scan of a random tree, changed at random, against a naive twin that reads everything with os.walk."""

from __future__ import annotations

import os
import random
import shutil
import stat
import tempfile
from pathlib import Path

from blake3 import blake3
from hypothesis import given, settings
from hypothesis import strategies as st

from instep.model.definition import Definition
from instep.model.ids import Digest, FilesetName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.entry_rules import check_entry
from instep.model.paths import sort_key
from instep.model.statrow import StatRow
from instep.tree.objects.rows import RowsInOrder
from instep.tree.root.place import Place
from instep.tree.scan.compare import compare
from instep.tree.scan.scan import Scanned, scan

NAMES = [b"a", b"a-b", b"a.b", b"a\nb", b"\xff", b"z" * 255, "ü".encode(), b"b", b" ", b"a\x01"]


def twin(root: bytes) -> list[Entry]:
    """Everything below ``root``, the slow and obvious way."""
    found = []
    for directory, directories, files in os.walk(root):
        for name in directories + files:
            path = os.path.join(directory, name)
            seen = os.lstat(path)
            kind, data = Kind.DIR, b""
            if stat.S_ISLNK(seen.st_mode):
                kind, data = Kind.SYMLINK, os.readlink(path)
            elif stat.S_ISREG(seen.st_mode):
                kind, data = Kind.FILE, Path(os.fsdecode(path)).read_bytes()
            digest = Digest(b"" if kind is Kind.DIR else blake3(data).digest())
            relative = os.path.relpath(path, root)
            found.append(
                Entry(relative, kind, stat.S_IMODE(seen.st_mode), len(data), seen.st_mtime_ns, digest, 0)
            )
    return sorted(found, key=lambda entry: sort_key(entry.path))


def mutate(root: bytes, chance: random.Random) -> None:
    """One random change somewhere in the tree."""
    places = [root] + [
        os.path.join(d, n) for d, ds, _ in os.walk(root) for n in ds if not os.path.islink(os.path.join(d, n))
    ]
    target = os.path.join(chance.choice(places), chance.choice(NAMES))
    action = chance.choice(["file", "file", "dir", "dir", "link", "remove", "move", "chmod"])
    exists = os.path.lexists(target)
    if action == "move" and exists:
        other = os.path.join(chance.choice(places), chance.choice(NAMES))
        if not os.path.lexists(other) and not (other + b"/").startswith(target + b"/"):
            os.rename(target, other)
    elif action == "chmod" and exists and not os.path.islink(target):
        os.chmod(target, chance.choice([0o700, 0o755, 0o777]))
    elif action == "remove" and exists:
        shutil.rmtree(target) if os.path.isdir(target) and not os.path.islink(target) else os.unlink(target)
    elif not exists:
        if action == "dir":
            os.mkdir(target)
        elif action == "link":
            os.symlink(chance.choice([b".", b"nowhere", b"/etc/passwd"]), target)
        elif action == "file":
            Path(os.fsdecode(target)).write_bytes(chance.randbytes(chance.randrange(50)))


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1 << 32))
def test_scan_equals_its_twin(seed: int) -> None:
    chance = random.Random(seed)
    base = Path(tempfile.mkdtemp(prefix="instep-twin-"))
    try:
        root = os.fsencode(base / "root")
        os.mkdir(root)
        place = Place(base / "root", base / "control", FilesetName("data"))
        rows: dict[bytes, StatRow] = {}
        before: list[Entry] = []
        for _ in range(3):
            for _ in range(chance.randrange(12)):
                mutate(root, chance)
            inodes = {(row.dev, row.ino): row for row in rows.values()}
            ordered = sorted(rows.values(), key=lambda row: sort_key(row.path))
            items = list(
                scan(place, Definition(), RowsInOrder(ordered), lambda d, i, k=inodes: k.get((d, i)), 0)  # type: ignore[misc]
            )
            scanned = [item for item in items if isinstance(item, Scanned)]
            entries = [item.entry for item in scanned]
            assert len(scanned) == len(items)
            assert entries == twin(root)
            for entry in entries:
                check_entry(entry)
            differing = {d.path for d in compare(before, items)}
            old, new = {e.path: e for e in before}, {e.path: e for e in entries}
            assert differing == {
                path
                for path in old.keys() | new.keys()
                if (a := old.get(path)) != (b := new.get(path))
                and not (a and b and a.kind is b.kind is Kind.DIR and a.mode == b.mode)
            }
            rows = {item.row.path: item.row._replace(read_at_ns=1 << 62) for item in scanned if item.row}
            before = entries
    finally:
        shutil.rmtree(base)
