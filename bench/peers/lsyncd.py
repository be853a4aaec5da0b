"""lsyncd in its ``rsyncssh`` mode with no delay: rsync over ssh for contents, ``mv`` and ``rm`` over ssh for moves."""

from __future__ import annotations

import json
import os
import subprocess

from bench.peers import ssh
from bench.peers.base import Can, Landed, Peer, Session, Setting, first_line
from bench.peers.ssh import Ssh
from bench.waiting import until

__all__ = ["Lsyncd"]


class _Watching(Session):
    """It does not say when it is done: the edit must be visible and no helper of its may run any more.

    ``first`` starts it on a full source, which is the best case: its own start-up copy. It may begin with an edit
    while the edit is still being made; its clock starts when the edit is complete all the same.
    """

    watches = True

    def prepare(self) -> None:
        self.ssh = Ssh(self.cage, self.setting.scratch)
        self._daemon: subprocess.Popen[bytes] | None = None
        self._log = self.setting.scratch / "lsyncd.log"
        blocks = "".join(
            "sync { default.rsyncssh, delay = 0, delete = true,"
            f" source = {json.dumps(str(self.source))}, host = '{self.ssh.host}', targetdir = {json.dumps(str(target))},"
            " rsync = { archive = true,"
            f" rsh = {json.dumps(self.ssh.command)} }},"
            f" ssh = {{ _extra = {{ '-F', {json.dumps(str(self.ssh.config))} }} }} }}\n"
            for target in self.targets
        )
        self._config = self.setting.scratch / "lsyncd.lua"
        self._config.write_text(
            f"settings {{ nodaemon = true, logfile = {json.dumps(str(self._log))},"
            " inotifyMode = 'CloseWrite or Modify' }\n" + blocks
        )

    def first(self) -> None:
        self._daemon = self.cage.start(["lsyncd", self._config], log="lsyncd")
        until(self._has_started, self.within_s, "lsyncd's start-up copy")

    def adopt(self) -> None:
        self.first()

    def change(self, landed: Landed) -> None:
        until(
            lambda: all(map(landed, self.targets)) and self._is_quiet(),
            self.within_s,
            "lsyncd to carry the edit",
        )

    def _has_started(self) -> bool:
        assert self._daemon is not None
        if self._daemon.poll() is not None:
            raise RuntimeError(f"lsyncd ended; see {self._log}")
        told = self._log.read_text(errors="replace") if self._log.exists() else ""
        return told.count(" finished: 0") >= len(self.targets)

    def _is_quiet(self) -> bool:
        """No rsync or ssh of its own runs; a session of sshd's ends a moment later and is not waited for."""
        assert self._daemon is not None
        children = f"/proc/{self._daemon.pid}/task/{self._daemon.pid}/children"
        with open(children, encoding="ascii") as listed:
            return not listed.read().strip()


class Lsyncd(Peer):
    name, title, needs = "lsyncd", "lsyncd", ("lsyncd", "rsync", *ssh.NEEDS)
    can = frozenset({Can.FIRST, Can.CHANGE, Can.LATENCY, Can.FOUR, Can.MILLION})
    clock = (
        "first copies: from its start on a full source to its word that start-up is finished; edits: from the end of "
        "the edit until it is visible and no child of lsyncd runs (it may begin while the edit is being made)"
    )

    def missing(self) -> str | None:
        return super().missing() or (None if os.path.exists("/proc/self/task") else "no /proc")

    def version(self) -> str:
        return f"lsyncd {first_line('lsyncd', '--version').removeprefix('Version: ')}"

    def open(self, setting: Setting) -> Session:
        return _Watching(setting)
