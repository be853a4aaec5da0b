"""``fileset mount-lines``, and directories of file servers in every form: named, compared, refused as roots."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

from instep.cli.main import run
from instep.model.share import share_of

FILE = """name = "main"
listen = "0.0.0.0:7443"
advertise = "main.example.org:7443"
allow = ["10.20.0.0/16"]
[filesets.maps]
path = "/srv/big maps"
writer = "main"
[filesets.docs]
path = "/srv/docs"
writer = "main"
mode = "replicate"
[partners.s1]
address = "10.30.0.1:7443"
"""


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "instep.toml").write_text(FILE)
    monkeypatch.setenv("INSTEP_DIR", str(tmp_path))
    return tmp_path


def told(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    found = run([*words, "--json"])
    out = capsys.readouterr()
    assert found == code, out
    return json.loads(out.out)


def plain(field: str) -> str:
    """A field of ``/etc/fstab`` as mount(8) reads it."""
    return field.replace("\\040", " ")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("files:/srv/maps/", "files:/srv/maps"), ("nfs://files/srv/maps", "files:/srv/maps"),
        ("[fd00::1]:/srv", "[fd00::1]:/srv"), ("//files/maps", "//files/maps"),
        ("smb://files/maps/a", "//files/maps/a"), (r"\\files\maps\a", "//files/maps/a"),
        ("/srv/maps", None), ("srv/a:b", None), ("//files", None), ("files:maps", None),
        ("//fi les/maps", None), ("files:/srv/../etc", None), ("tmpfs", None), ("/dev/sda1", None),
    ],
)  # fmt: skip
def test_forms_of_file_servers(text: str, shown: str | None) -> None:
    """Goal: E16, E17: one directory in the forms of NFS, Samba and Windows; a path of this machine is none."""
    found = share_of(text)
    assert (str(found) if found is not None else None) == shown


def test_shares_are_compared_as_servers_do() -> None:
    """Goal: letters of hosts and shares may differ in case, those of paths may not; NFS is not Samba."""
    one = share_of("//Files/Maps/a")
    assert one is not None
    assert one.is_same(share_of(r"\\files\maps\a"))
    assert not one.is_same(share_of("//files/maps/A"))
    assert not one.is_same(share_of("files:/maps/a"))


def test_lines_for_nfs(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the writer alone mounts rw; a blank in a path breaks no line; the setting that is shown can be typed."""
    found = told(capsys, "fileset", "mount-lines", "maps", "--server", "files")
    (line,) = found["export"]["lines"]
    directory, writer, readers = line.split(" ")
    assert plain(directory) == "/srv/big maps"
    assert (writer.partition("(")[0], readers.partition("(")[0]) == ("main.example.org", "10.20.0.0/16")
    assert ("rw" in writer, "ro" in readers) == (True, True)
    rw, ro = found["mounts"]
    for each, access in ((rw, "rw"), (ro, "ro")):
        source, at, kind, options, *_ = each["fstab"].split(" ")
        assert (plain(source), plain(at), kind) == ("files:/srv/big maps", "/srv/big maps", "nfs4")
        assert options.split(",")[0] == access
        assert "hard" in options.split(",")
        assert shlex.split(each["mount"])[-2:] == ["files:/srv/big maps", "/srv/big maps"]
    first, second = found["next"]
    assert second == "instep check"
    assert run(shlex.split(first)[1:]) == 0
    assert f'expect_mount = "{found["expect_mount"]}"' in (node / "instep.toml").read_text()


def test_lines_for_samba_have_no_secret(node: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: the share is named as the fileset; all homes write; passwords stand in files, not in lines."""
    words = ("fileset", "mount-lines", "docs", "--server", "files", "--form", "smb", "--export", "/data/docs")
    assert told(capsys, *words, "--writer", "10.40.0.0/16")["mounts"][0]["hosts"] == ["10.40.0.0/16"]
    found = told(capsys, *words, "--reader", "web.example.org")
    assert found["source"] == "//files/docs"
    assert "    path = /data/docs" in found["export"]["lines"]
    assert found["mounts"][0]["hosts"] == ["main.example.org", "10.30.0.1"]
    assert found["mounts"][1]["hosts"] == ["web.example.org"]
    assert all("credentials=/etc/instep/docs-" in each["fstab"] for each in found["mounts"])
    assert all("password" not in each["fstab"] for each in found["mounts"])
    assert run(list(words)) == 0
    assert "mode 0600" in capsys.readouterr().out


@pytest.mark.parametrize("root", [r"\\files\maps", "//files/maps", "smb://files/maps", "files:/srv/maps"])
def test_no_root_lies_on_another_machine(node: Path, root: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Goal: E17: refused by name with the reason, on the command line and in the file; nothing is changed."""
    before = (node / "instep.toml").read_bytes()
    error = told(capsys, "fileset", "add", "new", root, code=4)["error"]
    assert (error["code"], error["facts"]["server"]) == ("root_is_share", "files")
    assert (node / "instep.toml").read_bytes() == before
    (node / "instep.toml").write_text(FILE.replace('"/srv/docs"', json.dumps(root)))
    found = told(capsys, "config", "check", code=3)
    assert "directory of a file server" in json.dumps(found)
