"""``restore --to`` between partners that lie and a directory that another user has a hand in (P1, P6)."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from blake3 import blake3

from instep.errors import RefusedError, UnavailableError
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, LineId, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.model.manifest.manifest import build
from instep.model.paths import sort_key
from instep.net.messages import messages as m
from instep.node.lines.partner_contents import PartnerContents
from instep.node.retrieval.fetching_out import FetchingOut, Into
from instep.node.retrieval.restoring_out import RestoringOut
from instep.node.runtime.runtime import Worker
from instep.store.memory import MemoryStore
from instep.tree.archive.contents import Contents
from instep.tree.root.place import Place

LINE = LineId(FilesetName("data"), NodeName("main"))
KEY, LINK = b"the key of all", b"target"
CONTENTS = {Digest(blake3(data).digest()): data for data in (KEY, LINK)}
Giving = Callable[[bytes], bytes]


class _Lender:
    """A partner that says that it has everything, and gives ``give(content)``."""

    def __init__(self, name: str, give: Giving) -> None:
        self.who = NodeName(name)
        self.give = give
        self.asked = 0

    async def held(self, line: LineId, wants: tuple[m.Wanted, ...]) -> tuple[bool, ...]:
        return tuple(True for _ in wants)

    async def parts(self, line: LineId, wants: tuple[m.PartWant, ...]) -> tuple[m.Part, ...]:
        self.asked += 1
        return tuple(m.Part(True, self.give(CONTENTS[Digest(each.wanted.digest)])) for each in wants)


def _entry(path: bytes, kind: Kind, mode: int, data: bytes = b"") -> Entry:
    digest = EMPTY_DIGEST if kind is Kind.DIR else Digest(blake3(data).digest())
    return Entry(path, kind, mode, len(data), 1_700_000_000_000_000_000, digest, 1)


ENTRIES = (
    _entry(b"link", Kind.SYMLINK, 0o777, LINK),
    _entry(b"private", Kind.DIR, 0o750),
    _entry(b"private/key", Kind.FILE, 0o644, KEY),
)


async def _restore(base: Path, lenders: Sequence[_Lender]) -> None:
    store: Any = MemoryStore()
    pages: dict[Digest, bytes] = {}
    root = build(sorted(ENTRIES, key=lambda entry: sort_key(entry.path)), pages.__setitem__)
    store.get_page = pages.get
    (base / "root").mkdir(exist_ok=True)
    place = Place(base / "root", base / "control", LINE.fileset)
    worker = Worker("test")
    service: Any = SimpleNamespace(
        line=LINE,
        fileset=SimpleNamespace(name=LINE.fileset),
        runtime=SimpleNamespace(store=store),
        tree=SimpleNamespace(contents=lambda: Contents(place, None, lambda: iter(()))),
        worker=worker,
    )
    try:
        target = HeadRef(1, 1, root, root)
        work = RestoringOut(FetchingOut(service, target, PartnerContents(LINE, lenders), ()))
        changes = await work.changes(())
        await work.require_contents(changes)
        await work.write(changes, os.fsencode(base / "out"))
    finally:
        worker.close()


def _wrong(data: bytes) -> bytes:
    return bytes(byte ^ 1 for byte in data)


def _endless(data: bytes) -> bytes:
    return data * 1_000


def _nothing(data: bytes) -> bytes:
    raise UnavailableError("a did not answer within 60 s", code="timed_out")


@pytest.mark.parametrize("lie", [_wrong, _endless, _nothing])
def test_what_a_liar_gives_is_noticed_and_the_next_partner_is_asked(tmp_path: Path, lie: Giving) -> None:
    """Goal: files and targets of symlinks are verified, from whichever partner they came; a partner that gave wrong
    bytes, too many, or none, is asked once and never again."""
    liar, honest = _Lender("a", lie), _Lender("b", bytes)
    asyncio.run(_restore(tmp_path, [liar, honest]))
    out = tmp_path / "out"
    assert (out / "private/key").read_bytes() == KEY
    assert os.readlink(os.fsencode(out / "link")) == LINK
    assert (liar.asked, honest.asked) == (1, 2)


def test_a_lie_alone_is_never_written(tmp_path: Path) -> None:
    with pytest.raises(UnavailableError) as caught:
        asyncio.run(_restore(tmp_path, [_Lender("a", _wrong)]))
    assert caught.value.error_code == "contents_missing"
    assert os.listdir(tmp_path / "out") == []


def test_what_a_directory_guards_is_guarded_while_it_is_written(tmp_path: Path) -> None:
    """Goal: a file that every user could read but for its directory's mode is not there for others at any moment."""
    seen: set[int] = set()

    def look(data: bytes) -> bytes:
        found = (tmp_path / "out", tmp_path / "out" / "private")
        seen.update(stat.S_IMODE(each.stat().st_mode) for each in found if each.exists())
        return data

    asyncio.run(_restore(tmp_path, [_Lender("a", look)]))
    assert seen == {0o700}
    assert stat.S_IMODE((tmp_path / "out/private").stat().st_mode) == 0o750


def test_another_directory_that_took_the_name_keeps_its_mode(tmp_path: Path) -> None:
    """Goal: a user who may rename in the outlet cannot have a directory of root's opened by swapping it in."""
    out, precious = tmp_path / "out", tmp_path / "out" / "precious"
    out.mkdir()
    precious.mkdir(mode=0o700)

    def swap(data: bytes) -> bytes:
        if data == KEY:
            (out / "private").rename(out / "away")
            precious.rename(out / "private")
        return data

    with pytest.raises(RefusedError) as caught:
        asyncio.run(_restore(tmp_path, [_Lender("a", swap)]))
    assert caught.value.error_code == "directory_replaced"
    assert stat.S_IMODE((out / "private").stat().st_mode) == 0o700


def test_a_content_is_whole_where_the_kernel_takes_a_part_of_it_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda fd, data, offset: write(fd, data[:5], offset))
    with open(tmp_path / "key", "w+b") as file:
        into = Into(file.fileno(), _entry(b"key", Kind.FILE, 0o644, KEY))
        into.write(4, KEY[4:])
        into.write(0, KEY[:4])
        assert into.is_right()
