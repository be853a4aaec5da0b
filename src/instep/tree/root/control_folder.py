"""The control folder, opened once and checked by its descriptor; everything below is reached through that descriptor.

A user who may write the directory beside the root may rename the objects there at any moment, the control folder too.
So a check by path says nothing about the next call by path. ``opened`` keeps the checked folder for a whole job.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import os
import stat
from collections.abc import Callable, Iterator
from typing import Concatenate, ParamSpec, TypeVar

from instep.errors import RefusedError
from instep.tree.root.descriptors import LIST, closing_fd
from instep.tree.root.place import OWNER_FILE, ControlFolder, Place, owner_of

P = ParamSpec("P")
R = TypeVar("R")


def open_control(place: Place) -> int:
    """A descriptor of the verified control folder, owned by the caller.

    ``RefusedError`` ``control_replaced`` when it is not ours; ``FileNotFoundError`` when there is none.
    """
    if place.opened is not None:
        return os.dup(place.opened.fd)
    try:
        fd = os.open(place.control, LIST)
    except NotADirectoryError as error:  # a symlink, too: nothing is followed
        raise _replaced(place, "it is not a directory") from error
    try:
        _verify(fd, place)
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_folder(place: Place, name: bytes) -> int:
    """A descriptor of the folder ``name`` in the control folder, made durably where it is missing; the caller's."""
    with closing_fd(open_control(place)) as control:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=control)
            os.fsync(control)
        return os.open(name, LIST, dir_fd=control)


@contextlib.contextmanager
def opened(place: Place) -> Iterator[Place]:
    """``place`` with its control folder verified and kept open: ``stage``, ``archive`` and their like lead through the
    descriptor. Harmless again on a place that is opened already. Errors as ``open_control``."""
    if place.opened is not None:
        yield place
        return
    folder = ControlFolder(open_control(place))
    try:
        yield dataclasses.replace(place, folder=folder)
    finally:
        folder.close()


def on_opened(function: Callable[Concatenate[Place, P], R]) -> Callable[Concatenate[Place, P], R]:
    """Let a function that takes a place have it opened for as long as it runs. Not for generators."""

    @functools.wraps(function)
    def with_folder(place: Place, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with opened(place) as there:
            return function(there, *args, **kwargs)

    return with_folder


def _verify(fd: int, place: Place) -> None:
    found = os.fstat(fd)
    me = os.geteuid()
    if found.st_uid != me:
        raise _replaced(place, f"it belongs to uid {found.st_uid}, and this daemon runs as uid {me}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise _replaced(place, f"its mode is {mode:04o}, and must be 0700")
    owner = owner_of(fd, place)
    if owner is None:
        raise _replaced(place, f"it has no file {OWNER_FILE} that says for which root it is")
    if owner.root != place.owner_text() and not owner.is_for(place, place.root.stat()):
        raise _replaced(place, f"it is the one of the root {owner.root}")


def _replaced(place: Place, why: str) -> RefusedError:
    return RefusedError(
        f"{place.control} is not the control folder that this node made for {place.root}: {why}",
        hint=f"find out which user may rename in {place.control.parent}; put the folder back, or keep it where only "
        f"the daemon's user may write: instep fileset set {place.fileset} stage=DIR",
        code="control_replaced",
        control=str(place.control),
    )
