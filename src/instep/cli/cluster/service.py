"""The unit of a node: ``init`` and ``join`` install and enable it where systemd runs and root asks."""

from __future__ import annotations

import os
import pwd
import stat
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from instep.cli.session import Session
from instep.errors import UnavailableError
from instep.node.directory import NodeDirectory, resolve
from instep.node.upkeep.after_reboot import Host, Installation, by_hand

UNIT = "instep.service"
SYSTEMCTL_S = 60.0
_PACKAGED = "/usr/bin/instep"
"""The program that the unit names, which a package installs."""
_BY_HAND = "mend what it says and repeat the command, or leave the unit alone: --no-service"


@dataclass(frozen=True, slots=True)
class NodeService:
    """How the node comes back after a reboot: ``unit`` starts it as ``user``, or ``words`` say what to type; no words
    when the operator wanted it left alone."""

    unit: str | None = None
    user: str | None = None
    words: str | None = None

    @property
    def document(self) -> dict[str, object]:
        return {"unit": self.unit, "user": self.user, "after_reboot": self.words}

    @property
    def line(self) -> str | None:
        """For a person, below the other lines of ``init`` and ``join``."""
        return f"  after a reboot {self.words}" if self.words else None


def place_of_new_node(session: Session, *, has_service: bool) -> NodeDirectory:
    """The node directory of ``init`` and ``join``; what the command does later means the same one."""
    if has_service:
        chosen = node_directory(session.directory_option, os.environ, Host())
        if chosen != session.node:
            session.directory_option = str(chosen.path)
    return session.node


def node_directory(option: str | None, environment: Mapping[str, str], host: Host) -> NodeDirectory:
    """Where ``init`` and ``join`` make a node: root's, where a unit can start it, lies where the unit expects it."""
    usual = resolve(option, environment)
    is_chosen = option is not None or bool(environment.get("INSTEP_DIR"))
    if is_chosen or usual.holds_node or host.uid != 0 or not host.has_systemd:
        return usual
    return NodeDirectory(host.node_path)


def has_unit(node: NodeDirectory, host: Host) -> bool:
    """True when systemd runs here and has the unit, and the unit serves this node."""
    return (
        node.path == host.node_path
        and host.has_systemd
        and _run(host, "systemctl", "cat", UNIT).returncode == 0
    )


def start_unit(host: Host, timeout_s: float) -> None:
    _must(host, "systemctl", "start", UNIT, timeout_s=timeout_s)


def enable(node: NodeDirectory, host: Host) -> NodeService:
    """Install the unit where it is missing, give the node to its user, and enable it; where that cannot be, say how
    else the node comes back. Done again, it changes nothing."""
    if host.uid != 0 or not host.has_systemd or node.path != host.node_path:
        return NodeService(words=by_hand(node, host).words)
    if not has_unit(node, host):
        closed = closed_to_others(host.installation)
        if closed is not None:
            return NodeService(words=f"nothing starts it, for the unit's user cannot enter {closed}: install instep in "
                                 "/opt/instep or by its package, then: instep init")  # fmt: skip
        _install(host)
    user = _must(host, "systemctl", "show", "--property=User", "--value", UNIT).strip() or "root"
    try:
        account = pwd.getpwnam(user)
    except KeyError as error:
        raise UnavailableError(
            f"{UNIT} runs as {user}, and there is no such user", hint="systemd-sysusers; instep init",
            code="no_service_user", unit=UNIT, user=user,
        ) from error  # fmt: skip
    give(node.path, account.pw_uid, account.pw_gid)
    _must(host, "systemctl", "enable", UNIT)
    return NodeService(UNIT, user, f"{UNIT} starts it, as user {user}")


def give(folder: Path, uid: int, gid: int) -> None:
    """Make folders and files below belong to a user: never what a link leads to, and never a file that has a second
    name, which may be anybody's."""
    for _, _, names, handle in os.fwalk(folder, follow_symlinks=False):
        os.fchown(handle, uid, gid)
        for name in names:
            try:
                file = os.open(
                    name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle
                )
            except OSError:
                continue  # a link, a socket, or gone: the daemon makes its socket itself
            try:
                found = os.fstat(file)
                if stat.S_ISREG(found.st_mode) and found.st_nlink == 1:
                    os.fchown(file, uid, gid)
            finally:
                os.close(file)


def _install(host: Host) -> None:
    """The unit and its user, from the files of this installation and with its program."""
    units = resources.files("instep.daemon") / "units"
    users = host.root / "etc/sysusers.d/instep.conf"
    unit = host.root / "etc/systemd/system" / UNIT
    text = (units / UNIT).read_text().replace(_PACKAGED, host.installation.program)
    for target, content in ((users, (units / "instep.sysusers").read_text()), (unit, text)):
        target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(0o644)
    _must(host, "systemd-sysusers", str(users))
    _must(host, "systemctl", "daemon-reload")


def closed_to_others(installation: Installation) -> Path | None:
    """The first folder on the way to the installation that other users cannot enter."""
    for path in (installation.python, installation.prefix, installation.package):
        for folder in (path.resolve(), *path.resolve().parents):
            if folder.is_dir() and not folder.stat().st_mode & stat.S_IXOTH:
                return folder
    return None


def _run(host: Host, *command: str, timeout_s: float = SYSTEMCTL_S) -> subprocess.CompletedProcess[str]:
    words = " ".join(command)
    try:
        return subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False,
            env={**os.environ, "PATH": host.path},
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise UnavailableError(
            f"{words} took longer than {timeout_s:g} s", hint=f"journalctl -u {UNIT}", code="timeout"
        ) from error
    except OSError as error:
        raise UnavailableError(f"{words}: {error.strerror}", hint=_BY_HAND, code="no_systemctl") from error


def _must(host: Host, *command: str, timeout_s: float = SYSTEMCTL_S) -> str:
    """Run a command of systemd's and return what it printed; ``UnavailableError`` with its own words otherwise."""
    done = _run(host, *command, timeout_s=timeout_s)
    if done.returncode:
        raise UnavailableError(
            f"{' '.join(command)} failed: {done.stderr.strip()}",
            hint=f"journalctl -u {UNIT}" if "start" in command else _BY_HAND,
            code="daemon_failed" if "start" in command else "no_service",
        )
    return done.stdout
