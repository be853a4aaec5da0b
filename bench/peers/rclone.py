"""rclone bisync over sftp: two-way only. Its record of both sides is made by a first run with ``--resync``."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

from bench.peers import ssh
from bench.peers.base import Can, Peer, Session, Setting, first_line
from bench.peers.ssh import PORT, Ssh

__all__ = ["Rclone"]


class _Bisync(Session):
    """Compares times and sizes; a path that both sides changed is renamed on both, and each gets both."""

    def prepare(self) -> None:
        self.ssh = Ssh(self.cage, self.setting.scratch)
        (self.setting.scratch / "rclone.conf").touch()

    def first(self) -> None:
        self._run("--resync")

    def adopt(self) -> None:
        self._run("--resync")

    def both(self) -> None:
        self._run()

    def _run(self, *more: str) -> None:
        user = pwd.getpwuid(os.geteuid()).pw_name
        remote = f":sftp,host=127.0.0.1,port={PORT},user={user},key_file={self.ssh.directory}/user,shell_type=unix,disable_hashcheck=true"
        words: list[str | Path] = [
            "rclone", "bisync", str(self.source), f"{remote}:{self.targets[0]}",
            "--config", self.setting.scratch / "rclone.conf", "--workdir", self.field.left / "state", *more,
        ]  # fmt: skip
        self.cage.run(words, within_s=self.within_s)


class Rclone(Peer):
    name, title, needs = "rclone", "rclone bisync", ("rclone", *ssh.NEEDS)
    can = frozenset({Can.BOTH})
    clock = "`rclone bisync` over sftp, from start to exit, ssh handshake included; it compares times and sizes only"

    def version(self) -> str:
        return first_line("rclone", "version")

    def open(self, setting: Setting) -> Session:
        return _Bisync(setting)
