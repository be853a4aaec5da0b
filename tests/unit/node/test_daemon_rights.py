"""What ``check`` says of the daemon's rights, and that the unit files give no more than they say."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from instep.model.definition import Preserve
from instep.model.ids import FilesetName, NodeName
from instep.node.config.filesets import FilesetSettings
from instep.node.config.hooks import HookSettings, HooksSettings
from instep.node.facts.daemon_rights import (
    CAPABILITIES,
    RIGHTS,
    Need,
    hardlinks_row,
    need_of,
    owners_in,
    rights_row,
)

ROOT = Path(__file__).parents[3]
UNITS = ROOT / "src/instep/daemon/units"
ALL = frozenset(CAPABILITIES)
SERVICE = 4_711


def fileset(path: Path, *, hook_user: str | None = None) -> FilesetSettings:
    hooks = HooksSettings(reload=(HookSettings(run=("true",), user=hook_user),))
    return FilesetSettings(name=FilesetName("maps"), path=path, writer=NodeName("main"), hooks=hooks)


def needed(
    path: Path, uid: int, *, allowed: frozenset[str] = frozenset(), hook_user: str | None = None
) -> Need:
    return need_of(
        fileset(path, hook_user=hook_user), uid, is_followed=True, keeps=(Preserve.OWNER,), allowed=allowed
    )


def test_a_tree_of_the_daemons_own_user_needs_nothing(tmp_path: Path) -> None:
    (tmp_path / "f").write_text("x")
    need = needed(tmp_path, os.geteuid())
    assert (need.owners, need.capabilities) == (frozenset({os.geteuid()}), {})
    row = rights_row(SERVICE, frozenset(), [Need(frozenset({SERVICE}))])
    assert (row.is_ok, row.ours, row.theirs) == (True, f"uid {SERVICE} with no capabilities", "what it needs")


def test_root_over_the_tree_of_one_user_is_told_that_this_user_suffices() -> None:
    why = f"maps holds files of uid {SERVICE}"
    need = Need(frozenset({SERVICE}), {"CAP_DAC_OVERRIDE": why, "CAP_FOWNER": why})
    row = rights_row(0, ALL, [need])
    assert row.is_ok
    assert f"all files belong to uid {SERVICE}, whose daemon would need no rights at all" in row.theirs


def test_more_capabilities_than_needed_are_said(tmp_path: Path) -> None:
    row = rights_row(SERVICE, frozenset({"CAP_DAC_OVERRIDE"}), [Need(frozenset({SERVICE}))])
    assert row.is_ok
    assert "more than it needs, no capabilities" in row.theirs


def test_what_is_missing_is_named_with_its_reason_and_the_line_that_gives_it(tmp_path: Path) -> None:
    need = needed(tmp_path, os.geteuid(), allowed=frozenset({"owner"}), hook_user="tomcat")
    row = rights_row(SERVICE, frozenset({"CAP_FOWNER", "CAP_DAC_OVERRIDE"}), [need])
    assert not row.is_ok
    assert (
        row.theirs
        == "needs CAP_CHOWN, CAP_KILL, CAP_SETGID, CAP_SETUID: maps keeps owners; a hook of maps runs as tomcat"
    )
    wanted = "CAP_CHOWN CAP_DAC_OVERRIDE CAP_FOWNER CAP_KILL CAP_SETGID CAP_SETUID"
    assert f"AmbientCapabilities={wanted}" in str(row.hint)
    assert f"drop-ins lie in {RIGHTS};" in str(row.hint) and list(RIGHTS.glob("*.conf"))


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a file to another user")
def test_files_of_other_users_below_are_seen(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d/f").write_text("x")
    os.chown(tmp_path / "d/f", SERVICE, SERVICE)
    assert owners_in(tmp_path) == {0, SERVICE}
    assert set(needed(tmp_path, 0).capabilities) == {"CAP_DAC_OVERRIDE", "CAP_FOWNER"}


def unit_lines(path: Path) -> dict[str, str]:
    lines = path.read_text().splitlines()
    pairs = [line.partition("=") for line in lines if "=" in line and not line.startswith("#")]
    return {key: value for key, _, value in pairs}


@pytest.mark.parametrize("name", ["instep.service", "instep@.service"])
def test_the_units_run_as_a_user_without_capabilities(name: str) -> None:
    unit = unit_lines(UNITS / name)
    assert unit["User"] in ("instep", "%i")
    assert (unit["CapabilityBoundingSet"], unit["AmbientCapabilities"], unit["NoNewPrivileges"]) == (
        "",
        "",
        "yes",
    )


def test_the_drop_ins_together_are_what_check_can_ask_for() -> None:
    given = {
        name
        for path in sorted(RIGHTS.glob("*.conf"))
        for name in unit_lines(path)["CapabilityBoundingSet"].split()
    }
    assert given - {"CAP_LEASE"} == ALL


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
@pytest.mark.parametrize("name", ["instep.service", "instep@.service"])
def test_systemd_accepts_the_units(tmp_path: Path, name: str) -> None:
    """With a program that is there, for ``verify`` looks."""
    unit = tmp_path / name.replace("@", "@backup")
    unit.write_text((UNITS / name).read_text().replace("/usr/bin/instep", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    ours = [line for line in done.stderr.splitlines() if "instep" in line]
    assert (done.returncode, ours) == (0, []), done.stderr
    told = subprocess.run(
        ["systemd-analyze", "security", "--offline=yes", "--threshold=35", str(unit)],
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert told.returncode == 0, told.stdout[-500:]


def test_links_to_files_of_others_are_named_where_another_user_owns_a_tree(tmp_path: Path) -> None:
    """Without the kernel's protection the owner of a tree can link a file of another user into it."""
    others = [Need(frozenset({SERVICE}))]
    off, on = tmp_path / "off", tmp_path / "on"
    off.write_text("0\n")
    on.write_text("1\n")
    row = hardlinks_row(0, others, off)
    assert (row.is_ok, row.ours) == (False, "fs.protected_hardlinks = 0")
    assert f"uid {SERVICE}" in row.theirs
    assert row.hint is not None
    assert row.hint.startswith("sysctl -w fs.protected_hardlinks=1")
    assert hardlinks_row(0, others, on).is_ok
    assert hardlinks_row(SERVICE, others, off).is_ok, "all of it is its own"
    assert hardlinks_row(0, others, tmp_path / "none").is_ok, "a kernel that does not say"
