"""Vouchers: whose key a certificate of another CA is, and every way to claim that of another node."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from instep.errors import InstepError
from instep.net.connections.tls import TlsContexts, Trust
from instep.net.trust import vouching
from instep.net.trust.certs import BACKDATE, Purpose, der_of, pem_of
from instep.net.trust.pki import Pki
from instep.net.trust.shown import Shown
from tests.support.certificates import DAY_MS, OtherAuthority, new_key, pem_of_key
from tests.unit.test_pki import MAIN, NOW, S1, joined

OTHER = OtherAuthority(NOW)
BOTH = (ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH)


@pytest.fixture
def ca(tmp_path: Path) -> Pki:
    return Pki.create(tmp_path / "main", "maps", MAIN, NOW)


def _identified(ca: Pki, chain: Sequence[x509.Certificate], after_ms: int = 0) -> str:
    """The name that the chain proves, or the code of the refusal."""
    trust = Trust(ca.authorities(), ca.crl(), {}, me="main", now_ms=lambda: NOW + after_ms)
    try:
        identity = trust.identify(der_of(chain[0]), [der_of(one) for one in chain[1:]])
        trust.require_current(identity, is_dialled=True)
    except InstepError as error:
        return error.error_code
    return identity.name


def test_a_node_whose_own_certificate_is_over_shows_that_one_alone(ca: Pki, tmp_path: Path) -> None:
    """Goal: it starts and can renew itself; a voucher that ends before it begins stopped every listener."""
    s1 = joined(ca, tmp_path / "s1", life_s=DAY_MS / 1000)
    key = new_key()
    shown = OTHER.issue(["www.example.org"], key)
    later = NOW + 20 * DAY_MS
    with pytest.raises(InstepError) as caught:
        vouching.make_voucher(s1.tls_key(), s1.certificate(Purpose.TLS), shown, later)
    assert caught.value.error_code == "certificate_ended"
    Shown(s1).path.write_bytes(pem_of_key(key) + pem_of(shown))
    assert TlsContexts(s1, lambda: later).shows is None


def test_the_own_certificate_names_the_node_behind_a_shown_one(ca: Pki, tmp_path: Path) -> None:
    """Goal: name, pin, serial number and revocation are those of the node's own certificate, also after a renewal."""
    s1 = joined(ca, tmp_path / "s1", life_s=365 * DAY_MS / 1000)
    own, key = s1.certificate(Purpose.TLS), new_key()
    shown = OTHER.issue(["www.example.org"], key)
    chain = [shown, OTHER.issuer, vouching.make_voucher(s1.tls_key(), own, shown, NOW), own, ca.ca()]
    assert _identified(ca, chain) == S1
    assert _identified(ca, [OTHER.issue(["www.example.org"], s1.tls_key()), own]) == S1, (
        "no voucher is needed"
    )
    proven = vouching.proven_of(chain)
    assert proven.chain == (own, ca.ca())
    assert _identified(ca, chain, 31 * DAY_MS) == "certificate_refused_here", "vouchers are short"
    assert _identified(ca, [OTHER.issue(["www.example.org"], s1.tls_key()), own], 366 * DAY_MS) != S1
    renewed = ca.issue(S1, *s1.requests(S1), NOW)
    s1.take_renewed(renewed, NOW)
    assert _identified(ca, [*chain[:3], s1.certificate(Purpose.TLS)]) == "bad_identity", (
        "it was for the one before"
    )
    ca.revoke(S1, NOW)
    assert _identified(ca, chain) == "certificate_revoked"


def test_no_chain_of_another_ca_names_a_node_without_its_key(ca: Pki, tmp_path: Path) -> None:
    """Goal: certificates of ``main`` are public; with those that another CA or a member signs they name no other
    key ``main``. Method: every chain but the last is refused."""
    s1 = joined(ca, tmp_path / "s1")
    main, key = ca.certificate(Purpose.TLS), new_key()
    evil = OTHER.issue(["main"], key)
    good_key = new_key()
    good = OTHER.issue(["main"], good_key)
    good_voucher = vouching.make_voucher(ca.tls_key(), main, good, NOW)
    by_itself = vouching.make_voucher(key, main, evil, NOW)
    by_s1 = vouching.make_voucher(s1.tls_key(), main, evil, NOW)
    by_ca = vouching.make_voucher(ca._ca_key(), main, evil, NOW)
    false_node = OTHER.issue(["main", "instep:node:main"], key, usages=BOTH)
    false_voucher = vouching.make_voucher(key, false_node, evil, NOW)
    of_s1 = vouching.make_voucher(s1.tls_key(), s1.certificate(Purpose.TLS), evil, NOW)
    for chain in (
        [evil],
        [evil, OTHER.issuer, main],
        [evil, main, ca.ca()],
        [evil, good_voucher, main],
        [evil, by_itself, main],
        [evil, by_s1, main],
        [evil, by_s1, s1.certificate(Purpose.TLS), main],
        [evil, by_ca, main],
        [false_node],
        [evil, false_node],
        [evil, false_voucher, false_node],
        [evil, of_s1, main],
        [evil, ca.ca(), main],
        [evil, evil, main],
        [evil, *[OTHER.issuer] * vouching.CHAIN_MAX, good_voucher, main],
        [_resigned(good_voucher, evil, key), main],
    ):
        found = _identified(ca, chain)
        assert found in ("bad_identity", "unknown_certificate"), (found, [str(one.subject) for one in chain])
    assert _identified(ca, [evil, of_s1, s1.certificate(Purpose.TLS)]) == S1, (
        "a member speaks for itself alone"
    )
    assert _identified(ca, [good, good_voucher, main]) == MAIN


def _resigned(
    voucher: x509.Certificate, shown: x509.Certificate, key: ec.EllipticCurvePrivateKey
) -> x509.Certificate:
    """A voucher with another key in it and everything else as it was."""
    builder = x509.CertificateBuilder(
        voucher.issuer,
        voucher.subject,
        shown.public_key(),
        voucher.serial_number,
        voucher.not_valid_before_utc,
        voucher.not_valid_after_utc,
        list(voucher.extensions),
    )
    return builder.sign(key, hashes.SHA256())


@pytest.mark.parametrize("dropped", range(5))
def test_a_voucher_lacks_nothing(ca: Pki, dropped: int) -> None:
    """Goal: each part of a voucher counts. Method: the node's own key signs one with a part left out."""
    main = ca.certificate(Purpose.TLS)
    shown = OTHER.issue(["main"], new_key())
    whole = vouching.make_voucher(ca.tls_key(), main, shown, NOW)
    assert vouching.vouches(whole, main, shown)
    kept = [each for at, each in enumerate(whole.extensions) if at != dropped]
    is_key_usage = isinstance(list(whole.extensions)[dropped].value, x509.KeyUsage)
    builder = x509.CertificateBuilder(
        whole.issuer, whole.subject, shown.public_key(), whole.serial_number,
        whole.not_valid_before_utc, whole.not_valid_after_utc, kept,
    )  # fmt: skip
    assert vouching.vouches(builder.sign(ca.tls_key(), hashes.SHA256()), main, shown) is is_key_usage


@pytest.mark.parametrize(("more", "found"), [(0, S1), (1, "voucher_too_long")])
def test_a_voucher_that_lives_longer_is_refused(ca: Pki, tmp_path: Path, more: int, found: str) -> None:
    """Goal: the thief of a shown key has it for 30 days, whatever date the node's program wrote. Method: one second
    more than a voucher is made for; the longest that is made passes."""
    s1, key = joined(ca, tmp_path / "s1", life_s=365 * DAY_MS / 1000), new_key()
    own, shown = s1.certificate(Purpose.TLS), OTHER.issue(["www.example.org"], key)
    made = vouching.make_voucher(s1.tls_key(), own, shown, NOW)
    begin = made.not_valid_after_utc - vouching.VOUCHER_LIFE - BACKDATE - dt.timedelta(seconds=more)
    builder = x509.CertificateBuilder(
        made.issuer, made.subject, key.public_key(), made.serial_number,
        begin, made.not_valid_after_utc, list(made.extensions),
    )  # fmt: skip
    voucher = builder.sign(s1.tls_key(), hashes.SHA256())
    assert _identified(ca, [shown, voucher, own]) == found
