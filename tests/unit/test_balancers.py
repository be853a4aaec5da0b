"""Rendered balancer files, read by HAProxy's own parser."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from pathlib import Path

import pytest

from instep.errors import RefusedError
from instep.fleet.balancers import BalancerPlan, Endpoint, ServerPlan, Service, haproxy, server_names

HEAD = "defaults\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\n"
SERVICES = (
    Service("http", Endpoint("127.0.0.1", 18080), 8080),
    Service("https", Endpoint("::1", 18443), 8443),
    Service("websocket", Endpoint("127.0.0.1", 17919), 7919),
)


def plan(count: int, affinity: str, *, admin: str | None, has_agent: bool, first: int = 0) -> BalancerPlan:
    servers = [ServerPlan("main", "10.0.0.1", True, Endpoint("10.0.0.1", 7481))]
    for number in range(1, count):
        host = f"fd00::{number:x}" if number % 2 else f"10.0.1.{number}"
        agent = Endpoint(host, 7482) if has_agent else None
        servers.append(ServerPlan(f"s {number}", host, False, Endpoint(host, 7481), agent))
    return BalancerPlan("ma ps", SERVICES[first:], tuple(servers), affinity, admin)


def test_odd_names_never_collide() -> None:
    names = server_names(["a b", "a_b", "a:b", "a_b_2"])
    assert len(set(names.values())) == 4
    assert all(" " not in name and ":" not in name for name in names.values())


def test_one_service_is_checked_and_the_others_track_it() -> None:
    text = haproxy(plan(3, "cookie", admin="/geoserver/web", has_agent=True))
    assert text.count(" check ") == 3
    assert text.count(" track ma_ps_http/") == 8
    assert text.count("http-request del-header X-Forwarded-For") == 2
    assert (
        "server s_1 [fd00::1]:8080 cookie s_1 check inter 1s rise 1 fall 1 addr [fd00::1] port 7481" in text
    )
    admin = text[text.index("\nbackend ma_ps_http_admin") + 1 :].split("\n\n")[0]
    assert [row.split()[1] for row in admin.splitlines() if "server " in row] == ["main"]


@pytest.mark.parametrize("host", ["10.0.0.1\n    bind :1", "a b", "", "x" * 300])
def test_an_address_from_a_member_cannot_write_configuration(host: str) -> None:
    made = BalancerPlan("maps", SERVICES, (ServerPlan("s1", host),))
    with pytest.raises(RefusedError) as refused:
        haproxy(made)
    assert refused.value.error_code == "unwritable_for_balancer"


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="haproxy is not installed")
def test_haproxy_accepts_every_combination(tmp_path: Path) -> None:
    for count, affinity, admin, has_agent, first in itertools.product(
        (1, 3, 50), ("cookie", "source", "off"), (None, "/geoserver/web"), (False, True), (0, 1)
    ):
        if count == 50 and affinity != "cookie":
            continue
        path = tmp_path / "haproxy.cfg"
        made = plan(count, affinity, admin=admin, has_agent=has_agent, first=first)
        path.write_text(HEAD + haproxy(made))
        done = subprocess.run(
            ["haproxy", "-c", "-f", str(path)], capture_output=True, text=True, timeout=20, check=False
        )
        assert done.returncode == 0, f"{done.stderr}\n{path.read_text()}"
        assert "[WARNING]" not in done.stderr, done.stderr
