"""An address holds a name of the DNS or an IP address, and nothing that means something to a file or a terminal."""

from __future__ import annotations

import pytest

from instep.model.address import parse_address


@pytest.mark.parametrize(
    "text", ["main:7443", "a_b.example.org.:1", "10.0.0.1:80", "[::1]:80", "[fe80::1%eth0]:7443"]
)
def test_right_addresses(text: str) -> None:
    assert str(parse_address(text)) == text


@pytest.mark.parametrize(
    "host",
    [
        "\x1b[31m",
        "a;b",
        'a"b',
        "a'b",
        "a b",
        "a/b",
        "",
        "x" * 10_240,
        "10.0.0",
        "[::zz]",
        "[fe80::1%\x1b]",
        "a%eth0;",
    ],
)
def test_wrong_hosts(host: str) -> None:
    assert parse_address(f"{host}:7443") is None
