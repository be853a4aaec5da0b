"""Invitations are good once, in time, for one name; addresses outside the list stay out."""

from __future__ import annotations

from ipaddress import ip_network

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.errors import InstepError, NotAllowedError, UsageError
from instep.model.ids import node_name
from instep.model.link import Link
from instep.net.connections.allow import AllowList
from instep.net.trust.tokens import Invitation, PendingInvite, TokenBook, parse_token, token_text

NOW = 1_900_000_000_000
S1 = node_name("s1")
INVITATION = Invitation(
    b"i" * 8, b"s" * 24, S1, node_name("main"), ("main.example.org:7443",), b"c" * 32, NOW + 3_600_000
)


def book() -> TokenBook:
    made = TokenBook(b"k" * 32)
    made.add(INVITATION, Link(replicate=True, data=True))
    return made


def refusal(made: TokenBook, now_ms: int = NOW, **changes: object) -> str:
    asked = msgspec.structs.replace(INVITATION, **changes)
    with pytest.raises(NotAllowedError) as caught:
        made.check(asked.token_id, asked.secret, asked.name, now_ms, pin="other")
    assert "instep invite" in (caught.value.hint or "")
    return caught.value.error_code


def test_a_token_is_good_once_for_its_name_and_in_time() -> None:
    made = book()
    assert refusal(made, secret=b"x" * 24) == "token_unknown"
    assert refusal(made, token_id=b"x" * 8) == "token_unknown"
    assert refusal(made, name=node_name("s2")) == "token_unknown"
    assert refusal(made, NOW + 3_600_001) == "token_expired"
    invite = made.check(INVITATION.token_id, INVITATION.secret, S1, NOW, pin="a")
    assert invite.link == Link(replicate=True, data=True)
    made.use(INVITATION.token_id, NOW, pin="a")
    assert refusal(made) == "token_used"
    made.check(INVITATION.token_id, INVITATION.secret, S1, NOW, pin="a")  # its answer was lost
    made.forget_old(NOW + 30 * 86_400_000)
    assert refusal(made) == "token_unknown"


def test_state_survives_json_and_holds_no_secret() -> None:
    state = msgspec.json.encode(book().state())
    assert INVITATION.secret not in state
    again = TokenBook(b"k" * 32, msgspec.json.decode(state, type=dict[str, PendingInvite]))
    again.check(INVITATION.token_id, INVITATION.secret, S1, NOW)
    elsewhere = TokenBook(b"j" * 32, msgspec.json.decode(state, type=dict[str, PendingInvite]))
    assert refusal(elsewhere) == "token_unknown"


def test_a_new_invitation_replaces_the_open_one() -> None:
    made = book()
    made.add(msgspec.structs.replace(INVITATION, token_id=b"n" * 8), Link())
    assert refusal(made) == "token_unknown"


def test_tokens_survive_line_breaks_and_nothing_else() -> None:
    text = token_text(INVITATION)
    assert parse_token(f" {text[:30]}\n  {text[30:]}\n") == INVITATION
    assert len(text) < 250
    for bad in (
        "",
        "instep1-",
        text[:-1],
        text[8:],
        text.replace("A", "B", 1),
        text + "é",
        "instep1-" + "A" * 5000,
    ):
        with pytest.raises(UsageError) as caught:
            parse_token(bad)
        assert caught.value.error_code == "token_malformed"


@given(st.text())
def test_junk_is_no_token(text: str) -> None:
    with pytest.raises(InstepError):
        parse_token("instep1-" + text)


def test_allow_lists() -> None:
    empty = AllowList()
    assert empty.lets("127.0.0.5")
    assert empty.lets("::1")
    assert not empty.lets("10.0.0.1")
    some = AllowList(map(ip_network, ("10.20.0.0/16", "2001:db8::/32", "192.0.2.7")))
    assert some.lets("10.20.3.4")
    assert some.lets("::ffff:10.20.3.4")
    assert some.lets("2001:db8::1%eth0")
    assert some.lets("192.0.2.7")
    assert not some.lets("192.0.2.8")
    assert not some.lets("::ffff:192.0.2.8")
    assert not some.lets("not an address")
