"""Did it really arrive? Every result is compared with its source, byte for byte, before its time counts."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Verdict", "compare"]

_PIECE = 4 << 20
# Bookkeeping that tools keep inside the tree; not part of the carried tree.
_BOOKKEEPING = (b".instep", b".stfolder", b".stversions", b".stignore", b".svn")


@dataclass
class Verdict:
    """``wrong`` fails a measurement; ``lost`` names fidelity that the tool does not keep, with counts."""

    entries: int = 0
    wrong: list[str] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)

    @property
    def is_right(self) -> bool:
        return not self.wrong


def compare(source: Path, target: Path, apart: Sequence[str] = ()) -> Verdict:
    """Names, kinds, contents, modes and symlink targets must agree; times are compared to the nanosecond. Paths that
    begin as one of ``apart`` (but for its ending) are left out."""
    verdict = Verdict()
    left_out = tuple(os.fsencode(path.rpartition(".")[0]) for path in apart)
    theirs = {path: stat for path, stat in _walk(os.fsencode(target)) if not path.startswith(left_out)}
    for path, here in _walk(os.fsencode(source)):
        if path.startswith(left_out):
            continue
        verdict.entries += 1
        there = theirs.pop(path, None)
        name = os.fsdecode(path)
        if there is None:
            verdict.wrong.append(f"{name}: missing")
        elif stat.S_IFMT(here.st_mode) != stat.S_IFMT(there.st_mode):
            verdict.wrong.append(f"{name}: another kind")
        else:
            _compare_one(
                os.path.join(os.fsencode(source), path),
                os.path.join(os.fsencode(target), path),
                here,
                there,
                name,
                verdict,
            )
    verdict.wrong.extend(f"{os.fsdecode(path)}: should not be there" for path in theirs)
    return verdict


def _compare_one(
    ours: bytes, theirs: bytes, here: os.stat_result, there: os.stat_result, name: str, verdict: Verdict
) -> None:
    if stat.S_ISLNK(here.st_mode):
        if os.readlink(ours) != os.readlink(theirs):
            verdict.wrong.append(f"{name}: another symlink target")
        return
    if here.st_mode != there.st_mode:
        verdict.wrong.append(f"{name}: mode {here.st_mode & 0o7777:o} became {there.st_mode & 0o7777:o}")
    if (here.st_uid, here.st_gid) != (there.st_uid, there.st_gid):
        verdict.lost["owner"] += 1
    if stat.S_ISREG(here.st_mode) and (
        here.st_size != there.st_size or not _same_bytes(ours, theirs, here.st_size)
    ):
        verdict.wrong.append(f"{name}: other bytes")
    if here.st_mtime_ns != there.st_mtime_ns:
        kind = "directory times" if stat.S_ISDIR(here.st_mode) else "file times"
        is_cut = here.st_mtime_ns // 10**9 == there.st_mtime_ns // 10**9
        verdict.lost[f"{kind} {'below a second' if is_cut else 'altogether'}"] += 1


def _same_bytes(ours: bytes, theirs: bytes, size: int) -> bool:
    with open(ours, "rb", buffering=0) as left, open(theirs, "rb", buffering=0) as right:
        for _ in range(0, size, _PIECE):
            if left.read(_PIECE) != right.read(_PIECE):
                return False
    return True


def _walk(root: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    waiting = [b""]
    while waiting:
        directory = waiting.pop()
        with os.scandir(os.path.join(root, directory)) as entries:
            for entry in entries:
                if not directory and entry.name.startswith(_BOOKKEEPING):
                    continue
                path = os.path.join(directory, entry.name)
                yield path, entry.stat(follow_symlinks=False)
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(path)
