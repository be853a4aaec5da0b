"""Contents for a line's writer: the writer alone is answered, within bounds, and every question gets an answer (P6)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import msgspec
import pytest
from blake3 import blake3

from instep.errors import PeerError, UnavailableError
from instep.model.ids import Digest, FilesetName, LineId, NodeName
from instep.model.manifest.entry import Entry, Kind
from instep.net.messages import messages as m
from instep.net.messages.lending import HAS_MAX, PARTS_BYTES_MAX, PARTS_MAX
from instep.node.lines.partner_contents import LOOKED_AT_BYTES, PartnerContents
from instep.node.peers.questions.stream_replies import LENDING_MAX, StreamReplies
from instep.node.peers.questions.stream_requests import StreamRequests
from instep.node.peers.questions.warrants import reading_s
from instep.node.trees.keeping.lending import Lending
from instep.tree.archive.contents import Contents
from instep.tree.root.place import Place

MAIN, HUB = NodeName("main"), NodeName("hub")
LINE, UNKNOWN = LineId(FilesetName("data"), MAIN), LineId(FilesetName("data"), NodeName("else"))
DATA = b"what the writer lost"


def want(path: bytes = b"file", data: bytes = DATA, size: int | None = None) -> m.Wanted:
    return m.Wanted(Digest(blake3(data).digest()), len(data) if size is None else size, path)


def lending(base: Path) -> Lending:
    """Of a tree with ``file``, beside which ``outside`` has the same contents, as the control folder has."""
    root = base / "root"
    (root / ".instep").mkdir(parents=True)
    for path in (root / "file", root / ".instep" / "inside", base / "outside"):
        path.write_bytes(DATA if path.name == "file" else b"secret")
    place = Place(root, base / "control", LINE.fileset)
    return Lending(lambda: Contents(place, None, lambda: iter(())))


def answers(lent: object, who: NodeName, *asked: m.HasRequest | m.PartsRequest) -> list[Any]:
    """The answers of a follower of ``LINE``, written by ``main``, to ``who``, in the order of the questions."""
    service = SimpleNamespace(is_written_here=False, writer=MAIN, lending=lent)
    peers: Any = SimpleNamespace(service=lambda line: service if line == LINE else None)

    async def ask() -> list[Any]:
        told: asyncio.Queue[Any] = asyncio.Queue()
        answering = StreamReplies(peers, who, told.put_nowait)
        for question in asked:
            answering.take(question)
        async with asyncio.timeout(20):
            found = [await told.get() for _ in asked]
        return sorted(found, key=lambda reply: reply.number)

    return asyncio.run(ask())


def _never(*_: object) -> NoReturn:
    raise AssertionError("nothing is looked up for a node that is not the writer")


@pytest.mark.parametrize("line", [LINE, UNKNOWN])
def test_another_node_than_the_writer_learns_nothing(line: LineId) -> None:
    """Goal: a hub that forwards the line is refused in the same words as for a line that is not here."""
    looked = SimpleNamespace(held=_never, parts=_never)
    has, parts = answers(
        looked, HUB, m.HasRequest(1, line, (want(),)), m.PartsRequest(2, line, (m.PartWant(want(), 0, 5),))
    )
    assert (has.is_there, parts.parts) == ((), ())
    assert has.refusal == parts.refusal == f"{line} is not followed here"


def test_the_writer_gets_what_is_in_the_tree(tmp_path: Path) -> None:
    has, parts = answers(
        lending(tmp_path),
        MAIN,
        m.HasRequest(1, LINE, (want(), want(data=b"never"))),
        m.PartsRequest(2, LINE, (m.PartWant(want(), 5, 3), m.PartWant(want(data=b"never"), 0, 5))),
    )
    assert has.is_there == (True, False)
    assert parts.parts == (m.Part(True, DATA[5:8]), m.Part(False))


@pytest.mark.parametrize("path", [b"", b"../outside", b"/etc/hostname", b".instep/inside", b"a\0b"])
def test_a_path_that_no_manifest_carries_is_refused_by_name(tmp_path: Path, path: bytes) -> None:
    """Goal: the asker gets its answer, and neither the control folder nor what lies outside is looked into."""
    wanted = want(path, b"secret")
    has, parts = answers(
        lending(tmp_path),
        MAIN,
        m.HasRequest(1, LINE, (wanted,)),
        m.PartsRequest(2, LINE, (m.PartWant(wanted, 0, 5),)),
    )
    assert (has.is_there, parts.parts) == ((), ())
    assert "path" in has.refusal and "path" in parts.refusal


def test_a_partner_works_on_few_questions_at_a_time() -> None:
    async def looks_long(_: object) -> tuple[bool, ...]:
        await asyncio.sleep(0)
        return ()

    asked = [m.HasRequest(number, LINE, ()) for number in range(LENDING_MAX + 1)]
    found = answers(SimpleNamespace(held=looks_long), MAIN, *asked)
    assert [bool(each.refusal) for each in found] == [False] * LENDING_MAX + [True]


@pytest.mark.parametrize(
    "message",
    [
        m.HasRequest(1, LINE, (want(),) * (HAS_MAX + 1)),
        m.HasRequest(1, LINE, (want(b"p" * 4_097),)),
        m.HasRequest(1, LINE, (want(size=-1),)),
        m.PartsRequest(1, LINE, (m.PartWant(want(), 0, 1),) * (PARTS_MAX + 1)),
        m.PartsRequest(1, LINE, (m.PartWant(want(), 0, PARTS_BYTES_MAX + 1),)),
        m.HasReply(1, (True,) * (HAS_MAX + 1)),
        m.PartsReply(1, (m.Part(True, bytes(PARTS_BYTES_MAX + 1)),)),
    ],
)
def test_counts_and_sizes_are_bounded(message: Any) -> None:
    with pytest.raises(PeerError) as caught:
        m.decode_stream(m.encode(message))
    assert caught.value.error_code in ("bad_message", "too_large")


class _Asked:
    who = NodeName("s1")

    def __init__(self) -> None:
        self.batches: list[tuple[m.Wanted, ...]] = []

    async def held(self, line: LineId, wants: tuple[m.Wanted, ...]) -> tuple[bool, ...]:
        self.batches.append(wants)
        return tuple(True for _ in wants)

    async def parts(self, line: LineId, wants: tuple[m.PartWant, ...]) -> tuple[m.Part, ...]:
        raise AssertionError("contents are only located here")


def located(entries: Sequence[Entry]) -> list[tuple[m.Wanted, ...]]:
    lender = _Asked()
    asyncio.run(PartnerContents(LINE, [lender]).locate(entries))
    return lender.batches


def test_an_honest_partner_has_the_time_to_hash_what_it_is_asked_for() -> None:
    """Goal: a tree of many large files comes back. A partner hashes each of them before it says that it has it, so one
    question is about no more than can be read before its deadline, whose length goes by the bytes."""
    entry = Entry(b"big", Kind.FILE, 0o644, LOOKED_AT_BYTES // 4, 0, Digest(b"d" * 32), 1)
    entries = [
        msgspec.structs.replace(entry, path=b"big%d" % n, digest=Digest(bytes([n]) * 32)) for n in range(9)
    ]
    batches = located(entries)
    assert [len(batch) for batch in batches] == [4, 4, 1]
    assert max(reading_s(batch) for batch in batches) == LOOKED_AT_BYTES / (32 << 20)
    assert [len(batch) for batch in located([msgspec.structs.replace(entry, size=1 << 50)])] == [1]


class _Session(StreamRequests):
    who = NodeName("s1")
    hello = m.Hello(m.VERSIONS, who, b"session")

    def __init__(self) -> None:
        super().__init__()
        self.told: list[m.StreamMessage] = []

    def tell(self, message: m.StreamMessage) -> None:
        self.told.append(message)


def test_a_partner_whose_stream_has_ended_is_not_waited_for() -> None:
    """Goal: a restore that goes on while a partner is revoked, or goes away between two questions, asks the next
    partner at once: the deadline of a large content is hours."""

    async def ask() -> list[m.StreamMessage]:
        session = _Session()
        before = asyncio.get_running_loop().create_task(session.held(LINE, (want(),)))
        await asyncio.sleep(0)
        session._end_asking()
        later = session.held(LINE, (want(size=1 << 40),))
        for asking in (before, later):
            with pytest.raises(UnavailableError) as caught:
                async with asyncio.timeout(20):
                    await asking
            assert caught.value.error_code == "not_connected"
        return session.told

    assert len(asyncio.run(ask())) == 1
