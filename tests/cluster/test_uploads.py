"""Changes with their contents over the real peer protocol: arrived, refused, or cut."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from blake3 import blake3

from instep.errors import NotAllowedError, PeerError, UnavailableError
from instep.model.change import ChangeAnswer
from instep.model.ids import Digest, node_name
from instep.model.lock import LockDenied
from instep.net import client as net_client
from instep.net.client import PeerClient
from instep.net.connections import dial
from instep.net.connections.listener import Limits
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.service import LOCK, SUBMIT_HAVE
from instep.net.transfer import PIECE_BYTES, AnswerStatus, TransferAnswer
from instep.net.trust.pki import Pki
from tests.support import peers

S1 = node_name("s1")
LOCK_OF_A = m.LockRequest(peers.LINE, b"a", "ana")


@pytest.fixture
def ca(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path / "main", "c", node_name("main"), peers.now_ms())


@pytest.fixture
def s1(ca: Pki, tmp_path: Path) -> Pki:
    return peers.member(ca, tmp_path / "s1", "s1")


def _request(*contents: bytes) -> m.SubmitRequest:
    sizes = tuple((Digest(blake3(data).digest()), len(data)) for data in contents)
    return m.SubmitRequest(peers.LINE, b"a change set", sizes)


def _pieces(*contents: bytes) -> Iterator[TransferAnswer]:
    for want, data in enumerate(contents):
        if len(data) <= PIECE_BYTES:
            yield TransferAnswer(want, AnswerStatus.WHOLE, 0, data)
        for offset in range(0, len(data) if len(data) > PIECE_BYTES else 0, PIECE_BYTES):
            yield TransferAnswer(want, AnswerStatus.PIECE, offset, data[offset : offset + PIECE_BYTES])


async def test_contents_go_up_with_the_changes_and_the_connection_is_used_again(ca: Pki, s1: Pki) -> None:
    """Goal: small, empty, compressible and large contents arrive whole and in order; locks are asked over the same
    client before and after."""
    contents = (b"", b"small", bytes(5 << 20), os.urandom(3 << 20))
    async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
        assert (
            await client.call(SUBMIT_HAVE, m.SubmitHave(peers.LINE, _request(*contents).contents))
        ).missing
        for _ in range(2):
            reply = await client.submit(_request(*contents), _pieces(*contents))
            assert node.service.uploaded == [digest for digest, _ in _request(*contents).contents]
            assert reply.answer.outcomes == ()
        denied = (await client.call(LOCK, LOCK_OF_A)).answer
        assert isinstance(denied, LockDenied) and str(denied.owner) == "ana@main (word)"


async def test_who_may_not_offer_gets_the_reason_although_contents_are_under_way(ca: Pki, s1: Pki) -> None:
    """Goal: a refusal before the contents were read arrives as the refusal that it is, and the client goes on."""
    async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
        node.service.denied.add(S1)
        data = os.urandom(200_000)
        with pytest.raises(NotAllowedError, match="does not let s1"):
            await client.submit(_request(data), _pieces(data))
        node.service.denied.clear()
        await client.submit(_request(data), _pieces(data))


async def test_a_file_that_vanishes_while_it_is_sent_is_told_to_the_home(ca: Pki, s1: Pki) -> None:
    """Goal: the home never takes a half for a whole, and says which error came instead."""

    def vanishing() -> Iterator[TransferAnswer]:
        yield from _pieces(b"one")
        raise UnavailableError("b has changed since", code="changed_since")

    async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
        with pytest.raises(UnavailableError, match="b has changed since"):
            await client.submit(_request(b"one", b"two"), vanishing())
        assert node.service.uploaded == []


@pytest.mark.parametrize(
    ("contents", "sent"),
    [
        ((b"short",), (b"much longer than it says",)),
        ((b"one",), (b"one", b"two")),
        ((b"one",), (b"one", b"one")),
    ],
)
async def test_more_than_was_announced_is_refused(
    ca: Pki, s1: Pki, contents: tuple[bytes, ...], sent: tuple[bytes, ...]
) -> None:
    """Goal: longer contents, and contents that were not announced, end the request; nothing is taken."""
    async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
        with pytest.raises(PeerError) as refused:
            await client.submit(_request(*contents), _pieces(*sent))
        assert refused.value.error_code == "bad_frame"
        assert node.service.uploaded == []


async def test_a_request_that_is_no_upload_is_refused_and_one_that_drips_is_cut(ca: Pki, s1: Pki) -> None:
    """Goal: a length beyond the limit, an end in the middle, and silence in the middle: named, within the deadline."""
    limits = Limits(body_s=0.3, write_s=0.3)
    head = m.encode(_request(b"one"))

    async def silent() -> AsyncIterator[bytes]:
        yield len(head).to_bytes(4, "big") + head
        await asyncio.Event().wait()

    bodies = {
        "too_large": b"\xff\xff\xff\xff",
        "bad_message": len(head).to_bytes(4, "big") + head[:-1],
        "too_slow": silent(),
    }
    async with peers.serving(ca, limits) as node:
        context = TlsContexts(s1).client_for(node_name("main"))
        headers = {m.VERSION_HEADER: str(m.VERSIONS)}
        for code, body in bodies.items():
            async with aiohttp.ClientSession() as session:
                url = f"https://{node.address}{m.PREFIX}submit"
                answer = session.post(url, data=body, ssl=context, server_hostname="main", headers=headers)
                async with answer as response:
                    assert m.decode(await response.read(), m.ErrorReply).code == code
        assert node.service.uploaded == []


async def test_a_home_that_works_for_long_does_not_time_out_and_a_silent_one_does(
    ca: Pki, s1: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a home that takes many times the silence which a peer bears is waited for, as long as it is at work."""
    monkeypatch.setattr(net_client, "SUBMIT_S", 0.4)
    for works_s, is_waited_for in ((0.05, True), (60.0, False)):
        async with peers.serving(ca, Limits(works_s=works_s)) as node, peers.dialling(s1, node) as client:
            decided = asyncio.Event()
            asyncio.get_running_loop().call_later(1.5, decided.set)

            async def slow(*_: object, decided: asyncio.Event = decided) -> m.SubmitReply:
                await decided.wait()
                return m.SubmitReply(ChangeAnswer(Digest(bytes(32)), ()))

            monkeypatch.setattr(node.service, "submit", slow)
            if is_waited_for:
                assert (await client.submit(_request(), _pieces())).answer.outcomes == ()
            else:
                with pytest.raises(UnavailableError, match="did not answer in time"):
                    await client.submit(_request(), _pieces())


@pytest.mark.parametrize("reads", [True, False])
@pytest.mark.parametrize("answer", [b"HTTP/1.1 102 Processing\r\n\r\n", b"x"])
async def test_a_peer_that_is_at_work_for_ever_frees_its_callers(
    ca: Pki, s1: Pki, monkeypatch: pytest.MonkeyPatch, reads: bool, answer: bytes
) -> None:
    """Goal: however often a peer says that it is at work, or drips its answer, and whether it reads the changes or
    not, the caller goes on. Method: a peer that sends the same again and again until it is cut off."""
    monkeypatch.setattr(dial, "ANSWER_S", 0.3)
    monkeypatch.setattr(dial, "PIECE_S", 0.3)

    serving: list[asyncio.Task[None]] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        serving.append(task)
        begin = b"" if answer.startswith(b"HTTP") else b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n"
        with contextlib.suppress(OSError):
            writer.write(begin)
            while not writer.is_closing() and not reader.at_eof():
                writer.write(answer)
                await writer.drain()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(0.02):
                        await (reader.read(1 << 20) if reads else asyncio.Event().wait())
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=TlsContexts(ca).server)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    client = PeerClient(TlsContexts(s1), node_name("main"), address)
    large = bytes(random.Random(1).randbytes(24 << 20))
    async with asyncio.timeout(60):
        with pytest.raises(UnavailableError, match="did not answer in time"):
            await client.submit(_request(large), _pieces(large))
        if answer.startswith(b"HTTP"):
            with pytest.raises(UnavailableError, match="did not answer in time"):
                await anext(client.contents(m.ContentsRequest(peers.LINE, peers.GENERATION, ())))
        await client.close()
        server.close()
        await asyncio.gather(*serving)
