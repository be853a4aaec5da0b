"""The examples of the guide page "Write a hook" do what it says, taken from the page as they stand."""

from __future__ import annotations

import base64
import os
import re
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from instep.model.ids import fileset_name
from instep.node.config.facts import ServiceSettings
from instep.node.config.loading import parse
from tests.cluster.test_hooks import _application
from tests.support.fleet import Fleet, Node, free_port
from tests.support.waiting import eventually

PAGE = Path(__file__).resolve().parents[2] / "docs/guide/hooks.md"
NGINX = "/usr/sbin/nginx"


def _example(name: str, **changes: str) -> str:
    """The TOML below a heading of the page, with this machine's differences; each change must be needed."""
    section = PAGE.read_text().split(f"### {name}\n", 1)[1].split("\n### ", 1)[0]
    found = re.search(r"```toml\n(.*?)```", section, re.DOTALL)
    assert found is not None, f"{PAGE} has no example {name}"
    text = found[1]
    for old, new in changes.items():
        assert old in text, (name, old)
        text = text.replace(old, new)
    return text


def _script_of(name: str, at: Path) -> Path:
    """The script below a heading of the page, as a program."""
    section = PAGE.read_text().split(f"### {name}\n", 1)[1].split("\n### ", 1)[0]
    found = re.search(r"```sh\n(.*?)```", section, re.DOTALL)
    assert found is not None, f"{PAGE} has no script {name}"
    at.write_text(found[1])
    at.chmod(0o755)
    return at


def _add(node: Node, example: str) -> None:
    path = node.directory / "instep.toml"
    path.write_text(f"{path.read_text()}\n{example}")
    node.run("config", "reload")


def test_the_geoserver_example(fleet: Fleet) -> None:
    """Goal: reloaded by REST with the password from the file, probed by capabilities that must be capabilities; put
    back when they are an error page. Method: a stand-in for GeoServer."""
    tree = fleet.tree("main")
    tree.mkdir(parents=True)
    (tree / "global.xml").write_text("<global>1</global>")
    fleet.make(1)
    fleet.wait()
    auth = fleet.base / "geoserver.auth"
    auth.touch(0o600)
    auth.write_text("admin:geoserver\n")
    with _application() as server:
        changes = {
            "localhost:8080": f"127.0.0.1:{server.server_address[1]}",
            "/etc/instep/geoserver.auth": str(auth),
            ", retries = 3": "",
        }
        _add(fleet["s1"], _example("GeoServer", **changes))
        eventually(lambda: len(server.asked) == 1, 30)  # an added hook runs once for the present generation
        server.asked.clear()
        fleet.write({"global.xml": "<global>2</global>"})
        fleet.wait()
        assert [each[:2] for each in server.asked] == [
            ("POST", "/geoserver/rest/reload"),
            ("GET", "/geoserver/ows?service=WMS&version=1.3.0&request=GetCapabilities"),
        ]
        assert server.asked[0][2]["Authorization"] == f"Basic {base64.b64encode(b'admin:geoserver').decode()}"
        server.text = "<ServiceExceptionReport/>"
        fleet.write({"global.xml": "<global>3</global>"})
        fleet.publish()
        line = fleet["s1"].await_standing("failing", code="probe_failed")
        assert "without 'WMS_Capabilities' in the body" in line["reason"], line
        eventually(lambda: (fleet.tree("s1") / "global.xml").read_text() == "<global>2</global>", 20)


@contextmanager
def _nginx(top: Path, root: Path) -> Iterator[Path]:
    """An nginx of this test's own with the configuration in ``root``; its pid file."""
    with (top / "nginx.out").open("wb") as output:
        server = subprocess.Popen(
            (NGINX, "-c", str(root / "nginx.conf"), "-g", "daemon off;"), stdout=output, stderr=output
        )
        try:
            eventually(lambda: (top / "nginx.pid").read_text().strip(), 20, (top / "nginx.out").read_text)
            yield top / "nginx.pid"
        finally:
            server.terminate()
            server.wait(60)


def _answer(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return str(error.code)


def test_the_nginx_example(fleet: Fleet) -> None:
    """Goal: ``nginx -t`` keeps a broken configuration away, ``on_failure`` writes it down; a good one is live after
    HUP; one that answers 500 is put back. Method: a real nginx whose configuration is the fileset."""
    port, tree, there = free_port(), fleet.tree("main"), fleet.tree("s1")
    top = fleet.base / "nginx"
    top.mkdir()
    (tree / "conf.d").mkdir(parents=True)
    user = "user root;\n" if os.geteuid() == 0 else ""
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = "".join(f"{kind}_temp_path {top}/{kind};\n" for kind in kinds)
    (tree / "nginx.conf").write_text(
        f"{user}worker_processes 1;\npid {top}/nginx.pid;\nerror_log {top}/error.log;\nevents {{}}\n"
        f"http {{\naccess_log off;\n{temporary}server {{ listen 127.0.0.1:{port}; include conf.d/*.conf; }}\n}}\n"
    )
    (tree / "conf.d" / "site.conf").write_text('location / { return 200 "one"; }\n')
    fleet.make(1)
    fleet.wait()
    s1, failures = fleet["s1"], top / "failures"
    with _nginx(top, there) as pid_file:
        changes = {
            "/usr/local/bin/nginx-reload": str(_script_of("nginx", top / "nginx-reload")),
            "/run/nginx.pid": str(pid_file),
            "localhost:8081": f"127.0.0.1:{port}",
            "/var/log/instep-failures": str(failures),
        }
        _add(s1, _example("nginx", **changes))
        eventually(lambda: _answer(port) == "one", 10)
        fleet.write({"conf.d/site.conf": 'location / { return 200 "two"; }\n'})
        fleet.wait()
        eventually(lambda: _answer(port) == "two", 10)
        fleet.write({"conf.d/site.conf": 'location / { return 200 "three" }\n'})
        fleet.publish()
        s1.await_standing("failing", code="validate_failed")
        assert "two" in (there / "conf.d" / "site.conf").read_text()
        eventually(lambda: failures.read_text().startswith("data validate_failed: "), 10, s1.log)
        fleet.write({"conf.d/site.conf": "location / { return 500; }\n"})
        fleet.publish()
        s1.await_standing("failing", code="probe_failed", timeout=60)
        eventually(lambda: _answer(port) == "two", 20)
        fleet.write({"conf.d/site.conf": 'location / { return 200 "four"; }\n'})
        fleet.wait()
        eventually(lambda: _answer(port) == "four", 10)


def test_the_systemd_example_is_a_right_configuration() -> None:
    """Goal: the reader takes it. The calls of systemctl are tested in ``tests/unit/test_small_hooks.py``."""
    rest = 'path = "/srv/data"\nwriter = "main"\n'
    example = _example("systemd", **{"[filesets.data]\n": f"[filesets.data]\n{rest}"})
    found = parse(f'name = "s1"\n[partners.main]\n{example}').filesets[fileset_name("data")]
    assert found.service == ServiceSettings(unit="app.service")
    assert found.hooks.reload[0].systemd == ("try-reload-or-restart", "app.service")
    assert found.hooks.probe[0].retries == 5
