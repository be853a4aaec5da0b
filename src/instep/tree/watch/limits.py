"""Why a tree cannot be watched: which limit of the kernel is used up, and the command that raises it."""

from __future__ import annotations

import errno
import os
import resource
from pathlib import Path
from typing import NamedTuple

from instep.errors import ResourceError
from instep.model.counts import counted

_LEAST = 1_024


def too_many_watches(count: int, error: OSError) -> ResourceError:
    """No more directories can be watched; ``count`` are."""
    limit = _limit("watches")
    return ResourceError(
        f"only {counted(count, 'directory', 'directories')} can be watched, {limit.setting} = {limit.value} is "
        f"used up: {error.strerror}",
        hint=limit.raised_to(4 * count),
        code="too_many_watches",
        watched=count,
        limit=limit.value,
    )


def no_instance(error: OSError) -> ResourceError:
    """Not even one directory can be watched. ``EMFILE`` says it of two limits: the process's descriptors, and the
    user's inotify instances."""
    if error.errno == errno.ENFILE or (error.errno == errno.EMFILE and _are_descriptors_used_up()):
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return ResourceError(
            f"no watch can be opened, the limit of {soft} open files is used up: {error.strerror}",
            hint="raise it: LimitNOFILE=65536 in the unit, or ulimit -n 65536 before instep serve",
            code="too_few_descriptors",
            limit=soft,
        )
    limit = _limit("instances")
    return ResourceError(
        f"no watch can be opened, {limit.setting} = {limit.value} is used up: {error.strerror}",
        hint=limit.raised_to(0),
        code="too_many_instances",
        limit=limit.value,
    )


def not_reported(kind: str, root: Path) -> ResourceError:
    """The watch stands, but on such a file system it does not see what other machines change."""
    return ResourceError(
        f"{root} is on {kind}: the kernel does not report changes there by other machines",
        hint="there is nothing to do: the whole tree is looked at in short intervals instead",
        code="remote_file_system",
        kind=kind,
    )


def unwatched(root: Path, error: OSError) -> ResourceError:
    """The kernel refused the watch for another reason."""
    return ResourceError(
        f"{root} cannot be watched: {error.strerror or error}",
        hint="see whether the user that instep runs as may read the root: instep check",
        code="not_watched",
    )


class _Limit(NamedTuple):
    """One of the kernel's limits, by the name that ``sysctl`` knows."""

    setting: str
    value: int

    def raised_to(self, least: int) -> str:
        """The command that raises it, to be typed as it stands."""
        return f"sysctl -w {self.setting}={max(_LEAST, 2 * self.value, least)}"


def _limit(of: str) -> _Limit:
    """The lower one of the two that count: the user's own, and the one of the user namespace, which a container may
    have."""
    both = (f"fs.inotify.max_user_{of}", f"user.max_inotify_{of}")
    found = [_Limit(name, value) for name in both if (value := _read(name)) is not None]
    return min(found, key=lambda limit: limit.value, default=_Limit(both[0], 0))


def _read(setting: str) -> int | None:
    try:
        return int(Path("/proc/sys", *setting.split(".")).read_text())
    except (OSError, ValueError):
        return None


def _are_descriptors_used_up() -> bool:
    """Whether no descriptor is left for anything else either."""
    try:
        os.close(os.eventfd(0, os.EFD_CLOEXEC))
    except OSError:
        return True
    return False
