"""The node directory: where it is, which files lie in it, and which users may read it.

``--dir``, else ``INSTEP_DIR``, else ``/var/lib/instep`` when it holds a node, else ``~/.local/share/instep``.
"""

from __future__ import annotations

import grp
import os
import pwd
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from instep.errors import ConfigError, NotAllowedError, ResourceError

__all__ = ["NodeDirectory", "not_allowed", "resolve", "user_name"]

SYSTEM = Path("/var/lib/instep")
_GROUP_MAY_PASS = 0o010
_HALTED = ("T", "t")
"""States of a process in ``/proc``: halted by a signal, or by a debugger."""


@dataclass(frozen=True, slots=True)
class NodeDirectory:
    """The paths of one node. Nothing here needs to exist before ``create``."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "instep.toml"

    @property
    def state(self) -> Path:
        return self.path / "state"

    @property
    def database(self) -> Path:
        """The state of the node, which it could learn again."""
        return self.state / "node.db"

    @property
    def access(self) -> Path:
        """Users, tokens, sessions and the audit: nothing of it can be learned again from elsewhere."""
        return self.state / "access.db"

    @property
    def pki(self) -> Path:
        return self.path / "pki"

    @property
    def socket(self) -> Path:
        return self.path / "control.sock"

    @property
    def log(self) -> Path:
        """Where a detached daemon writes its log; under systemd the journal has it."""
        return self.path / "daemon.log"

    @property
    def pid(self) -> Path:
        """Locked by the daemon as long as it lives; holds its process id."""
        return self.path / "daemon.pid"

    @property
    def daemon_pid(self) -> int | None:
        """The process that holds this directory as its daemon; None when none does. The lock is only looked up: to try
        it would stop a daemon that begins at that moment."""
        try:
            pid, inode = int(self.pid.read_text()), self.pid.stat().st_ino
            held = [line.split() for line in Path("/proc/locks").read_text().splitlines() if "FLOCK" in line]
        except (OSError, ValueError):
            return None
        is_held = any(str(pid) in words and words[-3].endswith(f":{inode}") for words in held)
        return pid if is_held and pid > 0 else None

    @property
    def halted_pid(self) -> int | None:
        """The daemon's process while a signal (SIGSTOP) or a debugger keeps it from running; else None."""
        try:
            line = Path(f"/proc/{int(self.pid.read_text())}/stat").read_text()
        except (OSError, ValueError):
            return None
        return self.daemon_pid if line.rpartition(")")[2].split()[0] in _HALTED else None

    @property
    def last_end(self) -> Path:
        """Why the last daemon ended with an error; absent while one runs."""
        return self.path / "daemon.end"

    @property
    def records(self) -> Path:
        """The last events of machines: of one that broke an invariant, and where an operator asked for them."""
        return self.path / "records"

    @property
    def holds_node(self) -> bool:
        """Whether a node is here; ``NotAllowedError`` when this user may not look."""
        try:
            return stat.S_ISREG(self.config.stat().st_mode)
        except PermissionError:
            raise not_allowed(self.path) from None
        except OSError:
            return False

    @property
    def owner(self) -> tuple[int, int] | None:
        """The uid and gid of the daemon's user, for what root makes on its behalf; else None."""
        if os.geteuid() != 0:
            return None
        found = self.path.stat()
        return (found.st_uid, found.st_gid) if found.st_uid else None

    def create(self) -> None:
        """Make the directory and its folders, mode 0700; no harm when they exist."""
        try:
            for folder in (self.path, self.state, self.pki):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ResourceError(
                f"cannot make {error.filename}: {error.strerror}",
                hint="choose another place: instep --dir DIR ...",
                code="node_directory",
                directory=str(self.path),
            ) from error

    def require(self) -> None:
        """``ConfigError`` unless this is a node whose keys only its owner can reach."""
        if not self.holds_node:
            raise ConfigError(
                f"there is no node in {self.path}",
                hint=f"instep --dir {self.path} init",
                code="no_node",
                directory=str(self.path),
            )
        try:
            os.close(os.open(self.config, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except PermissionError as error:
            raise not_allowed(self.path) from error
        except OSError:
            pass  # No matter of rights. An editor may be replacing the file; the reader of the file reports the rest.
        for path in (self.path, self.pki):
            self._private(path)

    def loose(self) -> list[tuple[Path, str, str]]:
        """What others may change or read in here and should not: each path with its mode in words, and the cure. Keys
        are looked at apart. Blocks."""
        writable, secret = 0o022, 0o077
        looked = [(self.path, writable), (self.config, writable), (self.state, secret)]
        try:
            looked += [
                (Path(each.path), secret) for each in os.scandir(self.state) if each.name.endswith(".db")
            ]
        except OSError:
            pass  # the row about the state says why
        found = []
        for path, forbidden in looked:
            try:
                mode = stat.S_IMODE(path.lstat().st_mode)
            except FileNotFoundError:  # an editor replaces the configuration
                continue
            if mode & forbidden:
                what = "others may change it" if mode & writable else "others may read it"
                found.append(
                    (
                        path,
                        f"{what}: mode {mode:04o}",
                        f"chmod go-{'w' if forbidden == writable else 'rwx'} {path}",
                    )
                )
        return found

    def share_socket(self, group: str | None) -> None:
        """Let the members of a group reach the control socket, and nothing else in here; None closes it again.
        ``LookupError`` when there is no such group, ``PermissionError`` when the daemon may not give it the socket."""
        if group is None:
            self.socket.chmod(0o600)
            found = self.path.stat()
            if found.st_mode & 0o077 == _GROUP_MAY_PASS and os.geteuid() in (0, found.st_uid):
                self.path.chmod(stat.S_IMODE(found.st_mode) & ~_GROUP_MAY_PASS)
            return
        gid = grp.getgrnam(group).gr_gid
        for path, mode in (
            (self.socket, 0o660),
            (self.path, stat.S_IMODE(self.path.stat().st_mode) | _GROUP_MAY_PASS),
        ):
            os.chown(path, -1, gid)
            path.chmod(mode)

    def _private(self, path: Path) -> None:
        try:
            found = path.stat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise ResourceError(
                f"cannot look at {path}: {error.strerror}", code="node_directory", directory=str(self.path)
            ) from error
        if stat.S_IMODE(found.st_mode) & 0o022 or (path == self.pki and stat.S_IMODE(found.st_mode) & 0o077):
            raise ConfigError(
                f"{path} can be reached by others: mode {stat.S_IMODE(found.st_mode):04o}",
                hint=f"chmod 700 {path}",
                code="open_node_directory",
                path=str(path),
                mode=f"{stat.S_IMODE(found.st_mode):04o}",
            )


def resolve(option: str | None, environment: Mapping[str, str]) -> NodeDirectory:
    """The directory that a command means; made absolute, because the daemon changes its working directory."""
    chosen = option or environment.get("INSTEP_DIR")
    if chosen:
        return NodeDirectory(Path(os.path.abspath(os.path.expanduser(chosen))))
    home = NodeDirectory(Path(environment.get("HOME") or os.path.expanduser("~")) / ".local/share/instep")
    system = NodeDirectory(SYSTEM)
    try:
        return system if system.holds_node else home
    except NotAllowedError:  # most likely it holds a node, which is meant unless this user has one
        return home if home.holds_node else system


def user_name(uid: int) -> str:
    """A user's name, or the number where the machine has no name for it."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def not_allowed(directory: Path) -> NotAllowedError:
    """The error of a command whose user may not use a node, with the ways that there are."""
    try:
        owner = user_name(directory.stat().st_uid)
    except OSError:
        owner = "another user"
    user = user_name(os.geteuid())
    hint = "repeat the command with sudo; or have socket_group in instep.toml name a group of yours"
    if os.access(NodeDirectory(directory).socket, os.R_OK | os.W_OK, effective_ids=True):
        hint = "repeat the command with sudo: socket_group lets you ask the daemon, and this command uses its files"
    return NotAllowedError(
        f"the node in {directory} belongs to {owner}, and {user} may not do that with it",
        hint=hint,
        code="not_your_node",
        directory=str(directory),
        owner=owner,
        user=user,
    )
