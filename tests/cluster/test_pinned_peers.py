"""Two nodes of two clusters on loopback: which keys and certificates pass between them."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
import uvloop

from instep.errors import InstepError, NotAllowedError
from instep.model.ids import node_name
from instep.net.client import federate
from instep.net.messages import messages as m
from instep.net.service import HEADS
from instep.net.trust.certs import Purpose, der_of
from instep.net.trust.pki import Pki
from tests.support import peers

LEFT, RIGHT = node_name("left"), node_name("right")
ASKED = m.HeadsRequest((m.KnownLine(peers.LINE),))


async def _refused(dialling: Pki, node: peers.Node) -> NotAllowedError:
    async with peers.dialling(dialling, node) as client:
        with pytest.raises(NotAllowedError) as caught:
            await client.call(HEADS, ASKED)
    return caught.value


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_pinned_key_passes_with_any_certificate_and_no_other_key_does(
    loop: type[asyncio.AbstractEventLoop], tmp_path: Path
) -> None:
    """Goal: renewals break no link, also where the listening side never dials; another key is named, with both
    fingerprints, on either side."""
    ours = Pki.create(tmp_path / "ours", "ours", LEFT, peers.now_ms())
    far = Pki.create(tmp_path / "far", "theirs", node_name("far"), peers.now_ms())
    theirs = peers.member(far, tmp_path / "theirs", "right")
    ours.pins.pin(RIGHT, [theirs.certificate(Purpose.TLS)])
    theirs.pins.pin(LEFT, [ours.certificate(Purpose.TLS)])

    async def work() -> None:
        async with asyncio.timeout(60), peers.serving(ours) as node:
            async with peers.dialling(theirs, node) as client:
                await client.call(HEADS, ASKED)
                assert ("heads", "right") in node.service.asked
            assert len(ours.pins.chains()[RIGHT]) == 2, "its issuer came with the handshake"
            for _ in range(2):
                renewed = far.issue(RIGHT, *theirs.requests(RIGHT), peers.now_ms())
                theirs.take_renewed(renewed, peers.now_ms())
                async with peers.dialling(theirs, node) as client:
                    await client.call(HEADS, ASKED)
            assert ours.pins.certificates()[RIGHT] == theirs.certificate(Purpose.TLS)
            # the other cluster's CA makes up neither members here, nor a second "right"
            far.revoke(RIGHT, peers.now_ms())
            impostors = [peers.member(far, tmp_path / f"false-{name}", name) for name in ("left2", "right")]
            for impostor, code in zip(impostors, ("unknown_certificate", "key_changed"), strict=True):
                impostor.pins.pin(LEFT, [ours.certificate(Purpose.TLS)])
                assert (await _refused(impostor, node)).error_code == code
            impostor = impostors[1]
            refusal = await _refused(impostor, node)
            assert theirs.pin in refusal.reason
            assert impostor.pin in refusal.reason
            # nor does another node stand where the pinned one listens
            theirs.pins.pin(LEFT, [impostor.certificate(Purpose.TLS)])
            refusal = await _refused(theirs, node)
            assert refusal.error_code == "key_changed"
            assert ours.pin in refusal.reason

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(work())


def test_a_token_is_shown_to_the_key_that_made_it_alone(tmp_path: Path) -> None:
    """Goal: a program that answers at the address of the inviting node learns no secret. Method: the node there has
    another key than the token, then signs with another key than the token."""
    ours = Pki.create(tmp_path / "ours", "ours", LEFT, peers.now_ms())
    theirs = Pki.create(tmp_path / "theirs", "theirs", RIGHT, peers.now_ms())

    async def work() -> None:
        async with asyncio.timeout(60), peers.serving(ours) as node:
            made = node.service.invite("right", node.address)
            false = msgspec.structs.replace(made, pin=b"0" * 32, sign_key=ours.sign_key)
            unsigned = msgspec.structs.replace(false, pin=bytes.fromhex(ours.pin), sign_key=b"0" * 32)
            chain = (der_of(theirs.certificate(Purpose.TLS)),)
            secrets = (made.token_id, made.secret, *theirs.requests(RIGHT))
            for invitation, asked in ((false, 0), (unsigned, 1)):
                with pytest.raises(InstepError) as caught:
                    await federate(invitation, m.FederateRequest(RIGHT, *secrets, chain))
                assert caught.value.error_code == "wrong_key"
                assert len(node.service.asked) == asked, "it was asked, and so knows the secret"

    asyncio.run(work())
