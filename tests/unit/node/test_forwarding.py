"""Contents through a hub: the writer's warrant opens the nodes behind it, nothing else does, and no question outlasts its
asker."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest
from blake3 import blake3

from instep.errors import UnavailableError
from instep.model.ids import Digest, FilesetName, LineId, NodeName
from instep.net.messages import messages as m
from instep.net.messages.lending import warrant_id
from instep.net.trust.pki import Pki
from instep.node.peers.questions.forwarding import FORWARD_S, Forwarding
from instep.node.peers.questions.warrants import HAS_S, SKEW_MS, WARRANT_MS, is_warranted, warrant_of
from instep.node.runtime.driver import wall_ms
from tests.support.peers import member, now_ms

MAIN, HUB, LEAF = NodeName("main"), NodeName("hub"), NodeName("leaf")
LINE = LineId(FilesetName("data"), MAIN)


def want(data: bytes) -> m.Wanted:
    return m.Wanted(Digest(blake3(data).digest()), len(data), b"file")


def part(data: bytes) -> m.PartWant:
    return m.PartWant(want(data), 0, len(data))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    """The CA, which is the writer ``main``."""
    return Pki.create(tmp_path_factory.mktemp("ca"), "c", MAIN, now_ms())


def line_of(pki: Pki, *, is_written_here: bool) -> Any:
    runtime = SimpleNamespace(pki=pki, store=SimpleNamespace(get=lambda key: None))
    return SimpleNamespace(line=LINE, writer=MAIN, is_written_here=is_written_here, runtime=runtime)


def peers_of(service: Any) -> Any:
    return SimpleNamespace(service=lambda line: service, runtime=service.runtime)


def test_the_writers_word_is_believed_for_its_line_and_its_time(
    authority: Pki, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Goal: a hub cannot write itself a warrant, use one for another line, after the writer changed, or for ever."""
    hub = member(authority, tmp_path_factory.mktemp("hub"), "hub")
    leaf = line_of(member(authority, tmp_path_factory.mktemp("leaf"), "leaf"), is_written_here=False)
    good = warrant_of(peers_of(line_of(authority, is_written_here=True)), LINE, HUB)
    assert good is not None and is_warranted(leaf, good, HUB)
    assert not is_warranted(leaf, None, HUB)
    assert not is_warranted(leaf, good, LEAF), "a node that was shown the warrant of another"
    assert warrant_of(peers_of(line_of(hub, is_written_here=False)), LINE, HUB) is None
    own = hub.sign(warrant_id(LINE, HUB, good.until_ms))
    assert not is_warranted(leaf, m.Warrant(good.until_ms, HUB, own), HUB)
    assert not is_warranted(leaf, m.Warrant(good.until_ms + 1, HUB, good.signature), HUB)
    assert not is_warranted(leaf, m.Warrant(good.until_ms, LEAF, good.signature), LEAF)
    other = LineId(FilesetName("other"), MAIN)
    assert not is_warranted(cast(Any, SimpleNamespace(**{**vars(leaf), "line": other})), good, HUB)
    assert not is_warranted(cast(Any, SimpleNamespace(**{**vars(leaf), "writer": HUB})), good, HUB)
    for until_ms in (wall_ms() - SKEW_MS - 1_000, wall_ms() + WARRANT_MS + SKEW_MS + 60_000):
        signed = authority.sign(warrant_id(LINE, HUB, until_ms))
        assert not is_warranted(leaf, m.Warrant(until_ms, HUB, signed), HUB)


class Behind:
    """A node behind the hub that has these contents, and answers so many parts at a time."""

    def __init__(
        self, name: str, *contents: bytes, at_once: int = 100, takes: tuple[str, ...] = m.TAKES
    ) -> None:
        self.who = NodeName(name)
        self.hello = m.Hello(m.VERSIONS, self.who, b"session", takes=takes)
        self.contents = {bytes(want(data).digest): data for data in contents}
        self.at_once = at_once
        self.waited: list[float] = []
        self.is_gone = False

    async def held(self, line: LineId, wants: tuple[m.Wanted, ...], **how: Any) -> tuple[bool, ...]:
        self.waited.append(how["within_s"])
        if self.is_gone:
            raise UnavailableError("gone", code="not_connected")
        return tuple(bytes(each.digest) in self.contents for each in wants)

    async def parts(self, line: LineId, wants: tuple[m.PartWant, ...], **how: Any) -> tuple[m.Part, ...]:
        found = [self.contents.get(bytes(each.wanted.digest)) for each in wants[: self.at_once]]
        return tuple(m.Part(data is not None, data or b"") for data in found)


WARRANT = m.Warrant(1, HUB, SimpleNamespace())  # type: ignore[arg-type]


def asked(
    behind: list[Behind], mine: dict[bytes, bool], *, warrant: m.Warrant | None = WARRANT, within_ms: int = 0
) -> tuple[tuple[bool, ...], tuple[m.Part, ...]]:
    """What the hub, which has the contents that are true in ``mine``, answers to the writer."""

    async def ask() -> tuple[tuple[bool, ...], tuple[m.Part, ...]]:
        peers: Any = SimpleNamespace(lenders=lambda line: behind, runtime=SimpleNamespace(name=HUB))
        forwarding, began_s = Forwarding(peers, MAIN), asyncio.get_running_loop().time()
        has = m.HasRequest(1, LINE, tuple(map(want, mine)), warrant, within_ms)
        held = await forwarding.held(has, tuple(mine.values()), began_s)
        own = [m.Part(is_there, data if is_there else b"") for data, is_there in mine.items()]
        parts = m.PartsRequest(2, LINE, tuple(map(part, mine)), warrant, within_ms)
        return held, await forwarding.parts(parts, own, began_s)

    return asyncio.run(ask())


def test_nodes_behind_a_hub_fill_what_it_lacks() -> None:
    behind = [Behind("s1", b"two"), Behind("s2", b"three", b"two")]
    held, parts = asked(behind, {b"one": True, b"two": False, b"three": False, b"never": False})
    assert held == (True, True, True, False)
    assert parts == (m.Part(True, b"one"), m.Part(True, b"two"), m.Part(True, b"three"), m.Part(False))


def test_a_short_answer_is_passed_on_as_a_short_answer() -> None:
    """Goal: parts that did not fit are asked for again, they do not count as missing."""
    held, parts = asked([Behind("s1", b"a", b"b", b"c", at_once=2)], {b"a": False, b"b": False, b"c": False})
    assert held == (True, True, True)
    assert parts == (m.Part(True, b"a"), m.Part(True, b"b"))


def test_who_is_gone_old_or_the_asker_has_nothing() -> None:
    gone = Behind("s1", b"two")
    gone.is_gone = True
    old = Behind("s2", b"two", takes=("contents",))
    held, parts = asked([gone, old, Behind("main", b"two")], {b"one": True, b"two": False})
    assert held == (True, False)
    assert parts == (m.Part(True, b"one"), m.Part(False))
    assert old.waited == []
    for warrant in (None, msgspec.structs.replace(WARRANT, via=LEAF)):
        assert asked([Behind("s3", b"two")], {b"two": False}, warrant=warrant)[0] == (False,)


def test_a_partner_that_lost_a_content_since_it_said_so_ends_no_answer() -> None:
    """Goal: several parts of one content that is gone by now are each answered as missing."""
    pruned = Behind("s1", b"two")

    async def ask() -> tuple[m.Part, ...]:
        peers: Any = SimpleNamespace(lenders=lambda line: [pruned], runtime=SimpleNamespace(name=HUB))
        forwarding, began_s = Forwarding(peers, MAIN), asyncio.get_running_loop().time()
        held = await forwarding.held(m.HasRequest(1, LINE, (want(b"two"),), WARRANT), (False,), began_s)
        assert held == (True,)
        pruned.contents.clear()
        twice = (part(b"two"), part(b"two"))
        return await forwarding.parts(
            m.PartsRequest(2, LINE, twice, WARRANT), (m.Part(False), m.Part(False)), began_s
        )

    assert asyncio.run(ask()) == (m.Part(False), m.Part(False))


def test_a_question_is_over_before_its_asker_gives_up() -> None:
    """Goal: a slow node behind the hub costs the writer nothing of what the hub has."""
    s1 = Behind("s1", b"two")
    asked([s1], {b"two": False})
    asked([s1], {b"two": False}, within_ms=4_000)
    asked([s1], {b"two": False}, within_ms=1_500)
    assert len(s1.waited) == 2
    assert FORWARD_S <= s1.waited[0] < HAS_S and s1.waited[1] <= 2.0
