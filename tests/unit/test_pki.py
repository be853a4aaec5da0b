"""The cluster's CA, and the rights that a node's certificates give."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from instep.errors import ConfigError, DamagedError, InstepError, NotAllowedError, PeerError, RefusedError
from instep.fleet.scratch import scratch_folder
from instep.model.generation import Signature
from instep.model.ids import Digest, NodeName, node_name
from instep.net.connections.tls import Trust
from instep.net.trust import certs, decoding, keystore
from instep.net.trust.certs import NODE_LIFE_S, Purpose
from instep.net.trust.pki import Issued, Pki
from instep.net.trust.pki_problems import problems_of
from instep.net.trust.revocation import Revoked, name_extensions
from instep.net.trust.signing import verify_ca_signature, verify_signature

NOW = 1_900_000_000_000
DAY = 86_400_000
MAIN, S1 = node_name("main"), node_name("s1")
RECORD = Digest(b"r" * 32)


@pytest.fixture
def ca(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path / "main", "maps", MAIN, NOW)


def joined(ca: Pki, directory: Path, name: NodeName = S1, now_ms: int = NOW, life_s: float = 3600) -> Pki:
    pki = Pki(directory)
    issued = ca.issue(name, *pki.requests(name), now_ms, life_s=life_s)
    pki.install(name, ca.authorities_pem(), issued, ca.crl_pem())
    return pki


def code_of(call: Callable[[], object], kind: type[InstepError] = InstepError) -> str:
    with pytest.raises(kind) as caught:
        call()
    return caught.value.error_code


def checked(signature: Signature, ca: Pki, now_ms: int = NOW, record: Digest = RECORD) -> NodeName:
    return verify_signature(signature, record, ca.authorities(), ca.crl(), now_ms)


def test_a_node_has_two_certificates_that_cannot_stand_in_for_each_other(ca: Pki, tmp_path: Path) -> None:
    s1 = joined(ca, tmp_path / "s1")
    tls, sign = s1.certificate(Purpose.TLS), s1.certificate(Purpose.SIGN)
    assert certs.name_of(tls, Purpose.TLS) == S1 == certs.name_of(sign, Purpose.SIGN)
    assert code_of(lambda: certs.name_of(sign, Purpose.TLS)) == "bad_identity"
    assert code_of(lambda: certs.name_of(tls, Purpose.SIGN)) == "bad_identity"
    assert code_of(lambda: certs.name_of(ca.ca(), Purpose.TLS)) == "bad_identity"
    trust = Trust(ca.authorities(), ca.crl(), {})
    assert trust.identify(tls.public_bytes(serialization.Encoding.DER)).name == S1
    der = sign.public_bytes(serialization.Encoding.DER)
    assert code_of(lambda: trust.identify(der), NotAllowedError) == "bad_identity"
    assert code_of(lambda: trust.identify(b"\x30\x00"), PeerError) == "bad_certificate"


def test_a_key_may_do_what_its_certificate_is_for_and_nothing_else(ca: Pki) -> None:
    """Other programs go by these bits; a node's key must not sign certificates, and no key takes part in an encryption."""
    for certificate, allowed in (
        (ca.ca(), {"digital_signature", "key_cert_sign", "crl_sign"}),
        (ca.certificate(Purpose.TLS), {"digital_signature"}),
        (ca.certificate(Purpose.SIGN), {"digital_signature"}),
    ):
        found = certificate.extensions.get_extension_for_class(x509.KeyUsage)
        bits = {name.removeprefix("_"): bit for name, bit in vars(found.value).items()}
        assert found.critical and len(bits) == 9
        assert {name for name, bit in bits.items() if bit} == allowed


def test_keys_are_private_and_one_that_is_not_is_not_used(ca: Pki) -> None:
    for name in ("ca.key", "node.key", "sign.key"):
        assert (ca.directory / name).stat().st_mode & 0o777 == 0o600
    assert ca.directory.stat().st_mode & 0o777 == 0o700
    assert problems_of(ca, NOW) == []
    (ca.directory / "sign.key").chmod(0o640)
    (ca.directory / "old.pfx").write_bytes(b"?")
    (ca.directory / "trusted" / "note").write_bytes(b"?")
    found = {(p.path.name, p.what) for p in problems_of(ca, NOW + 400 * DAY)}
    assert found == {
        ("sign.key", "mode"),
        ("old.pfx", "stray"),
        ("note", "stray"),
        ("node.crt", "expiry"),
        ("sign.crt", "expiry"),
    }
    early = {p.path.name: p.detail for p in problems_of(ca, NOW - 400 * DAY) if p.what == "early"}
    assert set(early) == {"node.crt", "sign.crt"}
    assert (
        "is not valid before 2030-03-17" in early["node.crt"]
        and "the clock here shows 2029-02-10" in early["node.crt"]
    )
    assert code_of(lambda: ca.sign(RECORD), ConfigError) == "key_mode"


def test_requests_are_for_the_invited_name_and_prove_their_keys(ca: Pki, tmp_path: Path) -> None:
    stranger = Pki(tmp_path / "x")
    tls, sign = stranger.requests(node_name("x"))
    assert code_of(lambda: ca.issue(S1, tls, sign, NOW), PeerError) == "bad_request"
    assert code_of(lambda: ca.issue(node_name("x"), sign, tls, NOW), PeerError) == "bad_request"
    broken = tls[:-1] + bytes([tls[-1] ^ 1])
    assert code_of(lambda: ca.issue(node_name("x"), broken, sign, NOW), PeerError) == "bad_request"
    assert code_of(lambda: ca.issue(node_name("x"), b"no", sign, NOW), PeerError) == "bad_request"
    assert ca.records()[-1].name == MAIN
    address = Pki(tmp_path / "y")
    csrs = address.requests(node_name("10.0.0.7"))
    assert code_of(lambda: ca.issue(node_name("10.0.0.7"), *csrs, NOW)) == "bad_node_name"


def test_a_name_in_use_is_not_given_to_other_keys(ca: Pki, tmp_path: Path) -> None:
    joined(ca, tmp_path / "s1")
    other = Pki(tmp_path / "other")
    csrs = other.requests(S1)
    assert code_of(lambda: ca.issue(S1, *csrs, NOW), RefusedError) == "name_taken"
    assert ca.revoke(S1, NOW)
    ca.issue(S1, *csrs, NOW)


def test_renewal_keeps_keys_and_pin(ca: Pki, tmp_path: Path) -> None:
    s1 = joined(ca, tmp_path / "s1", life_s=900)
    assert not s1.is_renewal_due(NOW + 499_000)
    assert s1.is_renewal_due(NOW + 501_000)
    before, pin, key = s1.certificate(Purpose.TLS), s1.pin, s1.sign_key
    later = NOW + 600_000
    issued = ca.issue(S1, *s1.requests(S1), later)
    s1.install(S1, ca.authorities_pem(), issued, ca.crl_pem())
    assert s1.certificate(Purpose.TLS) != before
    assert (s1.pin, s1.sign_key) == (pin, key)
    assert not s1.is_renewal_due(later)
    ca.renew_own(NOW + 300 * DAY)
    assert not ca.is_renewal_due(NOW + 300 * DAY)
    assert ca.is_renewal_due(NOW), "made by a clock that was ahead"


def test_a_certificate_of_a_wrong_clock_is_neither_made_nor_taken(ca: Pki, tmp_path: Path) -> None:
    s1 = joined(ca, tmp_path / "s1", life_s=NODE_LIFE_S)
    before, far = s1.certificate(Purpose.TLS), NOW + 400 * DAY
    ahead = ca.issue(S1, *s1.requests(S1), far)
    assert code_of(lambda: s1.take_renewed(ahead, NOW)) == "clocks_apart"
    assert s1.certificate(Purpose.TLS) == before
    s1.take_renewed(ahead, far)
    assert code_of(lambda: ca.renew_own(NOW - DAY), RefusedError) == "ca_not_current"


def test_each_side_refuses_a_certificate_out_of_time_with_both_dates(ca: Pki, tmp_path: Path) -> None:
    der = (
        joined(ca, tmp_path / "s1", life_s=NODE_LIFE_S)
        .certificate(Purpose.TLS)
        .public_bytes(serialization.Encoding.DER)
    )
    for days, is_dialled, code, said in (
        (398, False, "refused_by_peer_expired", "it expired on 2031-04-18"),
        (398, True, "certificate_refused_here", "it expired on 2031-04-18"),
        (-400, False, "refused_by_peer_early", "it is not valid before 2030-03-17"),
    ):
        now_ms = NOW + days * DAY
        trust = Trust(ca.authorities(), ca.crl(), {}, me="main", now_ms=partial(int, now_ms))
        with pytest.raises(NotAllowedError) as caught:
            trust.require_current(trust.identify(der), is_dialled=is_dialled)
        assert (caught.value.error_code, said in caught.value.reason) == (code, True), caught.value.reason
        assert "the clock of main shows" in caught.value.reason
        assert caught.value.hint is not None and "on s1: instep pki renew" in caught.value.hint


def test_what_does_not_fit_is_not_installed(ca: Pki, tmp_path: Path) -> None:
    s1 = joined(ca, tmp_path / "s1")
    s2 = joined(ca, tmp_path / "s2", node_name("s2"))
    theirs = Issued(s2.certificate_path().read_bytes(), (s2.directory / "sign.crt").read_bytes())
    assert code_of(lambda: s1.install(S1, ca.authorities_pem(), theirs, ca.crl_pem())) == "bad_certificate"
    other = Pki.create(tmp_path / "o", "maps", MAIN, NOW)
    mine = Issued(s1.certificate_path().read_bytes(), (s1.directory / "sign.crt").read_bytes())
    assert (
        code_of(lambda: s1.install(S1, other.authorities_pem(), mine, other.crl_pem())) == "bad_certificate"
    )


def test_revocation_lists_only_grow_and_only_from_the_ca(ca: Pki, tmp_path: Path) -> None:
    s1 = joined(ca, tmp_path / "s1")
    s2 = joined(ca, tmp_path / "s2", node_name("s2"))
    old = ca.crl_pem()
    assert len(ca.revocable(S1, NOW)[0]) == len(Purpose)
    assert ca.revoked_names() == {}, "a dry run revokes nothing"
    assert ca.revoke(S1, NOW)
    assert (ca.revocable(S1, NOW), ca.revoked_names()) == (([], {}), {S1: NOW})
    assert not ca.revoke(S1, NOW)
    assert code_of(lambda: ca.revoke(MAIN, NOW), RefusedError) == "own_name"
    assert code_of(lambda: ca.revoke(node_name("s9"), NOW), RefusedError) == "unknown_name"
    assert s2.adopt_crl(ca.crl_pem())
    assert not s2.adopt_crl(ca.crl_pem())
    assert not s2.adopt_crl(old)
    assert s1.certificate(Purpose.TLS).serial_number in s2.crl().serials
    impostor = Pki.create(tmp_path / "o", "maps", MAIN, NOW)
    assert code_of(lambda: s2.adopt_crl(impostor.crl_pem()), PeerError) == "bad_crl"
    dates = [decoding.crl_of_pem(old).last_update_utc, ca.crl().last_update_utc]
    assert dates[0] < dates[1]


def test_signatures_and_every_way_to_refuse_them(ca: Pki, tmp_path: Path) -> None:
    s1 = joined(ca, tmp_path / "s1")
    good = s1.sign(RECORD)
    assert checked(good, ca) == S1
    assert code_of(lambda: checked(good, ca, record=Digest(b"x" * 32)), PeerError) == "bad_signature"
    main = ca.sign(RECORD)
    for bad, code in (
        (Signature("main", good.key, good.value, good.chain), "signer_unknown"),  # type: ignore[arg-type]
        (Signature(S1, good.key, good.value, ()), "signer_unknown"),
        (Signature(S1, good.key, good.value, main.chain), "signer_unknown"),
        (Signature(S1, main.key, main.value, good.chain), "bad_signature"),
        (Signature(S1, good.key, b"short", good.chain), "bad_signature"),
        (Signature(S1, good.key, good.value, (b"junk",)), "bad_certificate"),
        (Signature(S1, good.key, good.value, (s1.certificate(Purpose.TLS).public_bytes(serialization.Encoding.DER),)),
         "signer_unknown"),
    ):  # fmt: skip
        assert code_of(partial(checked, bad, ca)) == code
    foreign = Pki.create(tmp_path / "o", "maps", MAIN, NOW)
    assert code_of(lambda: checked(foreign.sign(RECORD), ca), NotAllowedError) == "signer_unknown"
    assert code_of(lambda: checked(good, ca, NOW + DAY), NotAllowedError) == "signer_expired"
    assert code_of(lambda: checked(good, ca, NOW - DAY), NotAllowedError) == "signer_early"
    ca.revoke(S1, NOW)
    assert code_of(lambda: checked(good, ca), NotAllowedError) == "signer_revoked"
    pinned = {S1: good.key}
    assert verify_signature(good, RECORD, (), None, NOW, pinned) == S1
    assert code_of(lambda: verify_signature(main, RECORD, (), None, NOW, {MAIN: good.key})) == "key_changed"
    promotion = ca.sign_as_ca(RECORD)
    verify_ca_signature(promotion, RECORD, ca.authorities())
    assert (
        code_of(lambda: verify_ca_signature(promotion, Digest(b"x" * 32), ca.authorities()))
        == "bad_signature"
    )
    assert code_of(lambda: verify_ca_signature(promotion, RECORD, foreign.authorities())) == "signer_unknown"
    assert code_of(lambda: s1.sign_as_ca(RECORD), NotAllowedError) == "no_ca_key"


def test_a_backup_comes_back_whole_or_not_at_all(
    ca: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keystore, "_SCRYPT_N", 1 << 10)
    joined(ca, tmp_path / "s1")
    assert ca.backed_up_at_ms() is None
    file = tmp_path / "backup"
    keystore.backup(ca, file, b"correct horse", NOW)
    assert ca.backed_up_at_ms() == NOW
    assert file.stat().st_mode & 0o777 == 0o600
    assert b"PRIVATE KEY" not in file.read_bytes()
    restored = keystore.restore(file, tmp_path / "new", b"correct horse")
    assert restored.records() == ca.records()
    assert problems_of(restored, NOW) == []
    assert checked(restored.sign(RECORD), ca) == MAIN
    for passphrase, data, code in (
        (b"wrong horse!", file.read_bytes(), "bad_passphrase"),
        (b"correct horse", file.read_bytes()[:-1], "bad_passphrase"),
        (b"correct horse", b"something else", "bad_backup"),
    ):
        other = tmp_path / "other"
        other.write_bytes(data)
        directory = tmp_path / "none"
        assert code_of(partial(keystore.restore, other, directory, passphrase)) == code
        assert not directory.exists()
    assert code_of(lambda: keystore.restore(file, ca.directory, b"correct horse"), RefusedError) == "exists"
    monkeypatch.setattr(keystore, "_BACKUP_MAX", file.stat().st_size - 1)
    assert code_of(lambda: keystore.restore(file, tmp_path / "none", b"correct horse")) == "bad_backup"


def test_exports_for_other_programs(ca: Pki, tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.serialization import pkcs12

    files = keystore.export(ca, keystore.ExportFormat.PEM, tmp_path / "pem", b"pass phrase", scratch_folder)
    assert [f.name for f in files] == ["main.crt", "main.key", "ca-bundle.crt"]
    assert b"ENCRYPTED" in files[1].read_bytes()
    bundle = decoding.certificates_of_pem(files[2].read_bytes() + b"\n# and a note\n" + files[0].read_bytes())
    assert [certs.facts_of(each).is_ca for each in bundle] == [True, False, True]
    (packed,) = keystore.export(
        ca, keystore.ExportFormat.PKCS12, tmp_path / "main.p12", b"pass phrase", scratch_folder
    )
    key, certificate, others = pkcs12.load_key_and_certificates(packed.read_bytes(), b"pass phrase")
    assert key is not None
    assert certificate == ca.certificate(Purpose.TLS)
    assert others == ca.authorities()


KEYTOOL = """#!/bin/sh
while [ $# -gt 1 ]; do
    case $1 in
        -srckeystore) source=$2 ;;
        -destkeystore) dest=$2 ;;
        -srcstorepass:file) given=$2 ;;
        -deststorepass:file) wanted=$2 ;;
    esac
    shift
done
grep -rq 'pass phrase' "$(dirname "$source")" && exit 3
cat "$given" "$wanted" > "$dest"
"""


def test_the_passphrase_of_an_export_for_java_is_in_no_file(
    ca: Pki, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Goal: a killed export leaves nothing that opens the key, and nothing beside the asked file."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/keytool").write_text(KEYTOOL)
    (tmp_path / "bin/keytool").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    to = tmp_path / "out" / "main.jks"
    to.parent.mkdir()
    assert keystore.export(ca, keystore.ExportFormat.JKS, to, b"pass phrase", scratch_folder) == [to]
    assert to.read_bytes() == b"pass phrase" * 2 and to.stat().st_mode & 0o777 == 0o600
    assert list(to.parent.iterdir()) == [to]


def test_damage_is_named(ca: Pki) -> None:
    (ca.directory / "sign.key").write_bytes(b"junk")
    with pytest.raises(DamagedError):
        ca.sign(RECORD)
    (ca.directory / "ca.crt").unlink()
    assert code_of(ca.authorities, ConfigError) == "pki_missing"
    assert isinstance(decoding.crl_of_pem(ca.crl_pem()), x509.CertificateRevocationList)


def test_no_list_makes_a_revocation_forgotten_whatever_its_number(ca: Pki, tmp_path: Path) -> None:
    """A CA that came back from a backup signs lists under numbers that were used, and does not know what it issued
    since."""
    s1, s2, s3 = (joined(ca, tmp_path / name, node_name(name)) for name in ("s1", "s2", "s3"))
    keystore.backup(ca, tmp_path / "backup", b"a passphrase", NOW)
    late = joined(ca, tmp_path / "late", node_name("late"), NOW + 60_000)
    ca.revoke(node_name("s2"), NOW + 120_000)
    assert s1.adopt_crl(ca.crl_pem())
    restored = keystore.restore(tmp_path / "backup", tmp_path / "again", b"a passphrase")
    restored.revoke(node_name("late"), NOW + 180_000)
    restored.revoke(node_name("s3"), NOW + 180_000)
    for first, second in ((s1, restored), (restored, s1)):
        lists = first.crl_pem()
        assert second.adopt_crl(lists)
        assert not second.adopt_crl(lists)
    revoked = [s2.certificate(Purpose.TLS), s3.certificate(Purpose.TLS), late.certificate(Purpose.TLS)]
    for node in (s1, restored):
        assert all(node.crl().covers(certificate) for certificate in revoked)
        assert node.crl().covers(late.certificate(Purpose.SIGN))
        assert not node.crl().covers(s1.certificate(Purpose.TLS))
    assert len(s1.crl().lists) == 2
    assert restored.merge_lists(NOW + 240_000)
    assert s1.adopt_crl(restored.crl_pem()) is False, "nothing new, but one list instead of two"
    assert len(s1.crl().lists) == 1
    assert all(s1.crl().covers(certificate) for certificate in revoked)
    # The name can come back with a new certificate.
    again = joined(restored, tmp_path / "back", node_name("late"), NOW + 300_000)
    assert not s1.crl().covers(again.certificate(Purpose.TLS))
    trust = Trust(s1.authorities(), s1.crl(), {})
    der = late.certificate(Purpose.TLS).public_bytes(serialization.Encoding.DER)
    assert code_of(lambda: trust.identify(der), NotAllowedError) == "certificate_revoked"
    good = again.certificate(Purpose.TLS).public_bytes(serialization.Encoding.DER)
    assert trust.identify(good).name == "late"
    signature = late.sign(RECORD)
    assert code_of(lambda: checked(signature, restored), NotAllowedError) == "signer_revoked"


def test_two_lists_of_one_number_both_count(ca: Pki, tmp_path: Path) -> None:
    s1, s2, s3 = (joined(ca, tmp_path / name, node_name(name)) for name in ("s1", "s2", "s3"))
    keystore.backup(ca, tmp_path / "backup", b"a passphrase", NOW)
    restored = keystore.restore(tmp_path / "backup", tmp_path / "again", b"a passphrase")
    ca.revoke(node_name("s2"), NOW + 60_000)
    restored.revoke(node_name("s3"), NOW + 60_000)
    assert certs.crl_number(ca.crl()) == certs.crl_number(restored.crl())
    assert s1.adopt_crl(ca.crl_pem())
    assert s1.adopt_crl(restored.crl_pem())
    assert all(s1.crl().covers(each.certificate(Purpose.TLS)) for each in (s2, s3))


def test_of_two_lists_that_say_the_same_the_higher_number_stays(ca: Pki, tmp_path: Path) -> None:
    """The next list goes above it: with the lower one, two later lists would share a number."""
    joined(ca, tmp_path / "s1")
    ca.revoke(S1, NOW + 60_000)
    first = ca.crl().lists[0]
    again = certs.make_crl(ca.ca(), ca._ca_key(), sorted(ca.crl().serials), NOW + 120_000, ca.crl())
    assert certs.crl_number(again) > certs.crl_number(first)
    for lists in ((first, again), (again, first)):
        assert Revoked(lists).lists == (again,)


def test_names_of_a_list_without_removals_are_all_removed(ca: Pki, tmp_path: Path) -> None:
    """A version that knew no difference wrote it; a list of today says which."""
    old = certs.make_crl(ca.ca(), ca._ca_key(), [], NOW, ca.crl(), name_extensions({"s1": 5}, {})[:1])
    new = certs.make_crl(
        ca.ca(), ca._ca_key(), [], NOW, ca.crl(), name_extensions({"s1": 7, "s2": 6}, {"s2": 6})
    )
    assert Revoked([old]).removed == {"s1": 5}
    assert (Revoked([new]).names, Revoked([new]).removed) == ({"s1": 7, "s2": 6}, {"s2": 6})
    assert len(Revoked([old, new]).lists) == 2, "neither says all that the other says"
