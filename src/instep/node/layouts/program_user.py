"""The user that a program of an installation runs as under root: its owner, where no other user can change it."""

from __future__ import annotations

import errno
import os
import pwd
import stat
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from instep.errors import RefusedError
from instep.fleet.hooks.run import Account
from instep.node.directory import user_name

_LINKS_MAX = 40


def account_for(program: Path, source: Path, otherwise: str) -> Account | None:
    """The account that root switches to; None when the program runs as the caller.

    ``otherwise`` ends the hint: a step that needs no program. ``RefusedError`` ``unsafe_program`` when a third user can
    change what would run: that user would have the rights of the owner, or of root."""
    if os.geteuid() != 0:
        return None
    way = [(path, os.lstat(path)) for path in _way(program)]
    uid = way[-1][1].st_uid
    for path, found in way:
        mode = stat.S_IMODE(found.st_mode)
        if found.st_uid not in (0, uid):
            step = _ownership(program, path, found.st_uid, source)
        elif _is_open(found):
            step = f"chmod go-w {quote(str(path))}"
        else:
            continue
        wanted = user_name(uid)
        raise RefusedError(
            f"{program} would run as {wanted}, and others could change {path}: owner {user_name(found.st_uid)}, mode "
            f"{mode:04o}; wanted is owner {' or '.join(dict.fromkeys((wanted, 'root')))}, writable by no other user",
            hint=f"look at it, then: {step}{otherwise}",
            code="unsafe_program",
            program=str(program),
            path=str(path),
            owner=found.st_uid,
            mode=f"{mode:04o}",
        )
    if uid == 0:
        return None
    try:
        known = pwd.getpwuid(uid)
    except KeyError:
        raise RefusedError(
            f"{program} belongs to uid {uid}, which is no user of this machine",
            hint=f"give it to the user of the application: chown USER {quote(str(program))}{otherwise}",
            code="unsafe_program",
            path=str(program),
            owner=uid,
        ) from None
    return Account(uid, known.pw_gid, tuple(os.getgrouplist(known.pw_name, known.pw_gid)))


def _way(path: Path) -> Iterator[Path]:
    """Each object that decides where an absolute path leads: the directories and symbolic links on the way, and its
    end, last."""
    pending, here, links = deque(path.parts[1:]), Path("/"), 0
    yield here
    while pending:
        name = pending.popleft()
        here = here.parent if name == ".." else here / name
        yield here
        if here.is_symlink():
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), str(path))
            target = here.readlink()
            pending.extendleft(reversed([part for part in target.parts if part != "/"]))
            here = Path("/") if target.is_absolute() else here.parent


def _is_open(found: os.stat_result) -> bool:
    """Whether other users may write the file, or give other objects the names in the directory."""
    if stat.S_ISLNK(found.st_mode) or (stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX):
        return False
    return bool(found.st_mode & (stat.S_IWGRP | stat.S_IWOTH))


def _ownership(program: Path, path: Path, owner: int, source: Path) -> str:
    """The step that gives ``path`` and the program one owner: within the installation its own, outside of it root."""
    if not path.is_relative_to(source):
        return f"chown -h root {quote(str(path))}"
    own = source.lstat().st_uid
    return f"chown -h {user_name(own).removeprefix('uid ')} {quote(str(program if owner == own else path))}"
