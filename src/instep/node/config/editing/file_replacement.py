"""``instep.toml`` as one edit found it, and its replacement, which overwrites no save that a person made meanwhile.

A person's editor knows nothing of the lock that commands take. So the new file changes places with the old one, in
one step, and then the old one is looked at: when it is not the one that was read, or a program has it open for
writing, both change places again and the edit begins anew with the newer file.
"""

from __future__ import annotations

import errno
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Self

from instep.net.trust.key_files import sync_folder, write_beside
from instep.node.config.loading import read_text
from instep.tree.root.beneath import NOT_BENEATH, RenameUnsupportedError, Root, rename_exchange
from instep.tree.root.descriptors import closing_fd
from instep.tree.scan.openness import Openness, OpennessProbe

_POLL_S = 0.02
_TURNS_MAX = 1_000
"""Exchanges until the newest of many saves has its name; each takes less than a save."""
_FOLDER = os.O_PATH | os.O_DIRECTORY
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


@dataclass(frozen=True, slots=True)
class FoundFile:
    """The file with the text that it had. Where ``instep.toml`` is a link, ``path`` is what it leads to.

    ``folder`` is a descriptor of the folder that holds it: all steps go through that, for root edits files in folders
    of other users, and such a user could turn a name of the path meanwhile."""

    path: Path
    text: str
    found: os.stat_result
    folder: int

    @classmethod
    @contextmanager
    def read(cls, path: Path, within_s: float) -> Iterator[Self | None]:
        """The file once no program writes it; None when it is being saved, or between two names, for longer. It can be
        replaced within the block."""
        with ExitStack() as held:
            yield cls._read(path, within_s, held)

    @classmethod
    def _read(cls, path: Path, within_s: float, held: ExitStack) -> Self | None:
        pause = threading.Event()  # an editor gives no sign when it has saved
        for _ in range(max(1, round(within_s / _POLL_S))):
            real = Path(os.path.realpath(path))
            with ExitStack() as here:
                try:
                    folder = here.enter_context(_folder_of(real))
                    at = Path(_at(folder), real.name)
                    if _is_still(at):
                        file = cls(real, read_text(at, named=real), os.lstat(at), folder)
                        if file._is_as_found(at):
                            held.push(here.pop_all())
                            return file
                except OSError as error:
                    if error.errno not in NOT_BENEATH:  # an editor is putting its own new file there
                        raise
            pause.wait(_POLL_S)
        return None

    def replace(self, text: str) -> bool:
        """Put ``text`` in its place, with its mode, owner and line ends; False, and nothing is changed, when the file
        was saved since it was read. A crash leaves the old file or the new one."""
        mode, at = stat.S_IMODE(self.found.st_mode), Path(_at(self.folder), self.path.name)
        text_bytes = self._with_line_ends(text).encode()
        writing = write_beside(at, text_bytes, mode, self.found)
        try:
            if not self._is_as_found(at):
                return False
            new = os.lstat(writing).st_ino
            names = self.folder, os.fsencode(writing.name), self.folder, os.fsencode(at.name)
            try:
                rename_exchange(*names)
            except RenameUnsupportedError:  # NFS among others: a save in the next microseconds is overwritten
                writing.rename(at)
            else:
                if not self._is_as_found(writing):
                    _put_back(names, writing, at, _Seen(new, text_bytes))
                    return False
            sync_folder(Path(_at(self.folder)))
            return True
        except FileNotFoundError:  # an editor is putting its own new file there
            return False
        finally:
            writing.unlink(missing_ok=True)

    def _is_as_found(self, at: Path) -> bool:
        """Whether the file of this name is the one that was read, unchanged and open in no program that writes."""
        now = os.lstat(at)
        is_same = (now.st_ino, now.st_dev) == (self.found.st_ino, self.found.st_dev)
        return is_same and _is_still(at) and _bytes_of(at) == self.text.encode()

    def _with_line_ends(self, text: str) -> str:
        """Lines that an edit added end like the others, where these all end alike."""
        if self.text.count("\r\n") == self.text.count("\n") > 0:
            return text.replace("\r\n", "\n").replace("\n", "\r\n")
        return text


class _Seen(NamedTuple):
    """A file that stood at the name, as it was seen last. Without ``data`` a program was writing it."""

    inode: int
    data: bytes | None


def _put_back(names: tuple[int, bytes, int, bytes], writing: Path, at: Path, put: _Seen) -> None:
    """A save came before the exchange: give it its name again. Another save may come before that exchange, and so on:
    the newest one keeps the name. ``put`` is the file that the exchange before laid there. ``FileNotFoundError`` when
    an editor is putting its own new file there."""
    for _ in range(_TURNS_MAX):
        displaced = _seen(writing)
        rename_exchange(*names)
        if _seen(writing) == put:
            return
        put = displaced
    raise OSError(errno.EBUSY, "it is saved all the time", str(at))


def _seen(path: Path) -> _Seen:
    return _Seen(os.lstat(path).st_ino, _bytes_of(path) if _is_still(path) else None)


def _folder_of(real: Path) -> AbstractContextManager[int]:
    """The folder of a path without symlinks; ``OSError`` where a name on the way has become one."""
    with Root("/") as top:
        return closing_fd(top.open(os.fsencode(real.parent).lstrip(b"/"), _FOLDER, cross_mounts=True))


def _at(folder: int) -> str:
    return f"/proc/self/fd/{folder}"


def _is_still(at: Path) -> bool:
    """Whether the file exists and no program is known to have it open for writing."""
    try:
        with closing_fd(os.open(at, _READ)) as fd:
            return OpennessProbe(fd).of(fd) is not Openness.OPEN
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # the next step reads it and names the path


def _bytes_of(at: Path) -> bytes:
    with os.fdopen(os.open(at, _READ), "rb") as file:
        return file.read()
