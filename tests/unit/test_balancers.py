"""Rendered balancer files: their text, and the verdicts of the balancers' own parsers."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import os
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

from instep.errors import RefusedError
from instep.fleet.balancers.file import Program, check_file, keep_file
from instep.fleet.balancers.haproxy import Surroundings, drained_state, haproxy, why_not_asked
from instep.fleet.balancers.nginx import nginx
from instep.fleet.balancers.plan import Affinity, BalancerPlan, DoorKind, ServerPlan, Service, server_names
from instep.fleet.balancers.proxy_map import merged, proxy_map
from instep.model.address import Address

SERVICES = (
    Service(DoorKind.HTTP, Address("127.0.0.1", 18080)),
    Service(DoorKind.HTTPS, Address("::1", 18443)),
    Service(DoorKind.WEBSOCKET, Address("127.0.0.1", 17919)),
)
PORTS = {DoorKind.HTTP: 8080, DoorKind.HTTPS: 8443, DoorKind.WEBSOCKET: 7919}
ODD = ("a.b-c.example", "0", "s.1", "s-1", "x" * 63)
WHOLE = Surroundings(
    Path("/run/haproxy/admin.sock"),
    "root",
    ("log /dev/log local0",),
    ("log global", "option dontlognull", "timeout server 5m"),
)
GOLDEN = Path(__file__).parents[1] / "golden" / "balancers"
needs_haproxy = pytest.mark.skipif(
    shutil.which("haproxy") is None, reason="haproxy is not installed, so its parser cannot be asked"
)
needs_nginx = pytest.mark.skipif(
    shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin") is None,
    reason="nginx is not installed, so its parser cannot be asked",
)


def server(
    node: str, host: str, *, is_writer: bool = False, has_agent: bool = True, **more: bool
) -> ServerPlan:
    at = {kind: Address(host, port) for kind, port in PORTS.items()}
    agent = Address(host, 7482) if has_agent else None
    return ServerPlan(node, at, is_writer, Address(host, 7481), agent, **more)


def plan(
    count: int,
    affinity: Affinity = Affinity.COOKIE,
    *,
    admin: str | None = "/geoserver/web",
    has_agent: bool = True,
    services: tuple[Service, ...] = SERVICES,
) -> BalancerPlan:
    servers = [server("main", "10.0.0.1", is_writer=True, has_agent=has_agent)]
    for number in range(1, count):
        host = f"fd00::{number:x}" if number % 2 else f"10.0.1.{number}"
        name = ODD[number - 2] if 2 <= number < len(ODD) + 2 else f"s{number}"
        servers.append(server(name, host, has_agent=has_agent, is_out=number == 1))
    return BalancerPlan(
        "maps",
        services,
        tuple(servers),
        affinity,
        admin_path=admin,
        filesets=("catalog",),
        trusted=("10.9.0.0/16",),
    )


def two_on_a_port(count: int) -> tuple[BalancerPlan, ...]:
    first = plan(count, services=SERVICES[:1])
    at = {DoorKind.HTTP: Address("10.0.0.1", 9090)}
    docs = BalancerPlan(
        "docs", SERVICES[:1], (ServerPlan("main", at, True, Address("10.0.0.1", 7481)),), Affinity.SOURCE,
        paths=("/docs",), hosts=("docs.example.org",), admin_host="admin.example.org", filesets=("docs",),
        max_behind="30s", health_path="/docs/?a=b&c=%20", trusted=("10.9.0.0/16",), front=Address("10.0.0.9", 80),
    )  # fmt: skip
    return first, docs


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    words = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=maps.example.org"]
    subprocess.run(
        ["openssl", *words, "-keyout", "key.pem", "-out", "cert.pem"], cwd=folder, check=True, capture_output=True, timeout=30
    )  # fmt: skip
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    return folder


def ended_here(certificate: Path, *, is_nginx: bool) -> tuple[Service, ...]:
    files = (
        (certificate / "cert.pem", certificate / "key.pem") if is_nginx else (certificate / "both.pem", None)
    )
    return SERVICES[0], Service(DoorKind.HTTPS, Address("::1", 18443), *files), SERVICES[2]


def accepted(program: Program, text: str, *, is_whole: bool) -> None:
    try:
        verdict = asyncio.run(check_file(program, text, is_whole=is_whole))
    except RefusedError as error:
        raise AssertionError(f"{error.facts}\n{text}") from error
    assert "WARNING" not in verdict.output.replace("Can't open server state file", ""), verdict.output


def test_odd_names_never_collide() -> None:
    names = server_names(["a b", "a_b", "a:b", "a_b_2"])
    assert len(set(names.values())) == 4
    assert all(" " not in name and ":" not in name for name in names.values())


def test_one_port_is_checked_and_the_others_track_it() -> None:
    text = haproxy([plan(3)], WHOLE)
    assert text.count(" check ") == 3
    assert text.count(" track maps_http/") == 6
    assert "server s1 [fd00::1]:8080 cookie s1 check inter 1s rise 1 fall 1 addr [fd00::1] port 7481" in text
    admin = text[text.index("\nbackend maps_http_admin") + 1 :].split("\n\n")[0]
    assert [row.split()[1] for row in admin.splitlines() if "server " in row] == ["main"]
    assert "del-header X-Forwarded-For unless from_trusted" in text


@pytest.mark.parametrize(
    "host", ["10.0.0.1\n    bind :1", "a b", "", "x" * 300, "1.2.3", "fe80::1%eth0", "a;b"]
)
def test_an_address_from_a_member_cannot_write_configuration(host: str) -> None:
    at = {DoorKind.HTTP: Address(host, 80)}
    made = BalancerPlan("maps", SERVICES[:1], (ServerPlan("s1", at),))
    for render in (partial(haproxy, [made], WHOLE), partial(nginx, [made], is_whole=True)):
        with pytest.raises(RefusedError) as refused:
            render()
        assert refused.value.error_code == "unwritable_for_balancer"
        assert refused.value.facts["node"] == "s1"


def test_the_application_is_asked_after_the_node_where_it_can_be() -> None:
    made = dataclasses.replace(plan(3), health_path="/geoserver/ows?service=WMS")
    assert why_not_asked(made) is None
    assert "    http-check connect port 8080\n    http-check send meth GET uri /geoserver/ows?" in haproxy(
        [made], None
    )
    moved = dataclasses.replace(made.servers[0], health=Address("10.0.0.9", 7481))
    apart = dataclasses.replace(made, servers=(moved, *made.servers[1:]))
    assert "main has health at another address" in str(why_not_asked(apart))
    assert "connect port" not in haproxy([apart], None)


def test_two_applications_cannot_both_take_everything_at_a_port() -> None:
    one = plan(1, services=SERVICES[:1])
    with pytest.raises(RefusedError) as refused:
        haproxy([one, BalancerPlan("docs", SERVICES[:1], one.servers)], WHOLE)
    assert refused.value.error_code == "same_port"


def test_nginx_refuses_what_it_cannot_do() -> None:
    with pytest.raises(RefusedError) as refused:
        nginx([plan(1)], is_whole=True)
    assert refused.value.error_code == "not_in_this_version"


def test_a_proxy_in_front_is_pointed_at_the_balancer_and_keeps_its_other_lines() -> None:
    plans = two_on_a_port(1)[1:]
    assert proxy_map(plans) == "docs=http://10.0.0.9:80/docs/\n"
    before = "# docs=old\nanalytics=http://a/\ndocs: http://old/docs/ \\\n   more\ndocs=again\nheader=http://h\\\n=x\n"
    wanted = "# docs=old\nanalytics=http://a/\ndocs=http://10.0.0.9:80/docs/\nheader=http://h\\\n=x\n"
    assert merged(before, plans) == wanted
    assert merged(wanted, plans) == wanted


@needs_haproxy
def test_haproxy_accepts_every_combination(certificate: Path) -> None:
    for count, affinity, admin, has_agent in itertools.product(
        (1, 3, 50), Affinity, (None, "/geoserver/web"), (False, True)
    ):
        if count != 3 and (affinity is not Affinity.COOKIE or admin is None):
            continue
        is_whole = has_agent
        services = SERVICES if admin else ended_here(certificate, is_nginx=False)
        made = plan(count, affinity, admin=admin, has_agent=has_agent, services=services)
        accepted(Program.HAPROXY, haproxy([made], WHOLE if is_whole else None), is_whole=is_whole)
    accepted(Program.HAPROXY, haproxy(two_on_a_port(3), WHOLE), is_whole=True)


@needs_nginx
def test_nginx_accepts_every_combination(certificate: Path) -> None:
    for count, affinity, admin in itertools.product((1, 3, 50), Affinity, (None, "/geoserver/web")):
        if count != 3 and (affinity is not Affinity.COOKIE or admin is None):
            continue
        services = ended_here(certificate, is_nginx=True) if admin else (SERVICES[0], SERVICES[2])
        made = plan(count, affinity, admin=admin, services=services)
        accepted(Program.NGINX, nginx([made], is_whole=count != 3), is_whole=count != 3)
    accepted(Program.NGINX, nginx(two_on_a_port(3), is_whole=True), is_whole=True)


@needs_haproxy
def test_what_the_parser_refuses_is_told_in_its_words() -> None:
    with pytest.raises(RefusedError) as refused:
        asyncio.run(check_file(Program.HAPROXY, "nonsense here\n", is_whole=True))
    assert "nonsense" in str(refused.value.facts["last_lines"])


@pytest.mark.parametrize("count", [1, 3, 50])
def test_rendered_files_are_the_ones_in_the_repository(count: int) -> None:
    """``INSTEP_GOLDEN=write`` writes them."""
    made = two_on_a_port(count)
    whole = plan(count, admin="/admin", services=SERVICES)
    texts = {
        f"haproxy-{count}.cfg": haproxy([whole], WHOLE),
        f"haproxy-shared-{count}.cfg": haproxy(made, None),
        f"nginx-{count}.conf": nginx(made, is_whole=True),
        f"drained-{count}.state": drained_state([whole]),
    }
    for name, text in texts.items():
        path = GOLDEN / name
        if os.environ.get("INSTEP_GOLDEN") == "write":
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        assert path.read_text() == text, f"{name}: INSTEP_GOLDEN=write, then look at the difference"


def test_a_file_is_replaced_whole_and_only_when_it_is_ours(tmp_path: Path) -> None:
    real, link = tmp_path / "real.cfg", tmp_path / "haproxy.cfg"
    real.write_text("mine\n")
    real.chmod(0o640)
    link.symlink_to(real)
    text = haproxy([plan(1)], WHOLE)
    with pytest.raises(RefusedError) as refused:
        keep_file(link, text)
    assert (refused.value.error_code, real.read_text()) == ("not_ours", "mine\n")
    assert keep_file(link, text, may_replace=True)
    assert link.is_symlink()
    assert (real.read_text(), real.stat().st_mode & 0o777) == (text, 0o640)
    assert (tmp_path / "real.cfg.previous").read_text() == "mine\n"
    assert not keep_file(link, text)
    assert keep_file(link, text + "# more\n")
