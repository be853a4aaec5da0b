"""Two real ends of the peer protocol on loopback: which peers get in, which are refused, and the error that each side
gets."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import aiohttp
import msgspec
import pytest
import uvloop

from instep.errors import InstepError, NotAllowedError, PeerError, UnavailableError
from instep.model.ids import Digest, NodeName, node_name
from instep.net.client import PeerClient, join_cluster
from instep.net.connections.allow import AllowList
from instep.net.connections.dial import split_address
from instep.net.connections.listener import Limits
from instep.net.connections.presented import trust_fetch
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.service import HEADS, PAGES, RENEW, VERIFY
from instep.net.transfer import AnswerStatus
from instep.net.trust.certs import Purpose
from instep.net.trust.pki import Issued, Pki
from tests.support import peers
from tests.support.waiting import eventually_async

S1 = node_name("s1")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Iterator[Callable[[Awaitable[None]], None]]:
    factory = asyncio.new_event_loop if request.param == "asyncio" else uvloop.new_event_loop

    async def bounded(work: Awaitable[None]) -> None:
        async with asyncio.timeout(60):
            await work

    with asyncio.Runner(loop_factory=factory) as runner:
        yield lambda work: runner.run(bounded(work))


@pytest.fixture
def ca(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path / "main", "c", node_name("main"), peers.now_ms())


@pytest.fixture
def s1(ca: Pki, tmp_path: Path) -> Pki:
    return peers.member(ca, tmp_path / "s1", "s1")


async def code_of(work: Awaitable[object], kind: type[InstepError]) -> str:
    with pytest.raises(kind) as caught:
        await work
    return caught.value.error_code


def heads() -> m.HeadsRequest:
    return m.HeadsRequest((m.KnownLine(peers.LINE),))


def test_a_member_asks_and_streams(run: Callable[..., None], ca: Pki, s1: Pki) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
            assert (await client.call(HEADS, heads())).heads == ()
            request = m.PagesRequest(peers.LINE, peers.GENERATION, (peers.PAGE,) * 3)
            assert (await client.call(PAGES, request)).pages == (b"page" * 10_000,) * 3
            async with client.stream(peers.hello("s1")) as (welcome, stream):
                assert welcome.name == "main"
                await stream.send(m.Ping(7))
                assert await stream.receive() == m.Pong(7)
            assert ("heads", "s1") in node.service.asked

    run(work())


def test_a_node_that_stops_says_so_first(run: Callable[..., None], ca: Pki, s1: Pki) -> None:
    async def work() -> None:
        loop = asyncio.get_running_loop()
        async with peers.dialling_later(s1) as dial:
            async with peers.serving(ca) as node:
                opened = dial(node).stream(peers.hello("s1"))
                _, stream = await opened.__aenter__()
                await stream.send(m.Ping(1))
                assert await stream.receive() == m.Pong(1)
                stopping_at = loop.time()
            assert loop.time() - stopping_at < 15, "it waited for the peer to hang up"
            assert await stream.receive() == m.Goodbye("stopping")
            await opened.__aexit__(None, None, None)

    run(work())


def test_contents_arrive_in_batches_and_ranges_in_place(
    run: Callable[..., None], ca: Pki, s1: Pki, tmp_path: Path
) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(3_500_000))
    contents: list[bytes | Path] = [b"", b"one", b"two" * 1000, os.urandom(70_000), large]

    async def work() -> None:
        async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
            node.service.contents_by_position = contents
            for may_compress in (True, False):
                got: dict[int, bytearray] = {}
                request = m.ContentsRequest(
                    peers.LINE, peers.GENERATION, (m.PageWant(peers.PAGE, (0, 1, 2, 3, 4)),) * 3, may_compress
                )
                async for batch in client.contents(request, sizes=[0, 3, 3000, 70_000, 3_500_000] * 3):
                    for answer in batch:
                        got.setdefault(answer.want, bytearray()).extend(answer.data)
                expected = [c.read_bytes() if isinstance(c, Path) else c for c in contents] * 3
                assert [bytes(got[want]) for want in range(15)] == expected
            ranges = m.RangesRequest(
                peers.LINE, peers.GENERATION, peers.PAGE, 4, ((10, 5), (1 << 40, 3)), may_compress=False
            )
            answers = [answer async for batch in client.ranges(ranges) for answer in batch]
            assert [(a.want, a.status, a.offset, bytes(a.data)) for a in answers] == [
                (0, AnswerStatus.PIECE, 10, b"rrrrr"),
                (1, AnswerStatus.PIECE, 1 << 40, b"rrr"),
            ]

    run(work())


def test_the_rate_limit_slows_and_does_not_break(run: Callable[..., None], ca: Pki, s1: Pki) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
            node.service.contents_by_position = [os.urandom(1_000_000)]
            node.rate_bytes_s = 800_000
            started_at = asyncio.get_running_loop().time()
            request = m.ContentsRequest(peers.LINE, peers.GENERATION, peers.wants(1))
            batches = [batch async for batch in client.contents(request)]
            assert sum(len(a.data) for batch in batches for a in batch) == 1_000_000
            assert asyncio.get_running_loop().time() - started_at > 0.15

    run(work())


def test_more_than_the_entry_holds_is_refused(run: Callable[..., None], ca: Pki, s1: Pki) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
            node.service.contents_by_position = [b"four"]
            request = m.ContentsRequest(peers.LINE, peers.GENERATION, peers.wants(1))

            async def read() -> None:
                async for _ in client.contents(request, sizes=[3]):
                    pass

            assert await code_of(read(), PeerError) == "bad_frame"
            node.service.contents_by_position = [b""]
            node.service.is_endless = True
            assert await code_of(read(), PeerError) == "bad_frame"

    run(work())


def test_an_error_of_the_node_travels_whole_and_a_bug_says_nothing(
    run: Callable[..., None], ca: Pki, s1: Pki
) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
            node.service.denied.add(S1)
            with pytest.raises(NotAllowedError) as caught:
                await client.call(HEADS, heads())
            assert caught.value.error_code == "link"
            assert caught.value.facts == {"fileset": "catalog", "told_by": "main"}
            request = m.ContentsRequest(peers.LINE, peers.GENERATION, peers.wants(1))
            assert await code_of(anext(client.contents(request)), NotAllowedError) == "link"
            with pytest.raises(InstepError) as hidden:
                await client.call(VERIFY, m.VerifyRequest(1, peers.LINE))
            assert "secret" not in str(hidden.value)

    run(work())


# Peers that get in------------------------------------------------------------------------------------------


def test_join_with_a_token_then_speak_as_a_member(run: Callable[..., None], ca: Pki, tmp_path: Path) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node:
            new = Pki(tmp_path / "s7")
            csrs = new.requests(node_name("s7"))
            # an address without a listener is tried and left
            invitation = node.service.invite("s7", "127.0.0.1:9", node.address)
            reply, address = await join_cluster(invitation, *csrs)
            assert address == node.address
            new.install(node_name("s7"), reply.ca, Issued(reply.tls_cert, reply.sign_cert), reply.crl)
            async with peers.dialling(new, node) as client:
                await client.call(HEADS, heads())
                renewed = await client.call(RENEW, m.RenewRequest(*csrs))
                before = new.certificate(Purpose.TLS)
                new.install(node_name("s7"), reply.ca, Issued(renewed.tls_cert, renewed.sign_cert), reply.crl)
                assert new.certificate(Purpose.TLS) != before
                assert new.pin == TlsContexts(new).trust.identify(_der(new)).pin
            assert await code_of(join_cluster(invitation, *csrs), NotAllowedError) == "token_used"
            late = node.service.invite("s8", node.address, ttl_ms=-1)
            assert await code_of(join_cluster(late, *csrs), NotAllowedError) == "token_expired"
            other = msgspec.structs.replace(late, ca=b"x" * 32)
            assert await code_of(join_cluster(other, *csrs), NotAllowedError) == "wrong_cluster"
            forged = msgspec.structs.replace(late, secret=b"y" * 24)
            assert await code_of(join_cluster(forged, *csrs), NotAllowedError) == "token_unknown"

    run(work())


def _der(pki: Pki) -> bytes:
    return ssl.PEM_cert_to_DER_cert(pki.certificate_path().read_text())


def test_without_a_certificate_only_join_answers(run: Callable[..., None], ca: Pki) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node, aiohttp.ClientSession() as session:
            context = ssl.create_default_context(cadata=ca.authorities_pem().decode())
            context.check_hostname = False
            for what, status in (("heads", 403), ("contents", 403), ("nothing", 400)):
                async with session.post(
                    f"https://{node.address}{m.PREFIX}{what}",
                    ssl=context,
                    headers={m.VERSION_HEADER: "1-1"},
                ) as response:
                    assert response.status == status
                    reply = m.decode(await response.read(), m.ErrorReply)
                    assert reply.code in ("no_certificate", "unknown_request")
            old = PeerClient(TlsContexts(ca), node_name("main"), node.address)
            old._line._session.headers[m.VERSION_HEADER] = "8-9"
            assert await code_of(old.stream(peers.hello("main")).__aenter__(), PeerError) == "version"
            await old.close()
            async with session.post(
                f"https://{node.address}{m.PREFIX}join", ssl=context, headers={m.VERSION_HEADER: "7-9"}
            ) as response:
                assert response.status == 426
                reply = m.decode(await response.read(), m.ErrorReply)
                assert reply.known_facts() == {"ours": str(m.VERSIONS), "theirs": "7-9"}

    run(work())


def test_an_address_that_is_not_allowed_learns_who_refused(
    run: Callable[..., None], ca: Pki, s1: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
            monkeypatch.setattr(AllowList, "lets", lambda *_: False)
            assert await code_of(client.call(HEADS, heads()), NotAllowedError) == "refused_by_peer_allow"
            assert node.refusals[0].why == "allow"
            with pytest.raises(NotAllowedError):
                await asyncio.to_thread(trust_fetch, *split_address(node.address))

    run(work())


def test_revocation_cuts_open_connections_and_refuses_new_ones(
    run: Callable[..., None], ca: Pki, s1: Pki
) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
            async with client.stream(peers.hello("s1")) as (_, stream):
                ca.revoke(S1, peers.now_ms())
                node.tls.reload()
                assert node.server.drop_untrusted() == 1
                assert await code_of(stream.receive(), UnavailableError) == "stream_broken"
            assert await code_of(client.call(HEADS, heads()), NotAllowedError) == "refused_by_peer_revoked"
            async with peers.dialling(s1, node) as fresh:
                assert await code_of(fresh.call(HEADS, heads()), NotAllowedError) == "refused_by_peer_revoked"

    run(work())


def test_certificates_of_others_are_refused_on_the_right_side(
    run: Callable[..., None], ca: Pki, tmp_path: Path
) -> None:
    foreign_ca = Pki.create(tmp_path / "foreign", "c", node_name("main"), peers.now_ms())
    foreign = peers.member(foreign_ca, tmp_path / "f1", "f1")
    old = peers.member(ca, tmp_path / "old", "old", life_s=-1)

    async def work() -> None:
        async with peers.serving(ca) as node:
            for pki, refusal in ((foreign, "certificate_refused_here"), (old, "refused_by_peer_expired")):
                async with peers.dialling(pki, node) as client:
                    assert await code_of(client.call(HEADS, heads()), NotAllowedError) == refusal
            # the foreign node believes our server, ours does not know it
            foreign_trusting = TlsContexts(foreign)
            foreign_trusting._client.load_verify_locations(cadata=ca.authorities_pem().decode())
            foreign_trusting._client.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF
            foreign_trusting._client.check_peer = None
            client = PeerClient(foreign_trusting, node_name("main"), node.address)
            code = await code_of(client.call(HEADS, heads()), NotAllowedError)
            assert code in ("refused_by_peer_unknown", "refused_by_peer_certificate")
            await client.close()
            # a node is not another node
            async with contextlib.aclosing(_Closing(old, node, node_name("s2"))) as wrong:
                code = await code_of(wrong.client.call(HEADS, heads()), NotAllowedError)
                assert code == "certificate_refused_here"

    run(work())


def test_an_expired_node_may_only_ask_for_new_certificates(
    run: Callable[..., None], ca: Pki, tmp_path: Path
) -> None:
    old = peers.member(ca, tmp_path / "old", "old", life_s=-1)

    async def work() -> None:
        async with peers.serving(ca) as node:
            async with peers.dialling(old, node) as client:
                with pytest.raises(NotAllowedError) as caught:
                    await client.call(HEADS, heads())
                assert "main refused the certificate of old: it expired on" in caught.value.reason
                assert "instep pki renew" in str(caught.value.hint)
                with pytest.raises(NotAllowedError) as caught:
                    async with client.stream(peers.hello("old")):
                        pass
                assert caught.value.error_code == "refused_by_peer_expired"
                reply = await client.call(RENEW, m.RenewRequest(*old.requests(node_name("old"))))
                old.take_renewed(Issued(reply.tls_cert, reply.sign_cert), peers.now_ms())
            async with peers.dialling(old, node) as client:
                await client.call(HEADS, heads())
            ca.revoke(node_name("old"), peers.now_ms())
            node.tls.reload()
            async with peers.dialling(old, node) as client:
                code = await code_of(client.call(RENEW, m.RenewRequest(b"", b"")), NotAllowedError)
                assert code == "refused_by_peer_revoked"

    run(work())


class _Closing:
    def __init__(self, pki: Pki, node: peers.Node, name: NodeName) -> None:
        self.client = PeerClient(TlsContexts(pki), name, node.address)

    async def aclose(self) -> None:
        await self.client.close()


# Hostile ----------------------------------------------------------------------------------------------------


def test_slow_and_half_open_connections_are_cut(run: Callable[..., None], ca: Pki, s1: Pki) -> None:
    async def work() -> None:
        limits = Limits(handshake_s=0.3, first_request_s=0.3, body_s=0.3, sweep_s=0.05)
        async with peers.serving(ca, limits) as node:
            plain, secure, body = await _slow(node, s1)
            assert b"too_slow" in await body[0].read()
            for reader, writer in (plain, secure):
                with contextlib.suppress(ConnectionError):
                    assert await reader.read() == b""
                writer.close()
            body[1].close()
            async with peers.dialling(s1, node) as client:
                await client.call(HEADS, heads())

    run(work())


def test_more_connections_than_an_address_may_have_are_refused(
    run: Callable[..., None], ca: Pki, s1: Pki
) -> None:
    """Goal: the next one is refused by name while three are open, and served once one of them has gone."""

    async def work() -> None:
        async with peers.serving(ca, Limits(connections_per_address=3)) as node:
            held = await _slow(node, s1)
            async with peers.dialling(s1, node) as client:
                assert await code_of(client.call(HEADS, heads()), UnavailableError) == "peer_full"
            for _, writer in held:
                writer.close()

            async def is_served() -> bool:
                async with peers.dialling(s1, node) as client:
                    try:
                        await client.call(HEADS, heads())
                    except UnavailableError:
                        return False
                    return True

            await eventually_async(is_served, 20, "to be served when the others have gone")

    run(work())


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _slow(node: peers.Node, pki: Pki) -> tuple[Connection, Connection, Connection]:
    """Three connections: without a handshake, with half a request, and with half a body."""
    host, port = split_address(node.address)
    plain = await _open(host, port, None)
    secure, body = [await _open(host, port, TlsContexts(pki).client_for(node_name("main"))) for _ in range(2)]
    secure[1].write(b"POST /peer/v1/heads HT")
    body[1].write(
        b"POST /peer/v1/heads HTTP/1.1\r\nHost: main\r\nInstep-Versions: 1-1\r\nContent-Length: 9\r\n\r\nx"
    )
    return plain, secure, body


async def _open(host: str, port: int, context: ssl.SSLContext | None) -> Connection:
    name = "main" if context is not None else None
    return await asyncio.open_connection(host, port, ssl=context, server_hostname=name)


def test_bad_bodies_and_bad_streams_have_names(run: Callable[..., None], ca: Pki, s1: Pki) -> None:
    async def work() -> None:
        async with peers.serving(ca) as node, peers.dialling(s1, node) as client:
            line = client._line
            context = TlsContexts(s1).client_for(node_name("main"))

            async def post(what: str, body: bytes) -> str:
                async with line._session.post(line.url(what), data=io.BytesIO(body), ssl=context) as response:
                    assert response.status == 400
                    return m.decode(await response.read(), m.ErrorReply).code

            assert await post("heads", b"\xc1") == "bad_message"
            assert await post("heads", bytes(m.REQUEST_BYTES_MAX + 1)) == "too_large"
            too_many = (m.PageWant(peers.PAGE, tuple(range(512))),) * 129
            raw = m.encode(m.ContentsRequest(peers.LINE, peers.GENERATION, ()))
            assert m.decode(raw, m.ContentsRequest).count == 0
            with pytest.raises(ValueError, match="too many"):
                m.ContentsRequest(peers.LINE, peers.GENERATION, too_many)
            short = m.PagesRequest(peers.LINE, Digest(b"short"), ())
            assert await code_of(client.call(PAGES, short), PeerError) == "bad_message"
            liar = client.stream(peers.hello("s2"))
            assert await code_of(liar.__aenter__(), NotAllowedError) == "bad_identity"
            async with line.socket("stream", context) as raw_socket:
                await raw_socket.send_str("hello")
                first = m.decode_stream((await raw_socket.receive()).data)
                assert isinstance(first, m.ErrorReply)
                assert first.code == "bad_message"
            await client.call(HEADS, heads())

    run(work())


def test_a_server_that_is_not_ours_is_said_so(run: Callable[..., None], s1: Pki) -> None:
    async def work() -> None:
        async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH\r\n")
            await reader.read(1)
            writer.close()

        server = await asyncio.start_server(babble, "127.0.0.1", 0)
        async with server:
            port = server.sockets[0].getsockname()[1]
            client = PeerClient(TlsContexts(s1), node_name("main"), f"127.0.0.1:{port}")
            with pytest.raises(InstepError):
                await client.call(HEADS, heads())
            await client.close()
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
        client = PeerClient(TlsContexts(s1), node_name("main"), f"127.0.0.1:{port}")
        assert await code_of(client.call(HEADS, heads()), UnavailableError) == "connection_refused"
        await client.close()
        client = PeerClient(TlsContexts(s1), node_name("main"), "no-such-host.invalid:1")
        assert await code_of(client.call(HEADS, heads()), UnavailableError) == "unknown_host"
        await client.close()

    run(work())
