"""Three organisations in a row: the last one verifies what the first one signed, by the word of the hub between them."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from instep.errors import PeerError
from instep.model.ids import Digest, FilesetName, LineId, NodeName, node_name
from instep.model.replication.introduction import (
    VERSION,
    IntroductionBody,
    SignedIntroduction,
    introduction_id,
)
from instep.net.messages import messages as m
from instep.net.trust.certs import Purpose
from instep.net.trust.pki import Pki
from instep.node.config.editing.edits import set_partner
from instep.node.peers.network import introducing as introducing_room
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.signers import verdict_on
from tests.support.services import ServiceNode, Services, services
from tests.support.virtual_time import in_virtual_time, reached

GAMMA, LAMDA, ALPHA = node_name("gamma"), node_name("lamda"), node_name("alpha")
LINE = LineId(FilesetName("data"), GAMMA)


def _make(cluster: Services, base: Path, *, introduces: bool) -> None:
    """gamma writes, lamda is a hub, alpha is behind it; no two of them have a common CA."""
    for name in (GAMMA, LAMDA, ALPHA):
        cluster.add(
            name, Pki.create(base / f"authority-{name}", f"{name}s", node_name(f"ca-{name}"), wall_ms())
        )
    gamma, lamda, alpha = (cluster[name] for name in (GAMMA, LAMDA, ALPHA))
    gamma.writes()
    lamda.follows(gamma)
    alpha.follows(gamma)
    for sender, receiver, hub in ((gamma, lamda, False), (lamda, alpha, True)):
        cluster.link(sender.name, receiver.name, hub=hub)
        for one, other in ((sender, receiver), (receiver, sender)):
            pki = Pki(other.directory.pki)
            Pki(one.directory.pki).pins.pin(other.name, [pki.certificate(Purpose.TLS)])
            one.partners[other.name] += f'\npin = "{pki.pin}"'
    alpha.partners[LAMDA] += f"\nintroduces = {str(introduces).lower()}"
    for node in (gamma, lamda, alpha):
        node.start()


def _said(by: Pki, name: NodeName, key: bytes, fileset: str = "data") -> m.Introductions:
    raw = IntroductionBody(VERSION, FilesetName(fileset), name, key, wall_ms()).encoded()
    return m.Introductions(LINE, (SignedIntroduction(raw, by.sign(introduction_id(raw))),))


async def _seen(node: ServiceNode, what: str, *words: str) -> None:
    async def is_there() -> bool:
        texts = [event["text"] for event in await node.events() if event["what"] == what]
        return any(all(word in text for word in words) for text in texts)

    await reached(is_there, lambda: f"{what} with {words} at {node.name}")


@in_virtual_time
async def test_a_line_from_behind_a_hub_is_verified_once_the_hub_is_believed(tmp_path: Path) -> None:
    """Goal: nothing is believed unasked; then the hub's word is enough, outlives a restart, and what it changes later
    is refused by name. Method: a chain of three clusters; the operator says ``introduces``; the hub then lies."""
    async with services(tmp_path) as cluster:
        _make(cluster, tmp_path, introduces=False)
        gamma, lamda, alpha = (cluster[name] for name in (GAMMA, LAMDA, ALPHA))
        gamma.write({"file": "1"})
        await lamda.holds("file", "1")
        await _seen(alpha, "refused", "gamma", "not of this cluster", "--introduces")
        assert not (alpha.tree / "file").exists()
        set_partner(alpha.directory, LAMDA, {"introduces": True})
        await alpha.call("reload_config")
        await alpha.holds("file", "1")
        key = gamma.node.pki.sign_key
        assert alpha.node.pki.pins.introduced()[GAMMA].raw == key
        await alpha.stop()
        alpha.start()
        gamma.write({"file": "2"})
        await alpha.holds("file", "2")
        # The hub says something else later: named, and nothing changes.
        introducing = alpha.node.peers.introducing
        other = Pki.create(tmp_path / "other", "others", GAMMA, wall_ms())
        introducing.heard(LAMDA, _said(lamda.node.pki, GAMMA, other.sign_key), is_followed=True)
        await _seen(alpha, "key_changed", "gamma")
        assert alpha.node.pki.pins.introduced()[GAMMA].raw == key
        # A record in the name of gamma that another key signed is refused, whichever hub brings it.
        runtime, record = alpha.node.runtime, Digest(b"r" * 32)
        assert verdict_on(runtime, gamma.node.pki.sign(record), record).is_valid
        assert verdict_on(runtime, other.sign(record), record).code == "key_changed"
        altered = msgspec.structs.replace(gamma.node.pki.sign(record), value=other.sign(record).value)
        assert verdict_on(runtime, altered, record).code == "bad_signature"
        renamed = msgspec.structs.replace(other.sign(record), signer=node_name("delta"))
        assert verdict_on(runtime, renamed, record).code == "signer_unknown"
        # A record of another signer or another fileset is no introduction.
        for false in (_said(other, GAMMA, other.sign_key), _said(lamda.node.pki, GAMMA, key, "pages")):
            with pytest.raises(PeerError, match="not its own"):
                introducing.heard(LAMDA, false, is_followed=True)
        # Names of this cluster are no hub's to give.
        for name in (ALPHA, LAMDA):
            introducing.heard(LAMDA, _said(lamda.node.pki, name, other.sign_key), is_followed=True)
            assert name not in alpha.node.pki.pins.introduced()
        gamma.write({"file": "3"})
        await alpha.holds("file", "3")


@in_virtual_time
async def test_a_member_of_this_cluster_is_introduced_by_no_hub(tmp_path: Path) -> None:
    """Goal: a hub of another organisation cannot sign for one of our nodes that it does not even know. Method: alpha
    has heard of ``s9`` from its own cluster."""
    async with services(tmp_path) as cluster:
        _make(cluster, tmp_path, introduces=True)
        lamda, alpha = cluster[LAMDA], cluster[ALPHA]
        s9 = node_name("s9")
        membership = alpha.node.membership
        membership.learned(node_name("s1"), m.Members((m.Member(s9, "10.0.0.9:7443", "", b"", wall_ms()),)))
        alpha.node.pki.pins.keep_sign_key(LAMDA, lamda.node.pki.sign_key)
        false = Pki.create(tmp_path / "false", "false", s9, wall_ms())
        alpha.node.peers.introducing.heard(LAMDA, _said(lamda.node.pki, s9, false.sign_key), is_followed=True)
        assert s9 not in alpha.node.pki.pins.introduced()
        # Another cluster's word about our node changes nothing either, and its own nodes are not ours.
        told = (
            m.Member(s9, "10.6.6.6:1", "ff" * 32, false.sign_key, wall_ms()),
            m.Member(node_name("t1"), "", ""),
        )
        membership.learned(LAMDA, m.Members(told))
        assert membership.members[s9].address == "10.0.0.9:7443"
        assert not membership.members[s9].sign_key
        assert membership.is_ours(s9)
        assert not membership.is_ours(node_name("t1"))


@in_virtual_time
async def test_an_introduced_name_that_our_cluster_gives_is_ours_from_then_on(tmp_path: Path) -> None:
    """Goal: a node of our own, which is younger than an introduction of its name, is the only one that signs as it.
    Method: a hub introduces ``web2``; then a node of our cluster lists one; both sign."""
    async with services(tmp_path) as cluster:
        _make(cluster, tmp_path, introduces=True)
        lamda, alpha = cluster[LAMDA].node.pki, cluster[ALPHA].node
        web2, runtime, record = node_name("web2"), alpha.runtime, Digest(b"r" * 32)
        alpha.pki.pins.keep_sign_key(LAMDA, lamda.sign_key)
        foreign = Pki.create(tmp_path / "foreign", "foreign", web2, wall_ms())
        introducing, said = alpha.peers.introducing, _said(lamda, web2, foreign.sign_key)
        introducing.heard(LAMDA, said, is_followed=True)
        assert verdict_on(runtime, foreign.sign(record), record).is_valid
        set_partner(alpha.directory, web2, {"replicate": True})
        alpha.reload()
        assert alpha.pki.pins.is_introduced(web2), "a row without a pin is enough"
        assert verdict_on(runtime, foreign.sign(record), record).code == "signer_unknown"
        alpha.membership.learned(node_name("s1"), m.Members((m.Member(web2, "", "", b"", wall_ms()),)))
        assert not alpha.pki.pins.is_introduced(web2)
        introducing.heard(LAMDA, said, is_followed=True)
        assert verdict_on(runtime, foreign.sign(record), record).code == "signer_unknown"


@in_virtual_time
async def test_a_hub_introduces_no_more_nodes_than_lines_need(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a hub that is believed cannot fill the disk, nor introduce for lines that are not followed here. Method:
    messages of 64 names each, at first for a line that is followed later; at most 80 are taken."""
    monkeypatch.setattr(introducing_room, "NAMES_MAX", 80)
    async with services(tmp_path) as cluster:
        _make(cluster, tmp_path, introduces=True)
        lamda, alpha = cluster[LAMDA].node.pki, cluster[ALPHA]
        alpha.node.pki.pins.keep_sign_key(LAMDA, lamda.sign_key)
        introducing, pins = alpha.node.peers.introducing, alpha.node.pki.pins
        before = set(pins.introduced())

        def names(first: int) -> m.Introductions:
            each = [_said(lamda, node_name(f"x{first + n}"), bytes(32)).records[0] for n in range(64)]
            return m.Introductions(LINE, tuple(each))

        introducing.heard(LAMDA, names(0), is_followed=False)
        assert set(pins.introduced()) == before
        introducing.begun(LAMDA, LINE)
        introducing.begun(LAMDA, LINE)
        assert len(pins.introduced()) == len(before) + 64
        introducing.heard(LAMDA, names(64), is_followed=True)
        assert len(pins.introduced()) == 80
        await _seen(alpha, "introduced_too_many", "lamda", "instep pki trust forget")
        for number in range(2):
            line = LineId(FilesetName("data"), node_name(f"w{number}"))
            message = msgspec.structs.replace(names(0), line=line)
            introducing.heard(LAMDA, message, is_followed=False)
        assert sum(map(len, introducing._waiting[LAMDA].values())) == 64
        for number in range(100):
            line = LineId(FilesetName("data"), node_name(f"empty{number}"))
            introducing.heard(LAMDA, m.Introductions(line, ()), is_followed=False)
        assert len(introducing._waiting[LAMDA]) == 1, "empty ones are kept by no node"
        for hostile in ("../x", "/etc/x", "a\0b", "x" * 300, "", "A b", "\x1b[31m", "é"):
            with pytest.raises(PeerError) as caught:
                introducing.heard(LAMDA, _said(lamda, NodeName(hostile), bytes(32)), is_followed=True)
            assert caught.value.error_code == "bad_record", hostile
