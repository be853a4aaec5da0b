"""An address of a node may be typed without its port."""

from __future__ import annotations

import click
import pytest

from instep.cli.cluster.partners import partner_set
from instep.errors import UsageError


def typed(text: str) -> object:
    with partner_set.make_context("set", ["s1", "--address", text]) as context:
        return context.params["at"]


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("10.0.0.2", "10.0.0.2:7443"), ("10.0.0.2:7000", "10.0.0.2:7000"), ("s2.example.org", "s2.example.org:7443"),
        ("fd00::2", "[fd00::2]:7443"), ("[fd00::2]", "[fd00::2]:7443"), ("[fd00::2]:1", "[fd00::2]:1"), ("", ""),
    ],
)  # fmt: skip
def test_the_usual_port_stands_where_none_was_typed(text: str, meant: str) -> None:
    assert typed(text) == meant


@pytest.mark.parametrize("text", ["10.0.0.2:", "10.0.0.2:0", "a b", "10.0.0.2:99999", "[fd00::2"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises((UsageError, click.UsageError)):
        typed(text)
