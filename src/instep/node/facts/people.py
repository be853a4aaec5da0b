"""Facts about users: the users that the agent and the service run as, and the rights that such a user really has
below a root. The rights are tried, not computed: a child of this node's takes that user's rights for good, makes a
file with a name that no generation carries, reads, renames and deletes it, and says how far it came.
"""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import secrets
import sys
from pathlib import Path

from instep.node.config.facts import ServiceSettings
from instep.node.facts.files import text_of
from instep.node.facts.program import output_of

SYSTEMCTL = "/usr/bin/systemctl"
TRIAL_NAME = ".instep-access-"
"""Begins like everything of instep's own, so that no scan sees it."""
_CHILDREN_MAX = 1_000

_TRIAL = """
import os, sys
root, name, uid, gid, groups = sys.argv[1:6]
if uid:
    os.setgroups([int(g) for g in groups.split(",") if g])
    os.setresgid(int(gid), int(gid), int(gid))
    os.setresuid(int(uid), int(uid), int(uid))
def tried(what, call):
    try:
        call()
    except OSError as error:
        sys.stdout.write("no " + what + ": " + (error.strerror or "failed") + "\\n")
        return
    sys.stdout.write(what + "\\n")
def read():
    looked = [root]
    left = 200
    while looked:
        with os.scandir(looked.pop()) as entries:
            for entry in entries:
                left -= 1
                if entry.name.lower().startswith(".instep"):
                    continue
                if entry.is_file(follow_symlinks=False):
                    os.close(os.open(entry.path, os.O_RDONLY | os.O_NOFOLLOW))
                    return
                if left <= 0:
                    return
                if entry.is_dir(follow_symlinks=False):
                    looked.append(entry.path)
def write():
    made = os.open(os.path.join(root, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        os.write(made, b"tried")
    finally:
        os.close(made)
tried("read", read)
tried("write", write)
tried("rename", lambda: os.rename(os.path.join(root, name), os.path.join(root, name + "-2")))
tried("delete", lambda: os.unlink(os.path.join(root, name + "-2")))
"""


def named(uid: int, gid: int) -> str:
    """``user:group`` by name, by number where there is none."""
    try:
        user = pwd.getpwuid(uid).pw_name
    except KeyError:
        user = str(uid)
    try:
        group = grp.getgrgid(gid).gr_name
    except KeyError:
        group = str(gid)
    return f"{user}:{group}"


def run_as() -> str:
    """User and group of this daemon."""
    return named(os.geteuid(), os.getegid())


def service_of(service: ServiceSettings, within_s: float) -> str:
    """User and group that the service runs as, or in angle brackets why they are not known. Blocks."""
    account = account_of_service(service, within_s)
    return account if isinstance(account, str) else named(*account)


def account_of_service(service: ServiceSettings, within_s: float) -> tuple[int, int] | str:
    """The same as numbers."""
    if service.user is not None:
        try:
            found = pwd.getpwnam(service.user)
        except KeyError:
            return f"<no user {service.user} here>"
        return found.pw_uid, found.pw_gid
    if service.pid_file is not None:
        try:
            text = text_of(service.pid_file).strip()
        except OSError as error:
            return f"<cannot be read: {error.strerror}>"
        if not text.isascii() or not text.isdigit() or not 0 < int(text) < 1 << 31:
            return text if text.startswith("<") else f"<{service.pid_file} holds no process number>"
        return _of_process(int(text))
    assert service.unit is not None
    return _of_unit(service.unit, within_s)


def _of_unit(unit: str, within_s: float) -> tuple[int, int] | str:
    words = (SYSTEMCTL, "--no-ask-password", "show", "--property=MainPID,User,LoadState", "--", unit)
    output = output_of(words, within_s)
    if output.startswith("<"):
        return output
    about = dict(line.partition("=")[::2] for line in output.splitlines())
    if about.get("LoadState") != "loaded":
        return f"<unit {unit} is {about.get('LoadState') or 'unknown'}>"
    pid = about.get("MainPID", "0")
    if pid.isdigit() and int(pid) > 0:
        return _of_process(int(pid))
    user = about.get("User") or "root"
    return account_of_service(ServiceSettings(user=user), within_s)


def _of_process(pid: int) -> tuple[int, int] | str:
    """Of a process of root's the children show the user that serves: a web server's first process only starts them."""
    own = _ids(pid)
    if own is None:
        return f"<no process {pid} runs>"
    if own[0] != 0:
        return own
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[:_CHILDREN_MAX]
    except OSError:
        return own
    below = {ids for child in children if (ids := _ids(int(child))) is not None}
    others = {ids for ids in below if ids[0] != 0}
    return others.pop() if len(others) == 1 else own


def _ids(pid: int) -> tuple[int, int] | None:
    """Effective user and group."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return None
    about = {line.partition(":")[0]: line.split() for line in lines if line.startswith(("Uid:", "Gid:"))}
    return int(about["Uid"][2]), int(about["Gid"][2])


def access_of(root: Path, service: ServiceSettings | None, within_s: float) -> str:
    """The acts that the service's user, or this daemon's where no service is named, can do in ``root``: ``read``,
    ``write``, ``rename``, ``delete``, one a line, and ``no ...: why`` for the rest. Blocks."""
    words = ["", "", ""]
    if service is not None:
        account = account_of_service(service, within_s)
        if isinstance(account, str):
            return account
        if account[0] != os.geteuid():
            if os.geteuid() != 0:
                return f"<cannot try as {named(*account)}: this daemon runs as {run_as()}>"
            words = [str(account[0]), str(account[1]), ",".join(map(str, _groups(*account)))]
    name = TRIAL_NAME + secrets.token_hex(8)
    try:
        tried = output_of((sys.executable, "-I", "-S", "-c", _TRIAL, str(root), name, *words), within_s)
    finally:
        for left in (name, f"{name}-2"):
            with contextlib.suppress(FileNotFoundError):
                (root / left).unlink()
    return tried.strip()


def _groups(uid: int, gid: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(uid).pw_name, gid)
    except KeyError:
        return [gid]
