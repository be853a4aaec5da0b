"""The Debian package on a bare root: installed, run by its user, upgraded under a running daemon, removed, purged."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.bare_root import BareRoot, install

NODE = ("instep", "--dir", "/var/lib/instep")
KEPT_BY_PURGE = ("/var/log/", "/var/lib/dpkg/", "/var/cache/man/", "/var/cache/ldconfig/")
"""Where the package managers themselves write."""


def newer(deb: Path, scratch: Path) -> Path:
    """The same package as a later version would look: other files under a higher number."""
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
    assert not (installed.path / "usr/lib/instep").exists()


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
        shell, "-c", f"source {script}; COMP_WORDS=(instep sta); COMP_CWORD=1; _instep_completion instep; "
        'printf "%s\\n" "${COMPREPLY[@]}"',
    )  # fmt: skip
    assert said.split() == ["start", "status"]
