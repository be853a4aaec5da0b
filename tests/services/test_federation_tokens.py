"""A token for a node of another cluster, at the node that made it: what a request must prove, and what it leaves."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from instep.errors import InstepError
from instep.model.ids import node_name
from instep.model.link import Link
from instep.net.messages import messages as m
from instep.net.trust.certs import Purpose, der_of
from instep.net.trust.pki import Pki
from instep.net.trust.tokens import Invitation, parse_token
from instep.node.config.loading import load
from instep.node.runtime.driver import wall_ms
from tests.support.certificates import unloadable
from tests.support.services import ServiceNode, services
from tests.support.virtual_time import in_virtual_time


def _stranger(base: Path, name: str) -> Pki:
    return Pki.create(base / f"cluster-{name}", f"{name}s", node_name(name), wall_ms())


def _request(pki: Pki, invitation: Invitation, name: str, **changed: object) -> m.FederateRequest:
    tls, sign = pki.requests(node_name(name))
    chain = tuple(map(der_of, (pki.certificate(Purpose.TLS), pki.ca())))
    made = m.FederateRequest(
        node_name(name), invitation.token_id, invitation.secret, tls, sign, chain, "10.9.0.1:7443"
    )
    return msgspec.structs.replace(made, **changed)


async def _refused(node: ServiceNode, request: m.FederateRequest) -> str:
    with pytest.raises(InstepError) as caught:
        await node.node.peers.federate(request, "10.9.0.1")
    return caught.value.error_code


@in_virtual_time
async def test_a_token_is_good_once_and_for_the_keys_that_used_it(tmp_path: Path) -> None:
    """Goal: nothing that a stranger sends with or without a token changes more than the one row that was meant.
    Method: every part of a request is false once, then all is right, then it is replayed by another key."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, beta, other = cluster["main"], _stranger(tmp_path, "beta"), _stranger(tmp_path / "2", "beta")
        refusal = await main.refuses("no_ca", "invite", name="beta")
        assert "--other-cluster" in str(refusal.hint)
        asked = await main.call("invite", name="beta", other_cluster=True, data=False)
        invitation = parse_token(asked["token"])
        assert invitation.pin.hex() == main.node.pki.pin
        before = main.directory.config.read_text()
        own_chain = tuple(map(der_of, (other.certificate(Purpose.TLS),)))
        for code, request in (
            ("token_unknown", _request(beta, invitation, "beta", secret=b"0" * 24)),
            ("token_unknown", _request(beta, invitation, "beta", token_id=b"0" * 12)),
            ("bad_request", _request(beta, invitation, "beta", chain=own_chain)),
            ("bad_request", _request(beta, invitation, "beta", sign_csr=beta.requests(node_name("beta"))[0])),
            ("bad_request", _request(beta, invitation, "s1")),
            ("bad_request", _request(beta, invitation, "beta", address="10.9.0.1:0\n")),
            ("bad_certificate", _request(beta, invitation, "beta", chain=(b"0",))),
            ("bad_certificate", _request(beta, invitation, "beta", chain=(der_of(unloadable(beta)),))),
        ):
            assert await _refused(main, request) == code
        assert main.directory.config.read_text() == before
        assert not main.node.pki.pins.chains()
        joining = m.JoinRequest(
            m.VERSIONS, node_name("beta"), invitation.token_id, invitation.secret, b"", b""
        )
        joining = msgspec.structs.replace(
            joining, **dict(zip(("tls_csr", "sign_csr"), beta.requests(node_name("beta")), strict=True))
        )
        with pytest.raises(InstepError) as caught:
            await main.node.peers.join(joining, "10.9.0.1")
        assert caught.value.error_code == "token_federates"
        # All is right, and once more: an answer that was lost is no used token.
        for _ in range(2):
            reply = await main.node.peers.federate(_request(beta, invitation, "beta"), "10.9.0.1")
            assert reply.sign_key == main.node.pki.sign_key
        row = load(main.directory.path).partners[node_name("beta")]
        assert (row.replicate, row.data, row.hub, row.pin) == (True, False, False, beta.pin)
        assert str(row.address) == "10.9.0.1:7443"
        assert main.node.pki.pins.sign_key(node_name("beta")) == beta.sign_key
        assert await _refused(main, _request(other, invitation, "beta")) == "token_used"
        assert main.node.pki.pins.certificates()[node_name("beta")] == beta.certificate(Purpose.TLS)
        seen = {event["what"] for event in await main.events()}
        assert seen >= {"federated", "join_refused"}


@in_virtual_time
async def test_a_name_of_this_cluster_is_not_given_to_another(tmp_path: Path) -> None:
    """Goal: two organisations may both have a node ``s1``; the second one is refused by name, and ours stays."""
    async with services(tmp_path) as cluster:
        cluster.make(1)
        main, far = cluster["main"], _stranger(tmp_path, "s1")
        await main.refuses("name_taken", "invite", name="s1", other_cluster=True)
        older = main.node.membership.invitations.invite(
            node_name("s1"), Link(replicate=True), 60_000, is_federation=True
        )
        request = _request(far, parse_token(older.token), "s1")
        with pytest.raises(InstepError) as caught:
            await main.node.peers.federate(request, "10.9.0.1")
        assert caught.value.error_code == "name_taken"
        assert "instep node rename s1 NEW" in str(caught.value.hint)
        assert not main.node.pki.pins.chains()
        main.write({"file": "1"})
        await cluster["s1"].holds("file", "1")
