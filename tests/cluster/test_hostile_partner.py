"""A partner with real keys, or a stranger without, turns hostile towards a writer's daemon: a request that the link
does not allow is refused with a name, connections and memory stay bounded, and honest partners go on being served
(P6, P7)."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import socket
import ssl
from collections.abc import Awaitable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from instep.errors import InstepError
from instep.model.definition import Definition
from instep.model.generation import UNSIGNED, GenerationBody, SignedGeneration
from instep.model.ids import Digest, HeadRef, LineId, fileset_name, node_name
from instep.model.rollout import Order, Verdict
from instep.model.standing import Standing, StandingRecord
from instep.net.client import PeerClient, join_cluster
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.service import CHUNK_PAGES, FACTS, HEADS, HOLDINGS, PAGES, VERIFY
from instep.net.trust.pki import Pki
from instep.net.trust.tokens import parse_token
from tests.support import peers
from tests.support.fleet import Fleet
from tests.support.hostile import Looped, Victim, look, wall_ms
from tests.support.waiting import eventually

pytestmark = pytest.mark.usefixtures("healed")
SECRET = LineId(fileset_name("secret"), node_name("main"))
DATA = LineId(fileset_name("data"), node_name("main"))
NOWHERE = LineId(fileset_name("nowhere"), node_name("main"))
EVE = node_name("eve")


@dataclass
class Scene:
    """``main`` writes ``data`` and ``secret`` (class data); ``s1`` follows honestly; ``eve`` may have ``data`` but
    nothing of class data, and the test holds her keys."""

    base: Path
    fleet: Fleet
    victim: Victim
    looped: Looped
    eve: Pki
    data: HeadRef
    secret: HeadRef
    count: int = 0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.fleet.main.port}"

    def as_eve(self, pki: Pki | None = None) -> PeerClient:
        async def make() -> PeerClient:
            return PeerClient(TlsContexts(pki or self.eve), node_name("main"), self.address)

        return self.looped.run(make())

    def code(self, work: Awaitable[Any], timeout: float = 60.0) -> str:
        """The code of the error that this ends in."""

        async def caught() -> str:
            try:
                await work
            except InstepError as error:
                return error.error_code
            return "no error"

        return self.looped.run(caught(), timeout)

    def heal(self) -> None:
        """An honest generation still arrives at the honest partner."""
        self.count += 1
        (self.fleet.tree("main") / "a").write_text(f"{self.count}\n")
        self.fleet.wait("--node", "s1")
        assert (self.fleet.tree("s1") / "a").read_text() == f"{self.count}\n"
        self.victim.assert_unharmed()


def _head(victim: Victim, fileset: str) -> HeadRef:
    found = victim.line(fileset)["head"]
    return HeadRef(
        found["epoch"],
        found["number"],
        Digest(bytes.fromhex(found["id"])),
        Digest(bytes.fromhex(found["root"])),
    )


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    base = tmp_path_factory.mktemp("hostile")
    fleet = Fleet(base)
    tree, secret = fleet.tree("main"), base / "secret"
    tree.mkdir(parents=True)
    secret.mkdir()
    (tree / "a").write_text("0\n")
    (tree / "large").write_bytes(os.urandom(3 << 20))
    (secret / "key").write_text("the secret")
    looped = Looped()
    try:
        fleet.make(1)
        fleet.main.run("fileset", "add", "secret", str(secret), "--class", "data")
        fleet.main.run("invite", "eve", "--no-data", "--from", "127.0.0.1")
        config = fleet.main.directory / "instep.toml"
        if "partners.eve" not in config.read_text():
            config.write_text(
                config.read_text() + "\n[partners.eve]\nreplicate = true\ndata = false\nhub = false\n"
            )
            fleet.main.run("config", "reload")
        fleet.wait("--node", "s1")
        fleet.main.run("publish", "secret")
        ca = Pki(fleet.main.directory / "pki")
        eve = peers.member(ca, base / "eve-pki", "eve", life_s=86_400)
        victim = Victim(fleet.main, tree, {base / "secret": look(base / "secret")})
        yield Scene(base, fleet, victim, looped, eve, _head(victim, "data"), _head(victim, "secret"))
    finally:
        looped.close()
        fleet.close()


# Requests that the link denies --------------------------------------------------------------------------------


Denied = dict[str, tuple[Awaitable[Any], str]]


def _beyond_the_link(scene: Scene, client: PeerClient) -> Denied:
    data, secret = scene.data, scene.secret
    want = (m.PageWant(secret.root, (0,)),)
    return {
        "pages of a fileset of class data": (
            client.call(PAGES, m.PagesRequest(SECRET, secret.id, (secret.root,))),
            "link_denies",
        ),
        "its contents": (_all(client.contents(m.ContentsRequest(SECRET, secret.id, want))), "link_denies"),
        "its ranges": (
            _all(client.ranges(m.RangesRequest(SECRET, secret.id, secret.root, 0, ((0, 1),)))),
            "link_denies",
        ),
        "its chunk pages": (
            client.call(CHUNK_PAGES, m.ChunkPagesRequest(SECRET, secret.id, secret.root, 0, ())),
            "link_denies",
        ),
        "its holdings": (client.call(HOLDINGS, m.HoldingsRequest(SECRET, (secret.id,))), "link_denies"),
        "its facts": (client.call(FACTS, m.FactsRequest(SECRET)), "link_denies"),
        "its verification": (client.call(VERIFY, m.VerifyRequest(1, SECRET)), "link_denies"),
        "a fileset that is not there": (
            client.call(PAGES, m.PagesRequest(NOWHERE, data.id, ())),
            "link_denies",
        ),
    }


def _beyond_the_generation(scene: Scene, client: PeerClient) -> Denied:
    data, secret = scene.data, scene.secret
    want = (m.PageWant(secret.root, (0,)),)
    return {
        "the other line's generation": (
            client.call(PAGES, m.PagesRequest(DATA, secret.id, (secret.root,))),
            "superseded",
        ),
        "a page of it": (client.call(PAGES, m.PagesRequest(DATA, data.id, (secret.root,))), "bad_want"),
        "contents by a page of the other line": (
            _all(client.contents(m.ContentsRequest(DATA, data.id, want))),
            "bad_want",
        ),
        "a range by a page of the other line": (
            _all(client.ranges(m.RangesRequest(DATA, data.id, secret.root, 0, ((0, 1),)))),
            "bad_want",
        ),
        "chunks by a page of the other line": (
            client.call(CHUNK_PAGES, m.ChunkPagesRequest(DATA, data.id, secret.root, 0, ())),
            "bad_want",
        ),
        "pages that are no chunk pages of the file": (
            client.call(CHUNK_PAGES, m.ChunkPagesRequest(DATA, data.id, data.root, 1, (data.root,))),
            "bad_want",
        ),
        "a position that is not there": (
            _all(client.contents(m.ContentsRequest(DATA, data.id, (m.PageWant(data.root, (511,)),)))),
            "bad_want",
        ),
        "a range beyond the file": (
            _all(client.ranges(m.RangesRequest(DATA, data.id, data.root, 1, ((3 << 20, 1),)))),
            "bad_want",
        ),
        "a page that does not exist": (
            client.call(PAGES, m.PagesRequest(DATA, data.id, (Digest(b"x" * 32),))),
            "bad_want",
        ),
        "a generation that does not exist": (
            client.call(PAGES, m.PagesRequest(DATA, Digest(b"x" * 32), ())),
            "superseded",
        ),
    }


def test_requests_beyond_the_link_are_refused(scene: Scene) -> None:
    client, data = scene.as_eve(), scene.data

    async def refused_heads() -> str:
        reply = await client.call(HEADS, m.HeadsRequest((m.KnownLine(SECRET), m.KnownLine(DATA)) * 2_000))
        assert [head.line for head in reply.heads] == [DATA]
        return reply.refused[0][1].code

    assert scene.looped.run(refused_heads()) == "link_denies"
    denied = _beyond_the_link(scene, client) | _beyond_the_generation(scene, client)
    for name, (work, code) in denied.items():
        assert scene.code(work) == code, name
    # she has the contents that she may have
    reply = scene.looped.run(client.call(PAGES, m.PagesRequest(DATA, data.id, (data.root,))))
    assert len(reply.pages) == 1
    scene.looped.run(client.close())
    scene.heal()


async def _all(answers: Any) -> None:
    async with contextlib.aclosing(answers) as batches:
        async for _ in batches:
            pass


def _ends_in(scene: Scene, client: PeerClient, asks: m.HeadsRequest, codes: set[str]) -> bool:
    return scene.code(client.call(HEADS, asks)) in codes


def test_certificates_that_do_not_count(scene: Scene, tmp_path: Path) -> None:
    ca = Pki(scene.fleet.main.directory / "pki")
    foreign_ca = Pki.create(tmp_path / "foreign", "c", node_name("main"), wall_ms())
    foreign = peers.member(foreign_ca, tmp_path / "f", "eve")
    unlisted = peers.member(ca, tmp_path / "u", "unlisted")
    expired = peers.member(ca, tmp_path / "x", "x1", life_s=-1)
    since = wall_ms()
    asks = m.HeadsRequest((m.KnownLine(DATA),))
    for pki, codes in (
        (foreign, {"certificate_refused_here"}),
        (unlisted, {"not_listed"}),
        (expired, {"refused_by_peer_expired"}),
    ):
        client = scene.as_eve(pki)
        # A refusal may be lost with the connection; the next one arrives.
        eventually(functools.partial(_ends_in, scene, client, asks, codes), 10, str(codes))
        scene.looped.run(client.close())
    # a foreign certificate whose bearer believes our server
    trusting = TlsContexts(foreign)
    trusting._client.load_verify_locations(cadata=ca.authorities_pem().decode())
    trusting._client.verify_flags &= ~ssl.VERIFY_CRL_CHECK_LEAF
    trusting._client.check_peer = None

    async def ask() -> None:
        client = PeerClient(trusting, node_name("main"), scene.address)
        try:
            await client.call(HEADS, asks)
        finally:
            await client.close()

    known = ("refused_by_peer_unknown", "refused_by_peer_certificate")
    eventually(lambda: scene.code(ask()) in known, 10, str(known))
    # another name than the certificate's
    client = scene.as_eve()

    async def lie() -> None:
        async with client.stream(m.Hello(m.VERSIONS, node_name("s1"), b"s")):
            pass

    assert scene.code(lie()) == "bad_identity"
    scene.victim.await_code(since, "handshake")
    # revoked while connected: the stream is cut, a new one refused
    gone = peers.member(ca, tmp_path / "g", "gone")
    scene.fleet.main.run("pki", "revoke", "gone")
    late = scene.as_eve(gone)
    eventually(
        lambda: scene.code(late.call(HEADS, asks)) == "refused_by_peer_revoked", 10, "refused as revoked"
    )
    for each in (client, late):
        scene.looped.run(each.close())
    scene.heal()


def test_a_token_opens_once_and_not_too_late(scene: Scene, tmp_path: Path) -> None:
    def join(text: str, name: str) -> str:
        pki = Pki(tmp_path / f"{name}-{os.urandom(4).hex()}")
        return scene.code(join_cluster(parse_token(text), *pki.requests(node_name(name))))

    since = wall_ms()
    token = scene.fleet.invite("s7")
    assert join(token, "s7") == "no error"
    assert join(token, "s7") == "token_used"
    late = scene.fleet.invite("s8", "--ttl", "1ms")
    assert join(late, "s8") == "token_expired"
    forged = msgspec.structs.replace(parse_token(scene.fleet.invite("s9")), secret=b"x" * 24)
    pki = Pki(tmp_path / "s9")
    for _ in range(50):
        assert scene.code(join_cluster(forged, *pki.requests(node_name("s9")))) == "token_unknown"
    scene.victim.await_code(since, "token_used")
    scene.victim.await_code(since, "token_expired")
    assert sum(event.get("code") == "token_unknown" for event in scene.victim.events(since)) <= 3
    scene.heal()


# The stream ---------------------------------------------------------------------------------------------------


def _report(node: str, via: str = "", reason: str = "fine", number: int = 1) -> m.Report:
    head = HeadRef(1, number, Digest(b"i" * 32), Digest(b"r" * 32))
    standing = StandingRecord(Standing.IN_STEP, 1, reason)
    return m.Report(DATA, node_name(node), head, head, standing, b"r" * 32, 1, via)


def _serving(node: str, health: str) -> m.Member:
    return m.Member(node_name(node), "127.0.0.1:1", "", serving=m.Serving(health, filesets=("data",)))


async def _told(scene: Scene, *raws: bytes, times: int = 1) -> str:
    """Say hello as eve, then this; the code with which the stream ends, or ``open``."""
    client = PeerClient(TlsContexts(scene.eve), node_name("main"), scene.address)
    try:
        async with client.stream(m.Hello(m.VERSIONS, EVE, os.urandom(8))) as (_, stream):
            for raw in raws * times:
                await stream._socket.send_bytes(raw)
            await stream.send(m.Ping(77))
            while (message := await stream.receive()) is not None:
                if isinstance(message, m.ErrorReply):
                    return message.code
                if message == m.Pong(77) or isinstance(message, m.Pong):
                    return "open"
            return "closed"
    except InstepError as error:
        return error.error_code
    except ConnectionError:
        return "closed"  # the victim cut the link while this side was sending
    finally:
        await client.close()


def test_a_partner_says_what_it_may_not(scene: Scene) -> None:
    victim, data = scene.victim, scene.data
    body = GenerationBody(
        1, DATA.fileset, DATA.origin, data.epoch, data.number + 100, data.id, data.root,
        Definition().digest, "eve", "", wall_ms(), 1, 1,
    )  # fmt: skip
    unsigned = SignedGeneration(body.encoded(), UNSIGNED)
    forged = SignedGeneration(unsigned.raw, scene.eve.sign(unsigned.id))
    since = wall_ms()
    said: dict[str, tuple[m.StreamMessage | bytes, str]] = {
        "for another node": (_report("s1"), "unexpected_message"),
        "a hub's word about a partner": (_report("s1", via="eve"), "open"),
        "a report without end": (_report("eve", reason="x" * (1 << 20)), "too_large"),
        "a welcome": (m.Welcome(1, EVE, b"", 1), "unexpected_message"),
        "an offer": (m.Offer(DATA, EVE, "mirror", "metadata"), "unexpected_message"),
        "a nudge": (m.Nudge(DATA, "retry"), "unexpected_message"),
        "an order": (m.OrderMessage(DATA, Order(data, 9, Verdict.PUT_BACK)), "unexpected_message"),
        "members": (m.Members(()), "unexpected_message"),
        "where another node serves": (
            m.Members((_serving("eve", "10.0.0.1:80"), _serving("s1", "6.6.6.6:80"))),
            "unexpected_message",
        ),
        "an address that is more than one": (
            m.Members((_serving("eve", "10.0.0.1:80 backup\n    server x 6.6.6.6:80"),)),
            "open",
        ),
        "to be drained": (m.DrainRequest(1, True), "unexpected_message"),
        "no message": (b"\xc1", "bad_message"),
        "deep": (b"\x91" * 100_000, "bad_message"),
        "to run something": (
            msgspec.msgpack.encode(["hook", "reload", ["/bin/sh", "-c", "evil"]]),
            "bad_message",
        ),
        "facts without end": (
            b"\x94\xa5error\xa4evil\xa3boo\x81\xa1x\xdd" + (3 << 20).to_bytes(4, "big") + b"\x90" * (3 << 20),
            "open",
        ),
        "a head of ours that it signed": (
            m.Head(DATA, forged, (), Definition(ignore=("*",)).encoded(), writer=EVE),
            "open",
        ),
        "a head of a line that is not there": (
            m.Head(LineId(fileset_name("x"), EVE), forged),
            "open",
        ),
    }
    for name, (message, code) in said.items():
        raw = message if isinstance(message, bytes) else m.encode(message)
        assert scene.looped.run(_told(scene, raw)) == code, name
        victim.assert_unharmed()
    victim.await_code(since, "unexpected_message")
    victim.await_code(since, "bad_address")
    victim.await_code(since, "not_ours", "not_the_writer")
    partners = {row["name"]: row for row in victim.line()["partners"]}
    assert partners["s1"]["live"]["id"] == scene.victim.line()["head"]["id"]
    scene.heal()


def test_floods_of_a_partner_are_bounded(scene: Scene) -> None:
    """Messages by the thousand, from a partner that does not read the answers."""
    victim = scene.victim
    since = wall_ms()

    async def unread() -> None:
        client = PeerClient(TlsContexts(scene.eve), node_name("main"), scene.address)
        try:
            async with client.stream(m.Hello(m.VERSIONS, EVE, os.urandom(8))) as (_, stream):
                stream._socket._reader._protocol.pause_reading()  # type: ignore[union-attr]
                with contextlib.suppress(Exception):
                    async with asyncio.timeout(10):
                        for _ in range(200_000):
                            await stream._socket.send_bytes(ping)
        finally:
            with contextlib.suppress(Exception):
                await client.close()

    ping = m.encode(m.Ping(1))
    scene.looped.run(unread(), 60)
    victim.assert_unharmed()
    reports = [m.encode(_report(f"n{number}", via="eve", reason="x" * 10_000)) for number in range(3_000)]
    scene.looped.run(_told(scene, *reports), 60)
    victim.assert_unharmed()
    assert len(victim.line()["partners"]) < 1_100
    notices = [m.encode(m.HeadNotice(LineId(fileset_name(f"f{n}"), EVE), scene.data)) for n in range(5_000)]
    assert scene.looped.run(_told(scene, *notices), 60) == "open"
    error = m.encode(m.ErrorReply("evil", "x" * 4_000))
    assert scene.looped.run(_told(scene, error, times=3_000), 60) == "open"
    for _ in range(20):
        scene.looped.run(_told(scene, b"\xc1"))
    assert len(victim.events(since)) < 100
    scene.heal()


def test_many_expensive_requests_at_once(scene: Scene) -> None:
    """Each as large as the protocol takes; those beyond the limits get an error that says to retry."""
    client, data = scene.as_eve(), scene.data

    async def work() -> list[str]:
        wants = (m.PageWant(data.root, tuple([1] * 500)),) * 130
        request = m.ContentsRequest(DATA, data.id, wants, may_compress=False)
        ranges = m.RangesRequest(DATA, data.id, data.root, 1, ((0, 3 << 20),) * 60_000)

        refused = asyncio.Event()

        async def some(answers: Any) -> str:
            try:
                async with asyncio.timeout(30), contextlib.aclosing(answers) as batches:
                    async for _ in batches:
                        await refused.wait()
                        return "enough"
            except InstepError as error:
                refused.set()
                return error.error_code
            except TimeoutError:
                return "slow"
            return "all"

        pages = [client.call(PAGES, m.PagesRequest(DATA, data.id, (data.root,) * 256)) for _ in range(20)]
        done = await asyncio.gather(
            *(some(client.contents(request)) for _ in range(6)),
            *(some(client.ranges(ranges)) for _ in range(6)),
            *pages,
            return_exceptions=True,
        )
        return [each for each in done if isinstance(each, str)]

    codes = scene.looped.run(work(), 60)
    assert "busy" in codes
    scene.victim.assert_unharmed()
    scene.looped.run(client.close())
    scene.heal()


# Strangers ----------------------------------------------------------------------------------------------------


def _dial(scene: Scene) -> socket.socket:
    return socket.create_connection(("127.0.0.1", scene.fleet.main.port), timeout=60)


def test_rubbish_on_the_port(scene: Scene) -> None:
    """Plain HTTP, half a handshake, garbage, and HTTP that is none, over TLS without a certificate."""
    for raw in (
        b"GET / HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x40\x00" + bytes(300),
        os.urandom(4_096),
        b"SSH-2.0\r\n",
    ):
        with _dial(scene) as plain:
            plain.sendall(raw)
            with contextlib.suppress(OSError):
                plain.settimeout(15)
                while plain.recv(4_096):
                    pass
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for raw in (
        b"EVIL\r\n\r\n",
        b"POST /peer/v1/join HTTP/1.1\r\nHost: main\r\n" + b"X: y\r\n" * 50_000 + b"\r\n",
        b"POST /peer/v1/join HTTP/1.1\r\nHost: main\r\nX: " + b"y" * 200_000 + b"\r\n\r\n",
        b"POST /peer/v1/../../etc/passwd HTTP/1.1\r\nHost: main\r\nInstep-Versions: 1-1\r\n\r\n",
        b"GET /peer/v1/stream HTTP/1.1\r\nHost: main\r\nInstep-Versions: 1-1\r\nUpgrade: websocket\r\n\r\n",
        b"POST /peer/v1/heads HTTP/1.1\r\nHost: main\r\nInstep-Versions: 1-1\r\nContent-Length: 0\r\n\r\n",
        b"POST /peer/v1/join HTTP/1.1\r\nHost: main\r\nInstep-Versions: 1-1\r\nContent-Length: 400000\r\n\r\n"
        + bytes(400_000),
    ):
        with contextlib.suppress(OSError), context.wrap_socket(_dial(scene)) as secure:
            secure.settimeout(5)
            secure.sendall(raw)
            answer = secure.recv(65_536)
            assert not answer or answer.startswith((b"HTTP/1.1 4", b"HTTP/1.0 4")), answer[:200]
    scene.victim.assert_unharmed()
    scene.heal()


def test_thousands_of_idle_and_slow_connections(scene: Scene) -> None:
    """Half-open handshakes, headers and bodies that drip: bounded in number, cut in time; others are served."""
    since = wall_ms()
    context = TlsContexts(scene.eve).client_for(node_name("main"))
    slow: list[socket.socket] = []
    for request in (
        b"POST /peer/v1/heads HT",
        b"POST /peer/v1/heads HTTP/1.1\r\nHost: main\r\nInstep-Versions: 1-1\r\nContent-Length: 9\r\n\r\nx",
    ):
        for _ in range(4):
            secure = context.wrap_socket(_dial(scene), server_hostname="main")
            secure.sendall(request)
            slow.append(secure)
    idle: list[socket.socket] = []
    try:
        for _ in range(2_000):
            one = socket.socket()
            one.setblocking(False)
            with contextlib.suppress(OSError):
                one.connect(("127.0.0.1", scene.fleet.main.port))
            idle.append(one)
        scene.victim.await_code(since, "full")
        descriptors = len(os.listdir(f"/proc/{scene.victim.pid}/fd"))
        assert descriptors < 500, descriptors
        scene.victim.assert_unharmed()
        eventually(lambda: _is_served(scene), 60, "an honest partner to be served while others idle")
    finally:
        for each in (*idle, *slow):
            each.close()
    scene.heal()


def _is_served(scene: Scene) -> bool:
    client = scene.as_eve()
    try:
        return scene.code(client.call(HEADS, m.HeadsRequest((m.KnownLine(DATA),)))) == "no error"
    finally:
        scene.looped.run(client.close())
