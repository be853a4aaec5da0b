"""Exported keys: none lies where a fileset would carry it to others, and a front server takes what it is given."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import stat
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.serialization import pkcs12

from instep.cli.main import run
from instep.fleet.server_layouts import LAYOUTS, FrontServer, layout_here
from instep.model.ids import node_name
from instep.net.trust.pki import Pki
from instep.node.config.editing import edits
from instep.node.directory import NodeDirectory

AROUND = {
    "nginx": (
        "pid {0}/nginx.pid;\nerror_log stderr;\nevents {{}}\nhttp {{\naccess_log off;\n{1}\n}}\n", "nginx", "-t", "-c",
    ),
    "apache": (
        "ServerRoot {0}\nPidFile {0}/apache.pid\nErrorLog {0}/error.log\nServerName main\nListen 443\n"
        "LoadModule mpm_event_module /usr/lib/apache2/modules/mod_mpm_event.so\n"
        "LoadModule authz_core_module /usr/lib/apache2/modules/mod_authz_core.so\n"
        "LoadModule socache_shmcb_module /usr/lib/apache2/modules/mod_socache_shmcb.so\n"
        "LoadModule ssl_module /usr/lib/apache2/modules/mod_ssl.so\n{1}\n", "apache2", "-t", "-f",
    ),
    "haproxy": (
        "defaults\n    timeout client 1s\n    timeout server 1s\n    timeout connect 1s\n{1}\n", "haproxy", "-c", "-f",
    ),
}  # fmt: skip
"""Of each server a whole configuration around the lines, its program, and the arguments that only check a file."""


def test_a_key_is_not_exported_into_a_fileset(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tree, node = tmp_path / "tree", str(tmp_path / "n")
    tree.mkdir()
    (tmp_path / "link").symlink_to(tree)
    edits.create(NodeDirectory(Path(node)), {"name": "main"})
    Pki.create(Path(node) / "pki", "maps", node_name("main"), int(time.time() * 1000))
    assert run(["--dir", node, "fileset", "add", "maps", str(tree)]) == 0
    for inside in (tree / "main-pem", tmp_path / "link" / "main-pem"):
        capsys.readouterr()
        assert (
            run(["--dir", node, "pki", "export", "main", "--format", "pem", "--to", str(inside), "--json"])
            == 4
        )
        assert json.loads(capsys.readouterr().out)["error"]["code"] == "key_in_a_fileset"
    assert not (tree / "main-pem").exists()
    assert (
        run(["--dir", node, "pki", "export", "main", "--format", "pem", "--to", str(tmp_path / "out")]) == 0
    )


@pytest.fixture
def node(tmp_path: Path) -> str:
    directory = NodeDirectory(tmp_path / "n")
    edits.create(directory, {"name": "main"})
    Pki.create(directory.pki, "maps", node_name("main"), int(time.time() * 1000))
    return str(directory.path)


def exported(node: str, capsys: pytest.CaptureFixture[str], *words: str, expect: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert run(["--dir", node, "pki", "export", "main", *words, "--json"]) == expect
    document: dict[str, Any] = json.loads(capsys.readouterr().out)
    return document


def taken(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("server", AROUND)
def test_a_front_server_takes_its_lines(
    server: str, node: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Goal: the server's own parser reads the lines, and the key with the passphrase beside it."""
    around, *check = AROUND[server]
    program = shutil.which(check[0], path="/usr/sbin:/usr/bin:/sbin")
    if program is None:
        pytest.skip(f"{check[0]} is not installed")
    folder = tmp_path / "given"
    found = exported(node, capsys, "--format", "pem", "--for", server, "--to", str(folder))
    port = str(
        20_000 + os.getpid() % 10_000
    )  # nginx takes the port for a moment, and this test may open no socket
    lines = "\n".join(found["server"]["lines"]).replace("443", port)
    file = tmp_path / "server.conf"
    file.write_text(around.format(tmp_path, lines))
    taken(program, *check[1:], str(file))
    for path in map(Path, found["files"]):
        is_public = path.suffix == ".crt"
        assert stat.S_IMODE(path.stat().st_mode) == (0o644 if is_public else 0o600), path
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    if server == "haproxy":
        context.load_cert_chain(folder / "main.pem")
    else:
        word = (folder / "main.pass").read_text().rstrip()
        context.load_cert_chain(folder / "main.crt", folder / "main.key", password=word)
        assert word not in json.dumps(found)


def test_tomcat_gets_a_key_store(node: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = tmp_path / "main.p12"
    found = exported(node, capsys, "--format", "pkcs12", "--for", "tomcat", "--to", str(store))
    assert found["files"] == [str(store), f"{store}.pass"]
    held = pkcs12.load_pkcs12(store.read_bytes(), Path(f"{store}.pass").read_bytes().rstrip())
    assert held.key is not None and held.cert is not None and held.cert.friendly_name == b"main"
    assert f'certificateKeystorePasswordFile="{store}.pass"/>' in "".join(found["server"]["lines"])


def test_what_a_server_cannot_read_is_not_written(
    node: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("a passphrase of an operator")
    secret.chmod(0o600)
    for code, place, words in (
        ("wrong_format", "a", ("--format", "jks", "--for", "nginx")),
        ("odd_path", 'b"; include c', ("--format", "pem", "--for", "nginx")),
        ("odd_path", "b c", ("--format", "pem", "--for", "apache")),
        (
            "no_passphrase_there",
            "d",
            ("--format", "pem", "--for", "haproxy", "--passphrase-file", str(secret)),
        ),
    ):
        found = exported(node, capsys, *words, "--to", str(tmp_path / place), expect=2)
        assert found["error"]["code"] == code
        assert not (tmp_path / place).exists()
    given = exported(
        node,
        capsys,
        "--format",
        "pem",
        "--for",
        "nginx",
        "--to",
        str(tmp_path / "e"),
        "--passphrase-file",
        str(secret),
    )
    assert f"    ssl_password_file {secret};" in given["server"]["lines"]
    assert sorted(path.name for path in (tmp_path / "e").iterdir()) == [
        "ca-bundle.crt",
        "main.crt",
        "main.key",
    ]


@pytest.mark.parametrize("server", FrontServer)
def test_each_distribution_has_its_place(server: FrontServer, tmp_path: Path) -> None:
    assert layout_here(server, tmp_path) is None
    for number, layout in enumerate(LAYOUTS[server]):
        root = tmp_path / str(number)
        (root / layout.there.lstrip("/")).mkdir(parents=True)
        assert layout_here(server, root) == layout
