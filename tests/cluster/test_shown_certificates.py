"""Real TLS on loopback: a node that shows a certificate of another CA, and others that show one of the same CA."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import msgspec
import pytest
import uvloop
from cryptography import x509

from instep.errors import InstepError
from instep.model.ids import node_name
from instep.net.client import PeerClient, federate, join_cluster
from instep.net.connections.dial import split_address
from instep.net.connections.presented import trust_fetch
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.service import HEADS
from instep.net.trust import vouching
from instep.net.trust.certs import Purpose, der_of, pem_of
from instep.net.trust.pki import Pki
from instep.net.trust.shown import Shown, ShownChain
from tests.support import peers
from tests.support.certificates import AnyKey, OtherAuthority, new_key, pem_of_key

MAIN, S1 = node_name("main"), node_name("s1")
ASKED = m.HeadsRequest((m.KnownLine(peers.LINE),))
OTHER = OtherAuthority(peers.now_ms())


def _use(pki: Pki, key: AnyKey | None = None) -> x509.Certificate:
    """What ``pki use`` does with a good file."""
    leaf = OTHER.issue(["main.example.org"], key or pki.tls_key())
    pem = b"" if key is None else pem_of_key(key)
    assert Shown(pki).use(ShownChain((leaf, OTHER.issuer), pem), peers.now_ms())
    return leaf


async def _asks(pki: Pki, node: peers.Node) -> str:
    """How a question to the node goes."""
    return await _code(_ask(pki, node))


async def _ask(pki: Pki, node: peers.Node) -> None:
    async with peers.dialling(pki, node) as client:
        await client.call(HEADS, ASKED)


async def _code(work: Awaitable[object]) -> str:
    try:
        await work
    except InstepError as error:
        return error.error_code
    return "answered"


def _run(work: Callable[[], Awaitable[None]], loop: Callable[[], asyncio.AbstractEventLoop]) -> None:
    async def within() -> None:
        async with asyncio.timeout(60):
            await work()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(within())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_partners_know_the_node_behind_the_certificate_of_another_ca(
    loop: Callable[[], asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    """Goal: members, pinned partners and tokens go on over every change of the shown certificate, with its own key and with
    new ones; revoked is revoked."""
    main = Pki.create(tmp_path / "main", "maps", MAIN, peers.now_ms())
    s1 = peers.member(main, tmp_path / "s1", "s1")
    far = Pki.create(tmp_path / "far", "theirs", node_name("far"), peers.now_ms())
    far.pins.pin(MAIN, [main.certificate(Purpose.TLS)])
    main.pins.pin(node_name("far"), [far.certificate(Purpose.TLS)])
    pin = main.pin

    async def work() -> None:
        async with peers.serving(main) as node:
            for key in (None, new_key(), new_key()):
                leaf = _use(main, key)
                node.tls.reload()
                assert [await _asks(each, node) for each in (s1, far)] == ["answered"] * 2
                fetched = await asyncio.to_thread(trust_fetch, *split_address(node.address))
                assert fetched.certificates[0] == leaf
                assert fetched.pin == pin
                assert far.pins.certificates()[MAIN] == main.certificate(Purpose.TLS)
            main.renew_own(peers.now_ms())
            stale = [node.tls.is_stale]
            node.tls.reload()
            assert [*stale, node.tls.is_stale] == [True, False], "the voucher was for the certificate before"
            assert [await _asks(each, node) for each in (s1, far)] == ["answered"] * 2
            assert far.pins.certificates()[MAIN] == main.certificate(Purpose.TLS)
            late = Pki(tmp_path / "late")
            await join_cluster(node.service.invite("late", node.address), *late.requests(node_name("late")))
            made = msgspec.structs.replace(
                node.service.invite("far2", node.address), pin=bytes.fromhex(pin), sign_key=main.sign_key
            )
            chain = (der_of(far.certificate(Purpose.TLS)),)
            secrets = (made.token_id, made.secret, *far.requests(node_name("far2")))
            found = await federate(made, m.FederateRequest(node_name("far2"), *secrets, chain))
            assert found.chain[0] == der_of(main.certificate(Purpose.TLS))
            assert Shown(main).drop()
            node.tls.reload()
            assert [await _asks(each, node) for each in (s1, far)] == ["answered"] * 2
        _use(s1, new_key())
        main.revoke(S1, peers.now_ms())
        async with peers.serving(s1) as node:
            assert await _asks(main, node) == "certificate_revoked"

    _run(work, loop)


def test_another_server_of_the_same_ca_is_not_the_node(tmp_path: Path) -> None:
    """Goal: where a program with a certificate of that CA answers in the node's place, and sends all
    certificates of the node along, nothing is asked of it; as a client it does not get in."""
    main = Pki.create(tmp_path / "main", "maps", MAIN, peers.now_ms())
    s1 = peers.member(main, tmp_path / "s1", "s1")
    eve = peers.member(main, tmp_path / "eve", "eve")
    late = Pki(tmp_path / "late")
    _use(main, new_key())
    key = new_key()
    leaf = OTHER.issue(["main", "main.example.org"], key)
    sent = Shown(main).current(peers.now_ms())
    assert sent is not None
    everything = x509.load_pem_x509_certificates(sent.for_partners.read_bytes())
    own = main.certificate(Purpose.TLS)
    by_eve = vouching.make_voucher(eve.tls_key(), eve.certificate(Purpose.TLS), leaf, peers.now_ms())
    chains: Sequence[Sequence[x509.Certificate]] = (
        [leaf, OTHER.issuer],
        [leaf, *everything],
        [leaf, own, main.ca()],
        [leaf, by_eve, own],
        [leaf, by_eve, eve.certificate(Purpose.TLS)],
    )

    async def work() -> None:
        for chain in chains:
            async with peers.serving(eve) as node:
                _show(node.tls.server, tmp_path, chain, key)
                node.service.pki = main  # its name is what partners dial
                assert await _asks(s1, node) == "certificate_refused_here"
                token = node.service.invite("late", node.address)
                asked = _code(join_cluster(token, *late.requests(node_name("late"))))
                assert await asked in ("wrong_cluster", "bad_identity", "certificate_refused_here")
                assert node.service.asked == []
        async with peers.serving(main) as node:
            tls = TlsContexts(s1)
            _show(tls.client_for(MAIN), tmp_path, [leaf, *everything], key)
            client = PeerClient(tls, MAIN, node.address)
            assert (await _code(client.call(HEADS, ASKED))).startswith("refused_by_peer")
            await client.close()
            assert node.service.asked == []

    _run(work, asyncio.new_event_loop)


def _show(context: ssl.SSLContext, folder: Path, chain: Sequence[x509.Certificate], key: AnyKey) -> None:
    file = folder / "shown-by-eve.pem"
    file.write_bytes(pem_of_key(key) + b"".join(map(pem_of, chain)))
    context.load_cert_chain(file)
