"""Which requests are looked at: DNS rebinding, pages of other sites, sibling subdomains."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.panel.guard import is_own_host, why_foreign

NAMES = ("main", "localhost", "panel.example.org")


@pytest.mark.parametrize(
    ("raw", "is_own"),
    [
        ("127.0.0.1:7480", True),
        ("127.0.0.1", True),
        ("127.0.0.1:9000", True),  # through a tunnel
        ("localhost:7480", True),
        ("LOCALHOST.", True),
        ("Panel.Example.Org", True),
        ("main", True),
        ("127.0.0.1.nip.io", False),
        ("localhost.evil.example", False),
        ("evil.example", False),
        ("127.0.0.2:7480", False),
        ("user@127.0.0.1", False),
        ("127.0.0.1:7480:1", False),
        ("127.0.0.1:x", False),
        ("127.0.0.1/..", False),
        ("", False),
        ("[::1]", False),
        ("2130706433", False),
        ("mаin", False),  # a Cyrillic letter
    ],
)
def test_dns_rebinding_is_refused(raw: str, is_own: bool) -> None:
    assert is_own_host(raw, NAMES, "127.0.0.1") is is_own


def test_an_address_of_version_six_is_compared_as_an_address() -> None:
    assert is_own_host("[::1]:7480", (), "::1")
    assert is_own_host("[0:0:0:0:0:0:0:1]", (), "::1")
    assert is_own_host("[fe80::1]", (), "fe80::1%eth0")


@given(st.text(), st.text())
def test_no_host_breaks_the_guard(raw: str, address: str) -> None:
    assert is_own_host(raw, NAMES, address) in (True, False)


@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "same-site"}, False),  # CVE-2024-22424: a sibling subdomain
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://h:1"}, False),
        ({"Origin": "http://h:1"}, True),
        ({"Origin": "http://h:2"}, False),
        ({"Origin": "https://h:1"}, False),
        ({"Origin": "null"}, False),
        ({"Referer": "http://evil.example/"}, False),
        ({}, True),  # no browser of the last years: a program
    ],
)
def test_pages_of_other_sites_are_refused(headers: dict[str, str], is_own: bool) -> None:
    assert (why_foreign("POST", {"Host": "h:1", **headers}, "http") is None) is is_own
    assert why_foreign("GET", {"Host": "h:1", **headers}, "http") is None
