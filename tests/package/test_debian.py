"""The Debian package on a bare root: installed, run by its user, upgraded under a running daemon, removed, purged."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.support.bare_root import BareRoot, install
from tests.support.waiting import eventually

NODE = ("instep", "--dir", "/var/lib/instep")
KEPT_BY_PURGE = ("/var/log/", "/var/lib/dpkg/", "/var/cache/man/", "/var/cache/ldconfig/")
"""Where the package managers themselves write."""


@pytest.fixture(scope="session")
def later(deb: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same package as a later version would look: other files under a higher number."""
    scratch = tmp_path_factory.mktemp("later")
    tree, made = scratch / "newer", scratch / "instep_9.0.0-1.deb"
    subprocess.run(["dpkg-deb", "--raw-extract", deb, tree], check=True, timeout=120)
    control = tree / "DEBIAN/control"
    lines = [
        "Version: 9.0.0-1" if line.startswith("Version:") else line
        for line in control.read_text().splitlines()
    ]
    control.write_text("\n".join(lines) + "\n")
    [package] = tree.glob("usr/lib/instep/lib/python3.*/site-packages/instep")
    for compiled in package.glob("__pycache__/__init__.*"):
        compiled.unlink()
    version = package / "__init__.py"
    version.write_text('"""A later version."""\n\n__version__ = "9.0.0"\n')
    subprocess.run(
        ["dpkg-deb", "-Znone", "--build", tree, made], check=True, timeout=120, capture_output=True
    )
    return made


def test_it_is_installed_runs_as_its_user_and_ends_when_removed(installed: BareRoot) -> None:
    assert installed.run("instep", "--version").startswith("instep ")
    installed.run(*NODE, "init", "main", "--listen", "127.0.0.1:7601")
    installed.run("chown", "-R", "instep:", "/var/lib/instep")
    installed.run("setpriv", "--reuid=instep", "--regid=instep", "--clear-groups", "instep", "start")
    status = json.loads(installed.run("instep", "status", "--json"))
    assert (status["node"], status["daemon"]) == ("main", "running")
    rights = installed.run("instep", "check")
    assert "FAIL" not in rights
    installed.run("dpkg", "--remove", "instep")
    assert not (installed.path / "var/lib/instep/control.sock").exists()
    assert (installed.path / "var/lib/instep/pki/ca.key").exists()
    assert (installed.path / "etc/instep/environment").exists()
    left = sorted(str(p) for p in (installed.path / "usr/lib/instep").rglob("*"))
    assert left == []


def test_purged_it_leaves_no_file(bare: BareRoot, deb: Path) -> None:
    before = bare.files()
    install(bare, deb)
    bare.run("dpkg", "--purge", "instep")
    left = bare.files() - before
    assert {path for path in left if not path.startswith(KEPT_BY_PURGE)} == set()


def test_the_keys_of_a_cluster_without_a_backup_outlive_a_purge(installed: BareRoot) -> None:
    installed.run(*NODE, "init", "main", "--listen", "127.0.0.1:7601")
    said = installed.run("dpkg", "--purge", "instep")
    assert "have no backup, so /var/lib/instep/pki is kept" in said
    assert {path.name for path in (installed.path / "var/lib/instep").iterdir()} == {"pki"}


def test_systemd_accepts_the_units_as_installed(installed: BareRoot) -> None:
    said = installed.run(
        "systemd-analyze", "verify", "--man=no", "instep.service", "instep@root.service", code=None
    )
    assert [line for line in said.splitlines() if "instep" in line] == []
    installed.run("systemd-analyze", "security", "--offline=yes", "--threshold=35", "instep.service")
    assert installed.run("systemd-sysusers", "--cat-config").count("u instep - ") == 1


def test_logrotate_takes_the_log_of_a_daemon_without_a_journal(installed: BareRoot) -> None:
    installed.run("setpriv", "--reuid=instep", "--regid=instep", "--clear-groups", "sh", "-c",
             "umask 077; echo '{}' > /var/lib/instep/daemon.log")  # fmt: skip
    installed.run("logrotate", "--force", "/etc/logrotate.d/instep")
    names = {path.name for path in (installed.path / "var/lib/instep").iterdir()}
    assert names == {"daemon.log", "daemon.log.1"}


@pytest.mark.parametrize("shell", ["bash"])
def test_completion_is_installed(installed: BareRoot, shell: str) -> None:
    script = "/usr/share/bash-completion/completions/instep"
    said = installed.run(
        shell, "-c", f"source {script}; COMP_WORDS=(instep sto); COMP_CWORD=1; _instep_completion instep; "
        'printf "%s\\n" "${COMPREPLY[@]}"',
    )  # fmt: skip
    assert said.split() == ["stop"]


def started(root: BareRoot) -> None:
    """Wait until systemd has started all that it starts."""

    def is_started() -> bool:
        return root.run("systemctl", "is-system-running", code=None).strip() in ("running", "degraded")

    eventually(is_started, describe="systemd has started")


def status(root: BareRoot) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(root.run("instep", "status", "--json"))
    return found


def test_with_systemd_a_node_of_roots_comes_back_after_a_reboot(
    layers: tuple[Path, ...], tmp_path: Path
) -> None:
    """``init`` enables the unit and gives the node to its user; a file that is published is live again after that."""
    with BareRoot.entered(layers, tmp_path, with_systemd=True) as root:
        started(root)
        said = json.loads(root.run("instep", "init", "main", "--start", "--json"))
        assert (said["directory"], said["service"]["unit"]) == ("/var/lib/instep", "instep.service")
        root.write("/srv/data/file", "content")
        root.run("instep", "fileset", "add", "data", "/srv/data")
        root.run("instep", "wait", "--timeout", "30s")
        assert root.run("stat", "--format=%U", "/var/lib/instep/instep.toml", "/srv/data/.instep").split() == [
            "instep", "instep",
        ]  # fmt: skip
        checked = json.loads(root.run("instep", "check", "--json"))
        assert [row for row in checked["checks"] if not row["ok"]] == []
        assert "its unit instep.service starts it" in str(checked["checks"])
    with BareRoot.entered(layers, tmp_path, with_systemd=True) as root:
        started(root)
        found = status(root)
        assert found["daemon"] == "running"
        assert found["filesets"][0]["lines"][0]["live"]["number"] == 1


def test_an_upgrade_starts_units_again(layers: tuple[Path, ...], later: Path, tmp_path: Path) -> None:
    with BareRoot.entered(layers, tmp_path, with_systemd=True) as root:
        started(root)
        root.run("instep", "init", "main", "--start")
        before = root.run("systemctl", "show", "--property=MainPID", "--value", "instep")
        install(root, later)
        assert root.run("systemctl", "show", "--property=MainPID", "--value", "instep") != before
        assert "older" not in root.run("instep", "status")
        root.run("dpkg", "--purge", "instep")
        assert root.run("systemctl", "is-active", "instep", code=None).strip() != "active"
        assert root.run("find", "/etc", "-name", "*instep*") == ""


def test_a_daemon_without_a_unit_says_that_it_is_older_than_its_files(
    installed: BareRoot, later: Path
) -> None:
    root = installed
    root.run("instep", "init", "main", "--start")
    said = install(root, later)
    older = "this daemon is older than its files: it runs instep 0.1.0, installed is instep 9.0.0"
    assert f"warning: {older}: instep stop; instep start" in root.run("instep", "status")
    assert f"FAIL  files of the daemon on main  ours {older}" in root.run("instep", "check", code=None)
    assert "Setting up" in said
    root.run("sh", "-c", "instep stop; instep start")
    assert older not in root.run("instep", "status")
