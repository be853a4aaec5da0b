"""rsync by hand, to its own daemon and over ssh: ``rsync -a --delete``, its defaults otherwise."""

from __future__ import annotations

import os
from abc import abstractmethod
from pathlib import Path
from typing import ClassVar

from bench.cage import ToolFailed
from bench.peers import ssh
from bench.peers.base import Can, Handle, Peer, Session, Setting, first_line
from bench.peers.ssh import Ssh
from bench.waiting import until

__all__ = ["RsyncDaemon", "RsyncOverSsh"]

_PORT = 20873


class _Rsyncing(Session):
    """Times run from the start of the command(s) to the exit of the last one."""

    def first(self) -> None:
        commands = [self._command(number) for number in range(len(self.targets))]
        if len(commands) == 1:
            self.cage.run(commands[0], within_s=self.within_s)
        else:
            self.cage.run_together(commands, self.within_s)

    def unchanged(self) -> None:
        told = self.cage.run([*self._command(0), "--dry-run", "--itemize-changes"], within_s=self.within_s)
        if told.strip():
            raise ToolFailed(f"rsync --dry-run found something to do: {told[:300]}")

    def nudge(self) -> Handle | None:
        process = self.cage.start(self._command(0), log="rsync")
        return Handle(lambda: self.cage.finish(process, self.within_s))

    def _command(self, number: int) -> list[str | Path]:
        return ["rsync", "-a", "--delete", *self._via(), f"{self.source}/", self._to(number)]

    def _via(self) -> list[str]:
        return []

    @abstractmethod
    def _to(self, number: int) -> str: ...


class _ToDaemon(_Rsyncing):
    def prepare(self) -> None:
        config = self.setting.scratch / "rsyncd.conf"
        modules = "".join(
            f"[target{number}]\npath = {target}\nread only = no\nuse chroot = no\nmunge symlinks = no\n"
            for number, target in enumerate(self.targets)
        )
        who = "uid = 0\ngid = 0\n" if os.geteuid() == 0 else ""
        config.write_text(f"address = 127.0.0.1\nport = {_PORT}\n{who}{modules}")
        self.cage.start(["rsync", "--daemon", "--no-detach", f"--config={config}"], log="rsyncd")
        until(lambda: self.cage.listens(_PORT), 10, "rsync daemon listening")

    def _to(self, number: int) -> str:
        return f"rsync://127.0.0.1:{_PORT}/target{number}/"


class _OverSsh(_Rsyncing):
    def prepare(self) -> None:
        self.ssh = Ssh(self.cage, self.setting.scratch)

    def _via(self) -> list[str]:
        return ["-e", self.ssh.command]

    def _to(self, number: int) -> str:
        return f"{self.ssh.host}:{self.targets[number]}/"


class RsyncDaemon(Peer):
    name, title = "rsync", "rsync daemon"
    needs: ClassVar[tuple[str, ...]] = ("rsync",)
    can = frozenset(Can) - {Can.BOTH}
    clock = (
        "`rsync -a --delete` to a running daemon, from start to exit; not encrypted; reads no unchanged file"
    )

    def version(self) -> str:
        return first_line("rsync", "--version").split("protocol")[0].strip()

    def open(self, setting: Setting) -> Session:
        return _ToDaemon(setting)


class RsyncOverSsh(RsyncDaemon):
    name, title = "rsync-ssh", "rsync over ssh"
    needs = ("rsync", *ssh.NEEDS)
    clock = "`rsync -a --delete -e ssh`, from start to exit, ssh handshake included; reads no unchanged file"

    def version(self) -> str:
        return f"{super().version()}, {first_line('ssh', '-V')}"

    def open(self, setting: Setting) -> Session:
        return _OverSsh(setting)
