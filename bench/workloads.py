"""Trees and edits from a seed: the same seed and scale give the same bytes, names, modes and times."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path

__all__ = [
    "big_file", "edit_both_sides", "edit_in_place", "insert_into", "live_write", "rewrite", "small_files", "texts_beside",
]  # fmt: skip

_MIB = 1 << 20
_OLD_NS = 1_700_000_000 * 10**9  # contents are old, as most served files are
_WORDS = (
    "style",
    "layer",
    "<rule>",
    "</rule>",
    "name=",
    "workspace",
    "0.75",
    "#4a7ebb",
    "feature",
    "bounds",
    "\n  ",
    "value",
)


def _prose(random_: random.Random, size: int) -> bytes:
    return " ".join(random_.choices(_WORDS, k=size // 5)).encode()[:size].ljust(size, b"\n")


def small_files(root: Path, seed: int, count: int, mean_bytes: int = 4300, *, is_plain: bool = False) -> None:
    """``count`` files below ``root/data``, 100 a directory, two levels: two thirds look like configuration, one
    third does not compress; with an empty directory, symlinks, four modes and nanosecond times, unless ``is_plain``."""
    random_ = random.Random(f"{seed} small {count}")
    prose, noise = _prose(random_, _MIB), random_.randbytes(_MIB)
    data = root / "data"
    directories = [data]
    made = 0
    for number in range((count + 99) // 100):
        directory = data / f"area-{number // 20:03}" / f"part-{number:05}"
        directory.mkdir(parents=True)
        directories += [directory] if number % 20 else [directory.parent, directory]
        for _ in range(min(100, count - made)):
            size = min(256 * 1024, max(16, int(random_.lognormvariate(0, 0.9) * mean_bytes / 1.5)))
            at = random_.randrange(_MIB - min(size, _MIB // 2))
            body = (noise if made % 3 == 2 else prose)[at : at + size]
            path = directory / f"item-{made:07}.xml"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            os.write(descriptor, f"{made} {seed}\n".encode() + body)
            os.fchmod(descriptor, 0o644 if is_plain else (0o644, 0o644, 0o600, 0o755)[made % 4])
            os.utime(descriptor, ns=_times(random_))
            os.close(descriptor)
            made += 1
    if is_plain:
        return
    (data / "empty").mkdir()
    (data / "current").symlink_to("area-000")
    (data / "dangling").symlink_to("../not here")
    for directory in [*directories, data / "empty"]:
        os.utime(directory, ns=_times(random_))


def _times(random_: random.Random) -> tuple[int, int]:
    stamp = _OLD_NS - random_.randrange(10**16)
    return stamp, stamp


def _noise(random_: random.Random, size: int) -> Iterator[bytes]:
    for left in range(size, 0, -_MIB):
        yield random_.randbytes(min(left, _MIB))


def big_file(path: Path, seed: int, size: int) -> None:
    """One file that neither compresses nor repeats."""
    random_ = random.Random(f"{seed} big {size}")
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "wb", buffering=0) as file:
        for piece in _noise(random_, size):
            file.write(piece)
    os.utime(path, ns=(_OLD_NS + 123_456_789, _OLD_NS + 123_456_789))


def edit_in_place(path: Path, seed: int, regions: int = 64, share: float = 0.01) -> int:
    """Overwrite ``regions`` spots that make up ``share`` of the file; returns the bytes changed."""
    random_ = random.Random(f"{seed} edit")
    size = path.stat().st_size
    length = max(1, int(size * share) // regions)
    with open(path, "r+b", buffering=0) as file:
        for region in range(regions):
            low = size * region // regions
            file.seek(low + random_.randrange(max(1, size // regions - length)))
            file.write(random_.randbytes(length))
    return regions * length


def insert_into(path: Path, seed: int, size: int) -> int:
    """Insert ``size`` bytes near the middle, as a program does that writes a new file and renames it over."""
    random_ = random.Random(f"{seed} insert")
    at = path.stat().st_size // 2 + 12345 % max(1, path.stat().st_size // 4)
    temporary = path.with_name(f".{path.name}.new")
    with open(path, "rb", buffering=0) as old, open(temporary, "wb", buffering=0) as new:
        left = at
        while left and (piece := old.read(min(left, _MIB))):
            new.write(piece)
            left -= len(piece)
        new.write(random_.randbytes(size))
        while piece := old.read(_MIB):
            new.write(piece)
    os.rename(temporary, path)
    return size


def live_write(directory: Path, seed: int, number: int) -> tuple[str, bytes]:
    """The name and the bytes of the latency row's write ``number``: fifty files, overwritten in turn.

    Fifty, because csync2 does not see a second write of the same size within one second.
    """
    body = random.Random(f"{seed} live {number}").randbytes(2048)
    return f"live-{number % 50}.xml", f"{number:08}".encode() + body


def edit_both_sides(source: Path, target: Path, seed: int, scale: float) -> tuple[int, tuple[str, ...]]:
    """Write 500 files anew in ``source``, 300 others in ``target``, and 20 in both, each side with its own text; returns
    the bytes changed and the last 20 paths."""
    random_ = random.Random(f"{seed} both")
    found = sorted(str(path.relative_to(source)) for path in (source / "data").rglob("*.xml"))
    left, right, both = (max(2, int(count * min(1.0, scale))) for count in (500, 300, 20))
    chosen = random_.sample(found, left + right + both)
    changed = 0
    for at, path in enumerate(chosen[: left + right]):
        side = source if at < left else target
        body = random_.randbytes((side / path).stat().st_size + 100)
        _write_anew(side / path, body)
        changed += len(body)
    apart = tuple(chosen[left + right :])
    for path in apart:
        for mark, side in (("source", source), ("target", target)):
            body = f"{mark} {path}\n".encode()
            _write_anew(side / path, body)
            changed += len(body)
    return changed, apart


def rewrite(source: Path, seed: int, count: int) -> int:
    """Write ``count`` files anew, each with as many bytes as it had; returns the bytes changed."""
    random_ = random.Random(f"{seed} rewrite")
    found = sorted((source / "data").rglob("*.xml"))
    changed = 0
    for path in random_.sample(found, min(count, len(found))):
        body = random_.randbytes(path.stat().st_size)
        _write_anew(path, body)
        changed += len(body)
    return changed


def _write_anew(path: Path, body: bytes) -> None:
    """A new file in the place of the old one, as editors save."""
    temporary = path.with_name(f".{path.name}.new")
    temporary.write_bytes(body)
    os.rename(temporary, path)


def texts_beside(path: str, *sides: Path) -> set[str]:
    """The texts at a path and at its copies, which tools name by its stem."""
    stem = Path(path).stem
    return {found.read_text("latin-1") for side in sides for found in (side / path).parent.glob(f"{stem}*")}
