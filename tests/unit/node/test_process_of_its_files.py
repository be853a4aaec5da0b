"""What the daemon says of itself: older than its files, and what starts it after a reboot."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from instep.model.ids import FilesetName, NodeName
from instep.net.trust.key_files import write_file
from instep.node.directory import NodeDirectory
from instep.node.upkeep.after_reboot import DETACHED, AfterReboot, Host, Installation, after_reboot
from instep.node.upkeep.installed_files import InstalledFiles
from instep.tree.root.marker import create_marker, read_marker

OTHER = 4_711


def package(root: Path, version: str) -> Path:
    found = root / "site/instep"
    (found / "node").mkdir(parents=True, exist_ok=True)
    (found / "__init__.py").write_text(f'__version__ = "{version}"\n')
    (found / "node/work.py").write_text("")
    (root / "site/library-1.0.dist-info").mkdir(exist_ok=True)
    return found


def test_a_daemon_is_of_its_files_until_they_change(tmp_path: Path) -> None:
    installed = InstalledFiles(package(tmp_path, "1.0"), "1.0")
    assert installed.warning() is None
    package(tmp_path, "2.0.1")
    assert installed.warning() == (
        "this daemon is older than its files: it runs instep 1.0, installed is instep 2.0.1: instep stop; instep start"
    )


def test_another_build_and_another_library_are_newer_files(tmp_path: Path) -> None:
    place = package(tmp_path, "1.0")
    build, library = InstalledFiles(place, "1.0"), InstalledFiles(place, "1.0")
    (tmp_path / "site/library-1.0.dist-info").rename(tmp_path / "site/library-1.1.dist-info")
    assert "installed is another build of instep 1.0" in str(library.trouble())
    (tmp_path / "site/library-1.1.dist-info").rename(tmp_path / "site/library-1.0.dist-info")
    assert library.trouble() is None
    (place / "node/work.py").write_text("changed = True\n")
    assert "installed is another build of instep 1.0" in str(build.trouble())


def test_files_that_are_gone_are_said(tmp_path: Path) -> None:
    place = package(tmp_path, "1.0")
    installed = InstalledFiles(place, "1.0")
    place.rename(tmp_path / "removed")
    assert installed.trouble() == f"the files of this daemon, instep 1.0, are gone from {place}"


def machine(root: Path, *, uid: int = 0, cron: bool = False) -> Host:
    programs = root / "programs"
    programs.mkdir(parents=True, exist_ok=True)
    if cron:
        (programs / "crontab").write_text("#!/bin/sh\n")
        (programs / "crontab").chmod(0o755)
    return Host(root, uid, str(programs), Path("/root"), Installation(Path("/usr/lib/instep")))


def test_a_supervised_daemon_comes_back_by_its_supervisor(tmp_path: Path) -> None:
    node, host = NodeDirectory(Path("/root/.local/share/instep")), machine(tmp_path)
    assert after_reboot(node, host, {}, 7) == AfterReboot("the program that runs `instep serve` starts it")
    by_systemd = after_reboot(node, host, {"SYSTEMD_EXEC_PID": str(os.getpid())}, os.getpid())
    assert by_systemd.words.startswith("its unit ")
    assert by_systemd.hint is None
    inherited = after_reboot(node, host, {"SYSTEMD_EXEC_PID": "1", DETACHED: "1"}, 7)
    assert inherited.words.startswith("nothing starts it"), "a shell of some service started it"


def test_roots_node_among_its_own_files_is_a_surprise(tmp_path: Path) -> None:
    detached = {DETACHED: "1"}
    mine, other = NodeDirectory(Path("/root/.local/share/instep")), NodeDirectory(Path("/srv/node"))
    host = machine(tmp_path)
    start = "/usr/bin/instep --dir /root/.local/share/instep start"
    assert after_reboot(mine, host, detached, 7) == AfterReboot(
        f"nothing starts it; by hand: {start}", start, True
    )
    assert not after_reboot(other, host, detached, 7).is_surprise
    assert not after_reboot(mine, machine(tmp_path, uid=1000), detached, 7).is_surprise


def test_a_line_for_cron_is_the_hint_and_then_the_answer(tmp_path: Path) -> None:
    node, host = NodeDirectory(Path("/root/.local/share/instep")), machine(tmp_path, cron=True)
    found = after_reboot(node, host, {DETACHED: "1"}, 7)
    line = f"@reboot /usr/bin/instep --dir {node.path} start"
    assert found.hint == f"(crontab -l 2>/dev/null; echo '{line}') | crontab -"
    table = tmp_path / "var/spool/cron/crontabs/root"
    table.parent.mkdir(parents=True)
    table.write_text(f"# {line}\n")
    assert after_reboot(node, host, {DETACHED: "1"}, 7).is_surprise, "a comment starts nothing"
    table.write_text(f"{line}\n")
    assert after_reboot(node, host, {DETACHED: "1"}, 7) == AfterReboot("a table of cron starts it")


@pytest.mark.skipif(os.geteuid() != 0, reason="makes files of another user")
def test_what_root_makes_for_a_daemon_of_another_user_belongs_to_that_user(tmp_path: Path) -> None:
    """The configuration, keys, and the marker with its folder, in which the daemon stages."""
    node, root = NodeDirectory(tmp_path / "node"), tmp_path / "root"
    node.create()
    root.mkdir()
    for folder in (node.path, node.pki):
        os.chown(folder, OTHER, OTHER)
    given = node.owner
    assert given == (OTHER, OTHER)
    write_file(node.config, b"", mode=0o600, of_node=True)
    write_file(tmp_path / "node/backup", b"", mode=0o600)
    name, main = FilesetName("data"), NodeName("main")
    create_marker(root, name, main, given)
    found = {path.name: path.stat().st_uid for path in (node.config, node.path / "backup", root / ".instep")}
    assert found == {"instep.toml": OTHER, "backup": 0, ".instep": OTHER}
    assert (root / ".instep/id").stat().st_uid == OTHER
    assert read_marker(root, given) is not None
