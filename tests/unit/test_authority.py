"""The CA's own certificate: renewed under its key, and taken by nodes by name and key."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.errors import RefusedError
from instep.model.ids import node_name
from instep.net.trust.certs import NODE_LIFE_S, Purpose, was_issued_by
from instep.net.trust.pki import Pki
from instep.net.trust.pki_problems import problems_of

NOW = 1_900_000_000_000
DAY = 86_400_000
MAIN, S1, S2 = map(node_name, ("main", "s1", "s2"))


def test_a_ca_is_renewed_under_its_key_and_taken_by_name_and_key(tmp_path: Path) -> None:
    """Goal: long before its end, or after it, the CA gets a later one; nodes take it and nothing else, and everything
    that it signed holds under the old one and the new."""
    ca, s1 = Pki.create(tmp_path / "main", "maps", MAIN, NOW), Pki(tmp_path / "s1")
    issued = ca.issue(S1, *s1.requests(S1), NOW, life_s=NODE_LIFE_S)
    s1.install(S1, ca.authorities_pem(), issued, ca.crl_pem())
    old, signed = ca.authorities_pem(), s1.certificate(Purpose.TLS)
    ca.issue(S2, *Pki(tmp_path / "s2").requests(S2), NOW)
    ca.revoke(S2, NOW)
    ca.renew_own(NOW + 300 * DAY)
    assert ca.authorities_pem() == old, "its end is far"
    late = NOW + 4_000 * DAY
    assert [one.path.name for one in problems_of(s1, late)] == ["node.crt", "sign.crt", "ca.crt"]
    with pytest.raises(RefusedError) as caught:
        ca.issue(S1, *s1.requests(S1), late)
    assert caught.value.error_code == "ca_not_current" and "instep pki renew" in str(caught.value.hint)
    ca.renew_own(late)
    assert not problems_of(ca, late) and not ca.is_renewal_due(late)
    assert not Pki.take_authority(s1, Pki.create(tmp_path / "o", "maps", MAIN, late).authorities_pem())
    for authorities in (ca.authorities(), s1.authorities()):
        assert was_issued_by(signed, authorities) and ca.crl().is_signed_by(authorities)
    s1.take_renewed(ca.issue(S1, *s1.requests(S1), late), late)
    assert s1.take_authority(ca.authorities_pem()) and not s1.take_authority(old)
    assert s1.authorities_pem() == ca.authorities_pem() and not problems_of(s1, late)
