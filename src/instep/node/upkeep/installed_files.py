"""Whether this daemon is older than its files: after an upgrade it goes on with the code of before until it is started
again."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path

import instep
from instep.node.runtime.runtime import Runtime
from instep.node.upkeep.after_reboot import unit_of_process

LOOK_S = 60.0

_VERSION = re.compile(r"^__version__ = \"([^\"]+)\"", re.MULTILINE)


class InstalledFiles:
    """The files of the program as they were when the daemon began, compared with the present ones."""

    def __init__(
        self, package: Path = Path(instep.__file__).parent, version: str = instep.__version__
    ) -> None:
        self._package, self._version = package, version
        self._begin = _fingerprint(package)

    def trouble(self) -> str | None:
        """The newer files, in words; None while there are none. Looks at some hundred files, a millisecond or two."""
        if _fingerprint(self._package) == self._begin:
            return None
        try:
            found = _VERSION.search((self._package / "__init__.py").read_text())
        except OSError:
            return f"the files of this daemon, instep {self._version}, are gone from {self._package}"
        there = found.group(1) if found is not None else "another version"
        which = f"instep {there}" if there != self._version else f"another build of instep {there}"
        return f"this daemon is older than its files: it runs instep {self._version}, installed is {which}"

    def warning(self) -> str | None:
        """The trouble and the command that ends it, in one line."""
        trouble = self.trouble()
        return f"{trouble}: {restart_command()}" if trouble is not None else None

    async def watch(self, runtime: Runtime) -> None:
        """Log it once, and note it among the events. A task of the daemon's own."""
        said: str | None = None
        while True:
            await asyncio.sleep(LOOK_S)
            found = await asyncio.to_thread(self.warning)
            if found is not None and found != said:
                runtime.note("older_than_files", found)
            said = found


def restart_command() -> str:
    """What starts this daemon again, by its unit where it has one."""
    pid = os.getpid()
    unit = unit_of_process(pid) if os.environ.get("SYSTEMD_EXEC_PID") == str(pid) else None
    return f"systemctl restart {unit}" if unit is not None else "instep stop; instep start"


def _fingerprint(package: Path) -> tuple[frozenset[tuple[str, int, int]], frozenset[str]]:
    """Names, sizes and times of the program's modules, and the versions of the libraries that are installed beside."""
    modules = set()
    for folder, _, names in os.walk(package):
        for name in names:
            if name.endswith((".py", ".sql", ".toml")):
                try:
                    found = os.stat(os.path.join(folder, name))
                except FileNotFoundError:
                    continue  # replaced at this moment: the next look sees the new one
                modules.add((os.path.join(folder, name), found.st_size, found.st_mtime_ns))
    try:
        libraries = {name for name in os.listdir(package.parent) if name.endswith(".dist-info")}
    except FileNotFoundError:
        libraries = set()
    return frozenset(modules), frozenset(libraries)
