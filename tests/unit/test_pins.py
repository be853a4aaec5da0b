"""Partners of other clusters: a pinned key, its certificates, and the issuer that is kept beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization

from instep.errors import NotAllowedError, PeerError
from instep.model.ids import node_name
from instep.net.connections.tls import TlsContexts, Trust
from instep.net.trust import certs, keystore
from instep.net.trust.certs import Purpose
from instep.net.trust.pins import Introduced
from instep.net.trust.pki import Pki
from instep.net.trust.pki_problems import problems_of
from tests.support.certificates import unloadable
from tests.unit.test_pki import DAY, MAIN, NOW, S1, code_of, joined


@pytest.fixture
def ca(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path / "main", "maps", MAIN, NOW)


def test_a_name_that_was_revoked_here_says_nothing_of_a_pinned_partner(ca: Pki, tmp_path: Path) -> None:
    """Another cluster may give the same name; its partner is trusted by its key, and the list is of our own CA."""
    far = node_name("far")
    keystore.backup(ca, tmp_path / "backup", b"a passphrase", NOW)
    ca = keystore.restore(tmp_path / "backup", tmp_path / "again", b"a passphrase")
    ca.revoke(far, NOW + 60_000)
    assert far in ca.crl().names
    pinned = Pki.create(tmp_path / "in" / "new" / "folders", "other", far, NOW).certificate(Purpose.TLS)
    der = pinned.public_bytes(serialization.Encoding.DER)
    for crl in (ca.crl(), None):
        trust = Trust(ca.authorities(), crl, {far: pinned}, now_ms=lambda: NOW)
        identity = trust.identify(der)
        trust.check(identity)
        assert trust.is_good(identity)
    ours = ca.certificate(Purpose.TLS).public_bytes(serialization.Encoding.DER)
    without_list = Trust(ca.authorities(), None, {})
    without_list.check(without_list.identify(ours))


def test_a_pin_is_of_the_key_and_outlives_the_certificate(ca: Pki, tmp_path: Path) -> None:
    other = Pki.create(tmp_path / "other", "other", node_name("far"), NOW)
    pinned = other.certificate(Purpose.TLS)
    other.renew_own(NOW + DAY)
    renewed = other.certificate(Purpose.TLS)
    assert renewed != pinned
    trust = Trust(ca.authorities(), ca.crl(), {node_name("far"): pinned})
    der = renewed.public_bytes(serialization.Encoding.DER)
    assert trust.identify(der).name == "far"
    stranger = Pki.create(tmp_path / "stranger", "other", node_name("far"), NOW).certificate(Purpose.TLS)
    der = stranger.public_bytes(serialization.Encoding.DER)
    assert code_of(lambda: trust.identify(der), NotAllowedError) == "key_changed"


def test_a_certificate_that_openssl_cannot_load_is_never_pinned_and_stops_no_start(
    ca: Pki, tmp_path: Path
) -> None:
    """Goal: one certificate of one partner takes no handshake from all others. Method: it is pinned, and refused; then
    it lies there from before, beside other damage and a partner that is well; then it is pinned again."""
    far, near = (Pki.create(tmp_path / name, "other", node_name(name), NOW) for name in ("far", "near"))
    assert code_of(lambda: ca.pins.pin(far.name, [unloadable(far)]), PeerError) == "bad_certificate"
    assert not ca.pins.is_pinned(far.name)
    ca.pins.pin(near.name, [near.certificate(Purpose.TLS)])
    files = {"far": certs.pem_of(unloadable(far)), "a b": certs.pem_of(far.ca()), "empty": b""}
    for name, data in files.items():
        (ca.directory / "trusted" / f"{name}.crt").write_bytes(data)
    for pki in (ca, Pki(ca.directory)):
        assert set(TlsContexts(pki, lambda: NOW).trust.pinned) == {"near"}
        found = {problem.path.stem: problem for problem in problems_of(pki, NOW)}
        assert {name: problem.what for name, problem in found.items()} == dict.fromkeys(files, "damaged")
        assert "OpenSSL cannot load" in found["far"].detail
        assert "instep partner add far ADDRESS --pin" in found["far"].hint
        assert found["a b"].hint.startswith("move ")
    assert ca.pins.is_pinned(far.name), "a damaged file leaves the name to the other cluster"
    ca.pins.pin(far.name, [far.certificate(Purpose.TLS)])
    assert set(TlsContexts(ca, lambda: NOW).trust.pinned) == {"near", "far"}


def test_an_introduction_that_is_forgotten_is_gone_at_once(ca: Pki) -> None:
    far, found = node_name("far"), Introduced("ab" * 32, MAIN, NOW)
    for _ in range(3):
        ca.pins.introduce(far, found)
        assert ca.pins.introduced() == {far: found}
        assert Pki(ca.directory).pins.introduced() == {far: found}
        assert ca.pins.forget_introduced(far)
        assert not ca.pins.introduced()
    assert not ca.pins.forget_introduced(far)
    ca.pins.introduce(node_name("near"), found)
    (ca.directory / "trusted" / "far.introduced").write_text('{"key": "abc", "by": "main", "at_ms": 1}')
    assert ca.pins.introduced() == {node_name("near"): found}, "damage of one file takes no other key"
    assert ca.pins.is_introduced(far), "and no other word counts for its node"
    (problem,) = problems_of(ca, NOW)
    assert (problem.path.name, problem.what) == ("far.introduced", "damaged")
    assert problem.hint.startswith("instep pki trust forget far")


def test_a_name_that_this_cluster_gives_is_no_introduced_one(ca: Pki, tmp_path: Path) -> None:
    ca.pins.introduce(S1, Introduced("ab" * 32, MAIN, NOW))
    joined(ca, tmp_path / "s1")
    assert not ca.pins.introduced()


def test_an_authority_that_could_pass_for_another_is_not_kept_beside_a_pin(ca: Pki, tmp_path: Path) -> None:
    """Goal: no partner's issuer stands in the way of another authority of the same name. Method: it has that one's key
    identifier, by which OpenSSL looks for issuers; then an honest one, and one that issued nothing."""
    far, other = node_name("far"), Pki.create(tmp_path / "other", "other", node_name("far"), NOW)
    leaf, honest = other.certificate(Purpose.TLS), other.ca()
    lie = x509.SubjectKeyIdentifier.from_public_key(ca.ca().public_key())
    builder = x509.CertificateBuilder(honest.issuer, ca.ca().subject, honest.public_key(), 1)
    false = (
        builder.not_valid_before(honest.not_valid_before_utc)
        .not_valid_after(honest.not_valid_after_utc)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(lie, critical=False)
        .sign(other._ca_key(), hashes.SHA256())
    )
    key = certs.check_request(other.requests(far)[0], far, Purpose.TLS)
    named_so = certs.issue(false, other._ca_key(), key, far, Purpose.TLS, NOW)
    for chain, kept in (((named_so, false), 1), ((leaf, honest), 2), ((leaf, ca.ca()), 2)):
        ca.pins.pin(far, chain)
        assert len(ca.pins.chains()[far]) == kept, "of the last, the issuer is known already"
    assert ca.pins.keep_sign_key(far, other.sign_key)
    assert not [problem for problem in problems_of(ca, NOW) if problem.what == "stray"]
    assert ca.pins.unpin(far)
    assert ca.pins.sign_key(far) is None
    assert not ca.pins.renew(far, (leaf, honest)), "removed stays removed, whatever a handshake brings"
    assert not ca.pins.chains()
    ca.pins.pin(far, (leaf, ca.ca()))
    assert ca.pins.chains()[far] == [leaf]
