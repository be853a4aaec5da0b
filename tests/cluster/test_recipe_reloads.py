"""The reload hooks of the recipes on running servers: when they come back, the new configuration answers."""

from __future__ import annotations

import http.client
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from examples.servers import Servers, nginx_main
from instep.node.directory import NodeDirectory
from instep.node.recipes.shelf import RecipeShelf
from tests.support.fleet import free_port

PROGRAMS = "/usr/sbin:/usr/bin:/sbin:/bin"
MODULES = "/usr/lib/apache2/modules"


@pytest.fixture
def servers() -> Iterator[Servers]:
    made = Servers()
    try:
        yield made
    finally:
        made.close()


def location(port: int) -> str | None:
    """Where one request is sent, over a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", "/")
        return connection.getresponse().getheader("Location")
    finally:
        connection.close()


def reloaded(recipe: str, base: Path) -> tuple[int, str]:
    """Run the recipe's reload hook as the daemon does: its arguments, a small environment."""
    found = RecipeShelf(NodeDirectory(base / "node")).load(recipe)
    given = {**found.examples, "pid_file": f"{base}/{recipe}.pid"}
    hook = found.settings("partner", given)["hooks"]["reload"]
    done = subprocess.run(
        hook["run"], capture_output=True, text=True, timeout=60, check=False, cwd="/", env={"PATH": PROGRAMS}
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("nginx", path=PROGRAMS) is None, reason="nginx is not installed")
def test_nginx_answers_with_the_new_configuration_after_the_reload(servers: Servers, tmp_path: Path) -> None:
    """Goal: not one request after the hook meets an old worker, and the probe after it relies on that; and where
    nginx keeps its old workers, the hook fails and says so."""
    port = free_port()
    conf = tmp_path / "nginx.conf"

    def write(target: str) -> None:
        site = f"server {{ listen 127.0.0.1:{port}; return 302 http://{target}/; }}\n}}\n"
        conf.write_text(nginx_main(tmp_path, "nginx") + site)

    write("begin")
    program = shutil.which("nginx", path=PROGRAMS) or ""
    words = [program, "-e", str(tmp_path / "error.log"), "-c", str(conf), "-g", "daemon off;"]
    servers.start("nginx", words, port, tmp_path / "out.log")
    assert location(port) == "http://begin/", "an answer: the parent, which listens first, has its workers"
    for number in range(3):
        write(f"site{number}")
        assert reloaded("nginx", tmp_path) == (0, "")
        assert {location(port) for _ in range(10)} == {f"http://site{number}/"}
    conf.write_text("broken")
    code, said = reloaded("nginx", tmp_path)
    assert code == 1
    assert "kept its worker" in said
    assert location(port) == "http://site2/"


@pytest.mark.skipif(shutil.which("apache2", path=PROGRAMS) is None, reason="apache2 is not installed")
def test_apache_answers_with_the_new_configuration_after_the_reload(servers: Servers, tmp_path: Path) -> None:
    port = free_port()
    conf = tmp_path / "apache2.conf"
    user = "User nobody\nGroup nogroup\n" if os.geteuid() == 0 else ""

    def write(target: str) -> None:
        loads = "".join(
            f"LoadModule {name}_module {MODULES}/mod_{name}.so\n"
            for name in ("mpm_event", "authz_core", "alias")
        )
        conf.write_text(
            f"{loads}{user}ServerName localhost\nListen 127.0.0.1:{port}\nServerRoot {tmp_path}\n"
            f"DefaultRuntimeDir {tmp_path}\nPidFile {tmp_path}/apache.pid\nErrorLog {tmp_path}/error.log\n"
            f"Redirect / http://{target}/\n"
        )

    write("begin")
    program = shutil.which("apache2", path=PROGRAMS) or ""
    servers.start("apache2", [program, "-f", str(conf), "-DFOREGROUND"], port, tmp_path / "out.log")
    assert location(port) == "http://begin/", "an answer: the parent, which listens first, has its children"
    for number in range(2):
        write(f"site{number}")
        assert reloaded("apache", tmp_path) == (0, "")
        assert {location(port) for _ in range(10)} == {f"http://site{number}/"}
