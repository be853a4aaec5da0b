"""Messages of peers: names, positions and sizes are checked where bytes become messages."""

from __future__ import annotations

import msgspec
import pytest

from instep.errors import PeerError
from instep.model.ids import Digest, HeadRef, LineId, fileset_name, node_name
from instep.model.rollout import Order as RolloutOrder
from instep.model.rollout import Verdict
from instep.model.standing import Standing, StandingRecord
from instep.net.messages import messages as m

LINE = LineId(fileset_name("catalog"), node_name("main"))
HEAD = HeadRef(2, 7, Digest(b"i" * 32), Digest(b"r" * 32))


def test_messages_survive_and_unknown_trailing_fields_are_ignored() -> None:
    hello = m.Hello(m.VERSIONS, node_name("s1"), b"x", (m.KnownLine(LINE, HEAD),))
    assert m.decode_stream(m.encode(hello)) == hello
    fields = msgspec.msgpack.decode(m.encode(m.Ping(3)))
    assert m.decode_stream(msgspec.msgpack.encode([*fields, "from the future"])) == m.Ping(3)
    assert m.decode_stream(msgspec.msgpack.encode(["pong", 3])) == m.Pong(3)


def test_an_order_survives_and_a_report_of_the_version_before_is_understood() -> None:
    order = m.OrderMessage(LINE, RolloutOrder(HEAD, 3, Verdict.SWITCH, True, 60_000, 5_000))
    assert m.decode_stream(m.encode(order)) == order
    standing = StandingRecord(Standing.HELD, 5, "waits for main", "awaiting_permit")
    report = m.Report(
        LINE, node_name("s1"), None, HEAD, standing, staged=HEAD, waits_for_permit=True, order_serial=2
    )
    assert m.decode_stream(m.encode(report)) == report
    before = msgspec.msgpack.decode(m.encode(report))[:11]
    read = m.decode_stream(msgspec.msgpack.encode(before))
    assert isinstance(read, m.Report)
    assert (read.staged, read.waits_for_permit, read.order_serial) == (None, False, 0)


@pytest.mark.parametrize(
    "raw",
    [
        ["heads"],
        ["nudge", ["../x", "main"], "retry"],
        ["nudge", ["catalog", "MAIN"], "retry"],
        ["head_notice", ["catalog", "main"], [1, 1, b"short", b"r" * 32]],
        ["head_notice", ["catalog", "main"], [-1, 1, b"i" * 32, b"r" * 32]],
        ["head_notice", ["catalog", "main"], [1, 1 << 63, b"i" * 32, b"r" * 32]],
        ["members", [["../../etc", "a:1", ""]]],
        ["members", [["a..b", "a:1", ""]]],
        ["members", [["a\n", "a:1", ""]]],
        ["order", ["catalog", "main"], [[1, 1, b"short", b"r" * 32], 1, "switch"]],
        ["order", ["catalog", "main"], [[1, 1, b"i" * 32, b"r" * 32], 0, "switch"]],
        ["order", ["catalog", "main"], [[1, 1, b"i" * 32, b"r" * 32], (1 << 53) + 1, "switch"]],
        ["order", ["catalog", "main"], [[1, 1, b"i" * 32, b"r" * 32], 1, "format"]],
        ["order", ["catalog", "main"], [[1, 1, b"i" * 32, b"r" * 32], 1, "switch", True, 1 << 60]],
        ["order", ["catalog", "main"], [[1, 1, b"i" * 32, b"r" * 32], 1, "switch", True, 5_000, 0]],
        ["order", ["../x", "main"], [[1, 1, b"i" * 32, b"r" * 32], 1, "switch"]],
        ["ping", -1],
        ["goodbye", "x" * 5000],
        ["no such message", 1],
        [],
        "ping",
    ],
)
def test_what_is_no_message_is_refused(raw: object) -> None:
    with pytest.raises(PeerError) as caught:
        m.decode_stream(msgspec.msgpack.encode(raw))
    assert caught.value.error_code == "bad_message"


def test_sizes_are_bounded() -> None:
    with pytest.raises(PeerError) as caught:
        m.decode_stream(bytes(m.MESSAGE_BYTES_MAX + 1))
    assert caught.value.error_code == "too_large"
    m.Bundle((bytes(m.BUNDLE_BYTES_MAX),))
    with pytest.raises(ValueError, match="too large"):
        m.Bundle((bytes(m.BUNDLE_BYTES_MAX + 1),))
    deep = b"\x96\xa5error\xa1a\xa1b" + b"\x81\xa1x" * 100_000 + b"\xc0"
    with pytest.raises(PeerError):
        m.decode_stream(deep)


def test_versions_meet_at_the_highest_common_one() -> None:
    assert m.agree(m.Versions(1, 2), m.Versions(2, 3)) == 2
    assert m.agree(m.Versions(1, 2), m.Versions(1, 2)) == 2
    with pytest.raises(PeerError) as caught:
        m.agree(m.Versions(1, 2), m.Versions(3, 4))
    assert caught.value.facts == {"ours": "1-2", "theirs": "3-4"}
    assert caught.value.hint == "upgrade this node"
    assert m.versions_of_header("3-12") == m.Versions(3, 12)
    for bad in (None, "", "1", "1-", "a-b", "1-9999999", "-1-2", "²-3"):
        with pytest.raises(PeerError):
            m.versions_of_header(bad)
