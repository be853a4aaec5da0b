"""``instep.toml`` as one edit found it, and its replacement, which overwrites no save that a person made meanwhile.

A person's editor knows nothing of the lock that commands take. So the new file changes places with the old one, in
one step, and then the old one is looked at: when it is not the one that was read, or a program has it open for
writing, both change places again and the edit begins anew with the newer file.
"""

from __future__ import annotations

import os
import stat
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from instep.net.trust.key_files import sync_folder, write_beside
from instep.node.config.loading import read_text
from instep.tree.root.beneath import RenameUnsupportedError, rename_exchange
from instep.tree.root.descriptors import closing_fd
from instep.tree.scan.openness import Openness, OpennessProbe

_POLL_S = 0.02


@dataclass(frozen=True, slots=True)
class FoundFile:
    """The file with the text that it had. Where ``instep.toml`` is a link, ``path`` is what it leads to."""

    path: Path
    text: str
    found: os.stat_result

    @classmethod
    def read(cls, path: Path, within_s: float) -> Self | None:
        """The file once no program writes it; None when it is being saved, or between two names, for longer."""
        pause = threading.Event()  # an editor gives no sign when it has saved
        for _ in range(max(1, round(within_s / _POLL_S))):
            real = Path(os.path.realpath(path))
            try:
                if _is_still(real):
                    file = cls(real, read_text(real), real.stat())
                    if file._is_as_found(real):
                        return file
            except FileNotFoundError:  # an editor is putting its own new file there
                pass
            pause.wait(_POLL_S)
        return None

    def replace(self, text: str) -> bool:
        """Put ``text`` in its place, with its mode, owner and line ends; False, and nothing is changed, when the file
        was saved since it was read. A crash leaves the old file or the new one."""
        mode = stat.S_IMODE(self.found.st_mode)
        writing = write_beside(self.path, self._with_line_ends(text).encode(), mode, self.found)
        try:
            if not self._is_as_found(self.path):
                return False
            with closing_fd(os.open(self.path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) as folder:
                names = folder, os.fsencode(writing.name), folder, os.fsencode(self.path.name)
                try:
                    rename_exchange(*names)
                except (
                    RenameUnsupportedError
                ):  # NFS among others: a save in the next microseconds is overwritten
                    writing.rename(self.path)
                else:
                    if not self._is_as_found(writing):
                        rename_exchange(*names)
                        return False
            sync_folder(self.path.parent)
            return True
        except FileNotFoundError:  # an editor is putting its own new file there
            return False
        finally:
            writing.unlink(missing_ok=True)

    def _is_as_found(self, path: Path) -> bool:
        """Whether the file of this name is the one that was read, unchanged and open in no program that writes."""
        now = path.stat()
        is_same = (now.st_ino, now.st_dev) == (self.found.st_ino, self.found.st_dev)
        return is_same and _is_still(path) and path.read_bytes() == self.text.encode()

    def _with_line_ends(self, text: str) -> str:
        """Lines that an edit added end like the others, where these all end alike."""
        if self.text.count("\r\n") == self.text.count("\n") > 0:
            return text.replace("\r\n", "\n").replace("\n", "\r\n")
        return text


def _is_still(path: Path) -> bool:
    """Whether the file exists and no program is known to have it open for writing."""
    try:
        with closing_fd(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as fd:
            return OpennessProbe(fd).of(fd) is not Openness.OPEN
    except FileNotFoundError:
        return False
    except PermissionError:
        return True  # the next step reads it and names the path
