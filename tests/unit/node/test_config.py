"""``instep.toml`` becomes settings, or one error that names every problem with its line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from instep.errors import ConfigError
from instep.model.definition import FilesetClass, Preserve
from instep.model.ids import FilesetName, NodeName
from instep.model.rollout import Absent, Approval, OnFailure, RolloutPolicy, Strategy, decode_policy
from instep.net.connections.allow import AllowList
from instep.node.config.kinds import BadValue
from instep.node.config.loading import parse
from instep.node.config.toml_lines import key_lines
from instep.node.config.values import MaxDeletions, address, duration_ms, rate_limit, size_bytes

EXAMPLE = """
name = "main"
listen = "0.0.0.0:7443"            # peers
advertise = "main.example.org:7443"
panel = "off"
allow = ["10.20.0.0/16"]
poll = "30s"
rate_limit = "off"

[partners.s1]
replicate = true
data = true
hub = false

[filesets.catalog]
path = "/opt/geoserver_datadir"
writer = "main"
mode = "mirror"
class = "metadata"
ignore = ["logs/", "*.tmp"]
preserve = ["xattr", "owner"]
gates = []
settle = "200ms"
trigger = "global.xml"
max_deletions = "50%"
to = ["s1"]
archive = { keep_last = 5, keep_within = "7d", max_share = "20%" }

[filesets.catalog.hooks]
validate = { run = ["/usr/local/bin/check-catalog"], timeout = "20s" }
reload = { http = "POST http://localhost:8080/reload", auth_file = "/etc/instep/auth", retries = 3 }

[filesets.catalog.rollout]
strategy = "together"

[filesets.docs]
path = "/srv/docs"
writer = "s1"
drift = "keep"

[facts]
geoserver = { file = "/opt/geoserver/VERSION.txt", match = "^([0-9.]+)" }
"""


def problems(text: str, directory: Path | None = None) -> list[dict[str, Any]]:
    with pytest.raises(ConfigError) as caught:
        parse(text, directory=directory)
    assert caught.value.exit_code == 3
    found = caught.value.facts["problems"]
    assert isinstance(found, list)
    return found


def test_the_example_of_the_contract_is_read() -> None:
    settings = parse(EXAMPLE)
    assert settings.warnings == ()
    assert settings.partners[NodeName("s1")].link.data
    catalog = settings.filesets[FilesetName("catalog")]
    assert catalog.is_written_here
    assert catalog.definition is not None
    assert catalog.definition.fileset_class is FilesetClass.METADATA
    assert catalog.definition.preserve == (Preserve.OWNER, Preserve.XATTR), (
        "in one order, whatever was written"
    )
    assert (catalog.settle_ms, catalog.trigger, catalog.archive.keep_within_ms) == (
        200,
        b"global.xml",
        7 * 86_400_000,
    )
    assert len(catalog.hooks.reload) == 1
    assert catalog.hooks.reload[0].http == ("POST", "http://localhost:8080/reload")
    assert catalog.offers_to(NodeName("s1"))
    assert not catalog.offers_to(NodeName("s2"))
    docs = settings.filesets[FilesetName("docs")]
    assert docs.definition is None
    assert docs.drift == "keep"
    assert parse(EXAMPLE + "\n").fingerprint != settings.fingerprint


def test_an_exchange_goes_with_revert_and_with_paths_that_do_not_lie_in_each_other() -> None:
    docs = EXAMPLE.replace(
        'drift = "keep"', 'switch = "exchange"\ncarry = ["logs/", "var/cache"]\nlinger = "5m"'
    )
    found = parse(docs).filesets[FilesetName("docs")]
    assert (found.switch, found.carry, found.linger_ms) == ("exchange", (b"logs", b"var/cache"), 300_000)
    wrong = problems(docs.replace('"var/cache"', '"logs/old"').replace('linger = "5m"', 'drift = "keep"'))
    assert [p["key"] for p in wrong] == ["filesets.docs.carry", "filesets.docs.drift"]
    assert "lies in logs" in wrong[0]["why"]


def test_all_problems_are_told_at_once_with_line_and_value() -> None:
    found = problems(
        EXAMPLE.replace('poll = "30s"', 'poll = "soon"')
        .replace('settle = "200ms"', "settle = 200\nsetle = 1")
        .replace('drift = "keep"', 'drift = "later"\nignore = ["x"]')
        .replace("retries = 3", "retires = 3")
    )
    told = [(p["line"], p["key"], p["value"]) for p in found]
    assert told == [
        (7, "poll", "soon"),
        (23, "filesets.catalog.settle", 200),
        (24, "filesets.catalog.setle", 1),
        (32, "filesets.catalog.hooks.reload.retires", 3),
        (40, "filesets.docs.drift", "later"),
        (41, "filesets.docs.ignore", ["x"]),
    ]
    assert "did you mean settle" in found[2]["why"]
    assert "is not one of revert, keep, offer" in found[4]["why"], found[4]
    assert "travels" in found[5]["why"]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ('name = "a"\nlisten = "x', 2, "not TOML"),
        ('name = "a"\n[partners.a]\n', 2, "this node itself"),
        ('name = "A b"\n', 1, "not a node name"),
        ("listen = 1\n", 1, "text in quotes"),
        ('name = "a"\npanel = "here"\n', 2, "HOST:PORT"),
        ('name = "a"\n[balancers.maps]\nhttp = 1\n', 3, 'neither "off" nor a table'),
        ('name = "a"\nallow = ["10.0.0.1/8"]\n', 2, "did you mean 10.0.0.0/8"),
        ('name = "a"\n[filesets.x]\nwriter = "a"\npath = "relative"\n', 4, "absolute path"),
        ('name = "a"\n[filesets.x]\nwriter = "a"\npath = "/x"\nobserve = true\n', 5, "written here"),
        ('name = "a"\n[filesets.x]\npath = "/x"\n', 2, "missing"),
        ('name = "a"\n[filesets.x]\nwriter="a"\npath="/x"\nsettle="20s"\n', 2, "shorter than settle"),
        (
            'name="a"\n[filesets.x]\nwriter="a"\npath="/x"\n[filesets.x.hooks]\nthaw={touch="/run/x"}\n',
            6,
            "followed here",
        ),
        (
            'name="a"\n[filesets.x]\nwriter="a"\npath="/x"\n[filesets.x.hooks]\nreload={http="GET http://b/"}\n',
            6,
            "plain http to another machine",
        ),
        ('name = "a"\n[facts]\nx = { file = "/a", value = "b" }\n', 3, "exactly one"),
    ],
)
def test_a_problem_names_its_line(text: str, line: int, why: str) -> None:
    found = problems(text)
    assert any(p["line"] == line and why in p["why"] for p in found), found


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("9" * 5_000, "a number has too many digits"),
        ("[" * 5_000 + "]" * 5_000, "lie too deep in each other"),
        ('"' + "9" * 400 + 's"', "is not a duration"),
    ],
    ids=["digits", "depth", "duration"],
)
def test_what_python_cannot_read_is_a_problem_and_no_crash(value: str, why: str) -> None:
    (found,) = problems(f'name = "a"\npoll = {value}\n')
    assert why in found["why"]


@pytest.mark.parametrize("pattern", ["../x", "a/../b", "/.."])
def test_a_package_lies_in_the_fileset(pattern: str) -> None:
    """Goal: such a pattern was accepted, and matched nothing."""
    text = EXAMPLE.replace(
        'ignore = ["logs/"', f'packages = ["*.package.xml", "{pattern}"]\nignore = ["logs/"'
    )
    (found,) = problems(text)
    assert found["key"] == "filesets.catalog.packages" and repr(pattern) in found["why"]


def test_roots_may_not_overlap_nor_hold_keys_or_secrets(tmp_path: Path) -> None:
    (tmp_path / "node").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "data")
    (tmp_path / "data").mkdir()
    text = f"""name = "a"
[filesets.one]
writer = "a"
path = "{tmp_path}/data"
[filesets.two]
writer = "a"
path = "{tmp_path}/link/below"
[filesets.three]
writer = "a"
path = "{tmp_path}"
[filesets.four]
writer = "a"
path = "/elsewhere"
hooks = {{ probe = {{ http = "GET http://localhost/", auth_file = "/elsewhere/secret" }} }}
"""
    told = {(p["line"], p["why"].split()[0]) for p in problems(text, tmp_path / "node")}
    assert told == {(7, "overlaps"), (10, "overlaps"), (14, "lies")}


def test_contradictions_are_warnings() -> None:
    settings = parse(
        'name = "a"\nlisten = "0.0.0.0:1"\n[partners.b]\nreplicate = false\ndata = true\n'
        '[partners.e]\naddress = "10.0.0.5:7443"\n[partners.f]\naddress = "10.0.0.5:7443"\n'
        '[filesets.x]\npath = "/x"\nwriter = "c"\nto = ["d"]\n'
    )
    assert not settings.partners[NodeName("b")].link.data
    told = "\n".join(settings.warnings)
    for part in (
        "replicate = false voids",
        "allow is empty",
        "cannot be dialled",
        "through a hub",
        "not a partner yet",
        "partners e and f have one address, 10.0.0.5:7443",
    ):
        assert part in told


def test_who_may_connect_is_exactly_who_is_listed() -> None:
    def may(allow: str, peer: str) -> bool:
        return AllowList(parse(f'name = "a"\nallow = {allow}\n').allow).lets(peer)

    assert may("[]", "127.0.0.1")
    assert may("[]", "::1")
    assert not may("[]", "10.0.0.1")
    assert may('["10.0.0.0/8"]', "::ffff:10.0.0.1")
    assert not may('["10.0.0.0/8"]', "127.0.0.1")


def test_values() -> None:
    assert [duration_ms(t) for t in ("200ms", "1.5s", "10m", "30d", "0")] == [
        200,
        1500,
        600_000,
        2_592_000_000,
        0,
    ]
    assert size_bytes("64KiB") == 65_536
    assert rate_limit("20MiB/s") == 20 << 20
    assert rate_limit("off") is None
    assert str(address("[::1]:7443")) == "[::1]:7443"
    for bad in ("::1:7443", "host", "host:0", ":1"):
        with pytest.raises(BadValue):
            address(bad)
    assert [MaxDeletions().limit(n) for n in (10, 1000)] == [20, 500]
    assert MaxDeletions(percent=None).limit(10) is None


ARRAY = """name = "s1"
[filesets.data]
path = "/srv/data"
writer = "main"
[[filesets.data.hooks.reload]]
touch = "/run/one"
[[filesets.data.hooks.reload]]
touch = "/run/two"
paths = ["a"]
expect_body = "x"
[[filesets.data.hooks.reload]]
touch = "/srv/data/three"
[filesets.data.hooks]
probe = [
  { touch = "/run/a" },
  { touch = "/run/b", timeout = "soon" },
]
"""


def test_a_problem_in_an_array_of_tables_names_its_own_element() -> None:
    found = [(p["line"], p["key"]) for p in problems(ARRAY)]
    assert found == [
        (10, "filesets.data.hooks.reload[1].expect_body"),
        (12, "filesets.data.hooks.reload[2].touch"),
        (16, "filesets.data.hooks.probe[1].timeout"),
    ]


def test_lines_are_found_in_every_form_of_toml() -> None:
    text = 'a = """\n[x]\n"""\n"b.c" = [1, # [y]\n  { d = 2 }, "}"]\n'
    text += "[t.u]\n  e.f = { g = '''\n''' }\nh = -1\n"
    lines = key_lines(text)
    assert lines["a",] == 1
    assert lines["b.c",] == 4
    assert lines["b.c", "d"] == 5
    assert (lines["t", "u"], lines["t", "u", "e", "f"], lines["t", "u", "h"]) == (6, 7, 9)


def test_the_rollout_travels_in_the_definition() -> None:
    """Goal: the section reaches the partners as the policy, and nothing at all when it is the default."""

    def policy(table: str) -> RolloutPolicy:
        text = EXAMPLE.replace('strategy = "together"', table)
        definition = parse(text).filesets[FilesetName("catalog")].definition
        assert definition is not None
        return decode_policy(definition.rollout)

    assert policy("") == RolloutPolicy()
    assert policy('strategy = "together"') == RolloutPolicy(strategy=Strategy.TOGETHER)
    assert policy('strategy = "rolling"\napprove = "one"').approve is Approval.ONE
    written = """strategy = "canary"
batch = 2
order = ["s2", "s1"]
quorum = "80%"
absent = "wait"
on_failure = "stop"
confirm_within = "10m"
finish_within = "90s"
canary_for = "30s"
"""
    assert policy(written) == RolloutPolicy(
        strategy=Strategy.CANARY,
        batch=2,
        order=(NodeName("s2"), NodeName("s1")),
        quorum_percent=80,
        absent=Absent.WAIT,
        on_failure=OnFailure.STOP,
        confirm_within_ms=600_000,
        finish_within_ms=90_000,
        canary_for_ms=30_000,
    )


def test_an_approval_needs_a_strategy_where_all_partners_wait() -> None:
    (found,) = problems(EXAMPLE.replace('strategy = "together"', 'approve = "one"'))
    assert found["key"].endswith("rollout.approve") and "not auto" in str(found), found


def test_a_policy_without_an_approval_has_the_bytes_that_older_nodes_know() -> None:
    ten = msgspec.msgpack.decode(RolloutPolicy(strategy=Strategy.ROLLING).encoded())
    eleven = msgspec.msgpack.decode(RolloutPolicy(strategy=Strategy.ROLLING, approve=Approval.ONE).encoded())
    assert (len(ten), len(eleven)) == (10, 11) and eleven[:10] == ten


def test_problems_of_a_rollout_are_told_at_once() -> None:
    found = problems(
        EXAMPLE.replace(
            'strategy = "together"',
            'strategy = "together"\nbatch = 0\nquorum = "0%"\norder = ["s1", "s1"]\nfinish_within = "1ms"',
        )
    )
    assert [p["key"].rpartition(".")[2] for p in found] == ["batch", "quorum", "order", "finish_within"], (
        found
    )
    assert all("goes from" in p["why"] or "twice" in p["why"] for p in found), found
    at_partner = EXAMPLE + '[filesets.docs.rollout]\nstrategy = "rolling"\n'
    (told,) = problems(at_partner)
    assert told["key"] == "filesets.docs.rollout" and "set at its writer s1" in told["why"]
