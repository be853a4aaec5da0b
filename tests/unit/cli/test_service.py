"""What ``init`` and ``join`` do with the unit of a node, on a machine whose file system and ``systemctl`` are the
test's own."""

from __future__ import annotations

import os
import pwd
from dataclasses import replace
from pathlib import Path

import pytest

from instep.cli.cluster.service import UNIT, enable, give, has_unit, node_directory
from instep.errors import UnavailableError
from instep.node.directory import NodeDirectory
from instep.node.upkeep.after_reboot import Host, Installation

PACKAGED = Installation(Path("/usr/lib/instep"), Path("/usr/bin/env"), Path("/usr/bin"))
ME = pwd.getpwuid(os.geteuid()).pw_name
SYSTEMCTL = """#!/bin/sh
echo "$@" >> "{root}/calls"
case "$1" in
cat) [ -f "{root}/etc/systemd/system/$2" ] ;;
show) echo {user} ;;
{verb}) echo "no such luck" >&2; exit 1 ;;
esac
"""


def machine(root: Path, *, user: str = ME, fails: str = "none", with_systemd: bool = True) -> Host:
    """A machine that systemd runs; ``systemctl`` fails at one of its verbs."""
    programs = root / "programs"
    programs.mkdir(parents=True)
    for name, text in (
        ("systemctl", SYSTEMCTL.format(root=root, user=user, verb=fails)),
        ("systemd-sysusers", f'#!/bin/sh\necho sysusers "$@" >> {root}/calls\n'),
    ):
        (programs / name).write_text(text)
        (programs / name).chmod(0o755)
    if with_systemd:
        (root / "run/systemd/system").mkdir(parents=True)
    return Host(root, 0, f"{programs}:/usr/bin:/bin", root / "root", PACKAGED)


def node_of(host: Host) -> NodeDirectory:
    node = NodeDirectory(host.node_path)
    node.create()
    node.config.write_text('name = "main"\n')
    return node


def calls(root: Path) -> list[str]:
    return (root / "calls").read_text().splitlines()


def test_root_on_a_machine_with_systemd_gets_the_place_of_the_unit(tmp_path: Path) -> None:
    host = machine(tmp_path)
    environment = {"HOME": str(tmp_path / "root")}
    assert node_directory(None, environment, host).path == tmp_path / "var/lib/instep"
    assert node_directory("/srv/node", environment, host).path == Path("/srv/node")
    assert node_directory(None, environment | {"INSTEP_DIR": "/srv/node"}, host).path == Path("/srv/node")


def test_a_node_among_roots_own_files_is_not_left_behind(tmp_path: Path) -> None:
    """Another ``init`` means the node that is there; how it comes back is said, with the commands that move it."""
    host = machine(tmp_path)
    old = NodeDirectory(tmp_path / "root/.local/share/instep")
    old.create()
    old.config.write_text('name = "main"\n')
    assert node_directory(None, {"HOME": str(tmp_path / "root")}, host).path == old.path
    said = enable(old, host)
    assert said.unit is None
    assert f"mv {old.path}/* {host.node_path}/ && instep init --start" in str(said.words)


def test_without_systemd_or_root_the_place_is_the_usual_one(tmp_path: Path) -> None:
    environment = {"HOME": str(tmp_path / "root")}
    usual = tmp_path / "root/.local/share/instep"
    host = machine(tmp_path / "a", with_systemd=False)
    assert node_directory(None, environment, host).path == usual
    other = machine(tmp_path / "b")
    assert node_directory(None, environment, Host(other.root, 1000, other.path, other.home)).path == usual


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_the_unit_is_installed_and_enabled_once(tmp_path: Path) -> None:
    host = machine(tmp_path, user="nobody")
    node = node_of(host)
    first, again = enable(node, host), enable(node, host)
    assert first == again
    assert first.document == {
        "unit": UNIT,
        "user": "nobody",
        "after_reboot": f"{UNIT} starts it, as user nobody",
    }
    assert node.config.stat().st_uid == pwd.getpwnam("nobody").pw_uid
    users = tmp_path / "etc/sysusers.d/instep.conf"
    enabling = [f"cat {UNIT}", f"show --property=User --value {UNIT}", f"enable {UNIT}"]
    installing = [f"cat {UNIT}", f"sysusers {users}", "daemon-reload", *enabling[1:]]
    assert calls(tmp_path) == [*installing, *enabling]
    unit = (tmp_path / "etc/systemd/system" / UNIT).read_text()
    assert "ExecStart=/usr/bin/instep --dir /var/lib/instep serve\n" in unit
    assert has_unit(node, host)


@pytest.mark.parametrize("verb", ["daemon-reload", "enable"])
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone installs a unit")
def test_what_systemctl_refuses_is_said_in_its_words(tmp_path: Path, verb: str) -> None:
    host = machine(tmp_path, fails=verb)
    with pytest.raises(UnavailableError, match=rf"^systemctl {verb}.* failed: no such luck") as raised:
        enable(node_of(host), host)
    assert "--no-service" in str(raised.value.hint)


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone installs a unit")
def test_an_installation_that_the_units_user_cannot_enter_is_no_service(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    (closed / "instep").mkdir()
    found = machine(tmp_path / "machine")
    host = replace(found, installation=replace(PACKAGED, package=closed / "instep"))
    said = enable(node_of(host), host)
    assert said.unit is None
    assert "cannot enter" in str(said.words)
    assert not (host.root / "etc/systemd").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="gives files to another user")
def test_only_files_of_the_node_change_hands(tmp_path: Path) -> None:
    """A link leads elsewhere, and a file with a second name may belong to another user."""
    node, elsewhere, shared = tmp_path / "node", tmp_path / "elsewhere", tmp_path / "shared"
    node.mkdir()
    for file in (elsewhere, shared, node / "own"):
        file.write_text("x")
    (node / "link").symlink_to(elsewhere)
    (node / "second").hardlink_to(shared)
    give(node, 4711, 4711)
    owners = {path.name: path.lstat().st_uid for path in (node, elsewhere, shared, *node.iterdir())}
    assert owners == {"node": 4711, "own": 4711, "elsewhere": 0, "shared": 0, "link": 0, "second": 0}
