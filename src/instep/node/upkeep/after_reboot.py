"""What starts this node again after a reboot, and what an operator types where nothing does."""

from __future__ import annotations

import os
import pwd
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from shlex import quote

import instep
from instep.node.directory import SYSTEM, NodeDirectory

DETACHED = "INSTEP_DETACHED"
"""Set for a daemon that ``instep start`` detached: no supervisor starts it again."""
_TABLES = ("etc/crontab", "etc/rc.local")
_SPOOLS = ("var/spool/cron/crontabs", "var/spool/cron")


@dataclass(frozen=True, slots=True)
class Installation:
    """Where this program is installed: the environment, its interpreter, the folder of the package."""

    prefix: Path = Path(sys.prefix)
    python: Path = Path(sys.executable)
    package: Path = Path(instep.__file__).parent

    @property
    def program(self) -> str:
        """The command that runs it, from any directory and for any user."""
        beside = self.prefix / "bin/instep"
        if self.prefix == Path("/usr/lib/instep"):
            return "/usr/bin/instep"
        return quote(str(beside)) if beside.exists() else f"{quote(str(self.python))} -m instep.cli"


@dataclass(frozen=True, slots=True)
class Host:
    """The machine of a node, as far as services go. ``root`` is where its file system begins, ``path`` where its
    programs are looked for."""

    root: Path = Path("/")
    uid: int = field(default_factory=os.geteuid)
    path: str = field(default_factory=lambda: os.environ.get("PATH", os.defpath))
    home: Path = field(default_factory=lambda: Path(os.environ.get("HOME") or "/nonexistent"))
    installation: Installation = Installation()

    @property
    def has_systemd(self) -> bool:
        """True when systemd is the first process."""
        return (self.root / "run/systemd/system").is_dir()

    @property
    def node_path(self) -> Path:
        """Where the unit expects the node."""
        return self.root / SYSTEM.relative_to("/")

    @property
    def user(self) -> str:
        try:
            return pwd.getpwuid(self.uid).pw_name
        except KeyError:
            return str(self.uid)

    def has(self, program: str) -> bool:
        return shutil.which(program, path=self.path) is not None


@dataclass(frozen=True, slots=True)
class AfterReboot:
    """How a daemon comes back. Where nothing starts it, ``words`` end in ``hint``, commands that can be typed as they
    are; ``is_surprise`` when an operator expects otherwise: root made the node, and it lies among root's own files."""

    words: str
    hint: str | None = None
    is_surprise: bool = False


def by_hand(node: NodeDirectory, host: Host, *, is_surprise: bool = False) -> AfterReboot:
    """What brings a node without a unit back: a move to where the unit expects it, a line for cron, or a start."""
    start = f"{host.installation.program} --dir {quote(str(node.path))} start"
    is_free = not host.node_path.joinpath("instep.toml").exists()
    if _is_in_table(node, host):
        return AfterReboot("a table of cron starts it")
    if host.has_systemd and host.uid == 0 and is_free and node.path != host.node_path:
        moved = f"mv {quote(str(node.path))}/* {host.node_path}/"
        hint = f"instep stop; mkdir -p {host.node_path} && {moved} && instep init --start"
        return AfterReboot(f"nothing starts it; for the unit to: {hint}", hint, is_surprise)
    if host.has("crontab"):
        hint = f"(crontab -l 2>/dev/null; echo {quote(f'@reboot {start}')}) | crontab -"
        return AfterReboot(f"nothing starts it; for cron to: {hint}", hint, is_surprise)
    return AfterReboot(f"nothing starts it; by hand: {start}", start, is_surprise)


def after_reboot(node: NodeDirectory, host: Host, environment: Mapping[str, str], pid: int) -> AfterReboot:
    """How the daemon with this environment and process id comes back."""
    if environment.get("SYSTEMD_EXEC_PID") == str(pid):
        return AfterReboot(f"its unit {unit_of_process(pid) or 'in systemd'} starts it")
    if not environment.get(DETACHED):
        return AfterReboot("the program that runs `instep serve` starts it")
    is_below_home = host.home != Path("/") and node.path.is_relative_to(host.home)
    return by_hand(node, host, is_surprise=host.uid == 0 and is_below_home)


def unit_of_process(pid: int) -> str | None:
    """The unit of systemd that a process belongs to."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return None
    names = (group.rsplit("/", 1)[-1] for group in groups)
    return next((name for name in names if name.endswith(".service")), None)


def _is_in_table(node: NodeDirectory, host: Host) -> bool:
    """True when a table of cron that this user may read, or ``rc.local``, names the node."""
    user = host.user
    found = (host.root / name for name in (*_TABLES, *(f"{spool}/{user}" for spool in _SPOOLS)))
    for table in (*found, *(host.root / "etc/cron.d").glob("*")):
        try:
            lines = table.read_text(errors="replace").splitlines()
        except OSError:
            continue  # not there, or not ours to read
        if any(str(node.path) in line and not line.lstrip().startswith("#") for line in lines):
            return True
    return False
