"""``[balancers.NAME]``: read strictly, every problem at once; which nodes are behind a balancer, by which word."""

from __future__ import annotations

from pathlib import Path

import pytest

from instep.errors import ConfigError, RefusedError
from instep.fleet.balancers.file import Program
from instep.fleet.balancers.plan import DoorKind
from instep.model.address import Address
from instep.model.ids import NodeName
from instep.net.messages import messages as m
from instep.node.balance.plan import chosen, plan_of, render
from instep.node.config.loading import parse
from instep.node.peers.presence import serving_of, why_not_serving

HEAD = 'name = "main"\nadvertise = "10.0.0.1:7443"\nhealth = "0.0.0.0:7481"\n'
FILESET = '[partners.s1]\nreplicate = true\n[filesets.catalog]\npath = "/srv/catalog"\nwriter = "main"\n'
MAPS = (
    '[balancers.maps]\nfilesets = ["catalog"]\nhttp = { listen = "0.0.0.0:80", backend = 8080 }\n'
    'https = { listen = "0.0.0.0:443", backend = 8443 }\nadmin_path = "/geoserver/web"\n'
)


def member(name: str, address: str = "10.0.0.2:7443", **serving: object) -> m.Member:
    said = {"health": f"{address.rpartition(':')[0]}:7481", "filesets": ("catalog",), **serving}
    return m.Member(NodeName(name), address, "", serving=m.Serving(**said))  # type: ignore[arg-type]


def test_the_example_of_the_contract_is_read() -> None:
    text = HEAD + FILESET + MAPS + 'websocket = "off"\naffinity = "cookie"\nhaproxy_socket = "off"\n'
    balancer = parse(text + 'backends = { main = "10.0.0.5:8081" }\n').balancers["maps"]
    assert [service.kind for service in balancer.services] == [DoorKind.HTTP, DoorKind.HTTPS]
    assert balancer.ports == {DoorKind.HTTP: 8080, DoorKind.HTTPS: 8443}
    assert balancer.backends[NodeName("main")].host == "10.0.0.5"
    assert (balancer.program, balancer.file, balancer.is_whole) == (Program.HAPROXY, None, True)


def test_all_problems_are_told_at_once() -> None:
    text = (
        HEAD + FILESET + '[balancers."Odd Name"]\n[balancers.maps]\nfilesets = []\n'
        'http = { listen = "0.0.0.0:80\\n x:1", backend = 0, tls = "terminate" }\n'
        'https = { listen = "0.0.0.0:443", backend = 1, tls = "terminate" }\n'
        'admin_path = "/x y"\nhosts = ["a b"]\ntrusted = ["10.0.0.1/8"]\naffinity = "luck"\ncokie = 1\n'
        'check = ["haproxy"]\nreload = { run = "x" }\nbackends = { s1 = "a;b" }\nfile = "/srv/catalog/x"\n'
        '[balancers.docs]\nfilesets = ["catalog"]\nfile = "/etc/x.cfg"\nkind = "nginx"\n'
        'https = { listen = "1.2.3.4:443", backend = 1 }\n'
        '[balancers.more]\nfilesets = ["catalog"]\nfile = "/etc/x.cfg"\nkind = "haproxy"\n'
        'http = { listen = "1.2.3.4:443", backend = 1 }\n'
    )
    with pytest.raises(ConfigError) as caught:
        parse(text)
    found = caught.value.facts["problems"]
    assert isinstance(found, list)
    keys = {problem["key"].removeprefix("balancers.") for problem in found}
    assert keys >= {
        "Odd Name", "maps.filesets", "maps.http.listen", "maps.http.backend", "maps.http.tls", "maps.https.certificate",
        "maps.admin_path", "maps.hosts", "maps.trusted", "maps.affinity", "maps.cokie", "maps.check", "maps.reload.run",
        "maps.backends", "maps.file", "docs.https", "more.kind",
    }  # fmt: skip
    assert all(problem["line"] for problem in found)


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ("", "give each its own paths or hosts"),
        ('paths = ["/docs"]\ntrusted = ["10.0.0.0/8"]\n', "which trusts []"),
    ],
)
def test_who_shares_a_port_is_told_apart_by_what_is_asked_for(more: str, why: str) -> None:
    second = '[balancers.docs]\nfilesets = ["catalog"]\nhttp = { listen = "0.0.0.0:80", backend = 9090 }\n'
    with pytest.raises(ConfigError) as caught:
        parse(HEAD + FILESET + MAPS + second + more)
    assert why in str(caught.value.facts["problems"])
    assert parse(HEAD + FILESET + MAPS + second + 'paths = ["/docs"]\n').balancers.keys() == {"maps", "docs"}


def test_sections_of_one_file_say_once_how_it_is_kept() -> None:
    first = MAPS + 'file = "/etc/h.cfg"\nonly = "backend"\nreload = { touch = "/run/x" }\n'
    second = '[balancers.docs]\nfilesets = ["catalog"]\nhttp = { listen = "0.0.0.0:81", backend = 9090 }\n'
    found = parse(HEAD + FILESET + first + second + 'file = "/etc/h.cfg"\n').balancers
    assert not found["docs"].is_whole
    assert found["docs"].reload == found["maps"].reload
    assert found["docs"].reload is not None


def test_everybody_who_has_the_filesets_is_behind_it() -> None:
    settings = parse(
        HEAD + FILESET + MAPS + 'backends = { s9 = { http = "10.0.9.9:1", health = "10.0.9.9:2" } }\n'
    )
    me = m.Member(
        NodeName("main"), "10.0.0.1:7443", "", serving=serving_of(settings, is_drained=False, host="10.0.0.1")
    )
    others = [
        member("s1", is_drained=True),
        member("s2", "10.0.0.3:7443", places=(("maps", "", "10.1.0.3:9080"), ("docs", "", "10.1.0.9"))),
        member("s3", "10.0.0.4:7443", filesets=("other",)),
        member("s4", "10.0.0.5:7443", places=(("maps", "http", "127.0.0.1:22"),)),
        member("s5", "0.0.0.0:7443"),
    ]
    (balancer,) = chosen(settings, ())
    plan = plan_of(settings, balancer, me, {each.name: each for each in others})
    at = {
        server.node: {kind.value: str(where) for kind, where in server.at.items()} for server in plan.servers
    }
    assert at == {
        "main": {"http": "10.0.0.1:8080", "https": "10.0.0.1:8443"},
        "s1": {"http": "10.0.0.2:8080", "https": "10.0.0.2:8443"},
        "s2": {"http": "10.1.0.3:9080", "https": "10.1.0.3:8443"},
        "s9": {"http": "10.0.9.9:1"},
    }
    assert [server.node for server in plan.servers if server.is_writer] == ["main"]
    assert [server.node for server in plan.servers if server.is_out] == ["s1"]
    assert plan.servers[0].health == Address("10.0.0.1", 7481)
    warned = " ".join(plan.warnings)
    assert "s4 is left out: it says that it serves at 127.0.0.1" in warned
    assert "s5 is left out" in warned
    assert "s3" not in warned
    text = render(Program.HAPROXY, [plan], is_whole=True).text
    assert "10.1.0.3:9080" in text


def test_no_balancer_is_a_refusal_that_names_those_there_are() -> None:
    with pytest.raises(RefusedError) as refused:
        chosen(parse(HEAD + FILESET + MAPS), ["other"])
    assert (refused.value.error_code, refused.value.facts["balancers"]) == ("no_balancer", ["maps"])


@pytest.mark.parametrize(
    "serving",
    [
        {"health": "10.0.0.1:80\n    bind :1"},
        {"agent": "a b:80"},
        {"health": "10.0.0.1"},
        {"places": (("maps", "", "10.0.0.1 backup"),)},
        {"places": (("maps", "http", "ok:80;x"),)},
        {"places": (("maps", "", "fe80::1%eth0"),)},
        {"filesets": ("x" * 64,) * 400},
    ],
)
def test_a_word_that_would_break_out_of_the_file_is_not_believed(serving: dict[str, object]) -> None:
    assert why_not_serving(member("s1", "10.0.0.2:7443", **serving)) is not None


def test_what_a_node_says_of_itself_is_believed(tmp_path: Path) -> None:
    address = '[balancers.maps]\naddress = { http = "[fd00::1]:80", health = "h.example:1" }\n'
    settings = parse(HEAD + FILESET + address + '[balancers.docs]\naddress = "docs.example.org"\n')
    serving = serving_of(settings, is_drained=False, host="10.0.0.1")
    assert (serving.health, serving.agent) == ("10.0.0.1:7481", "")
    assert serving.places == (
        ("maps", "http", "[fd00::1]:80"),
        ("maps", "health", "h.example:1"),
        ("docs", "", "docs.example.org"),
    )
    assert why_not_serving(m.Member(NodeName("main"), "10.0.0.1:1", "", serving=serving)) is None
