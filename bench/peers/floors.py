"""Not tools to compare with but the machine's own limits: a local copy, and a plain stream through ssh."""

from __future__ import annotations

from bench.peers import ssh
from bench.peers.base import Can, Peer, Session, Setting, first_line
from bench.peers.ssh import Ssh

__all__ = ["CopyLocally", "TarOverSsh"]


class _Copying(Session):
    def first(self) -> None:
        self.cage.run_together(
            [["cp", "-a", f"{self.source}/.", f"{target}/"] for target in self.targets], self.within_s
        )


class CopyLocally(Peer):
    name, title, needs = "cp", "cp -a (floor)", ("cp",)
    can = frozenset({Can.FIRST, Can.FOUR})
    is_floor = True
    clock = "the command, from start to exit; no network, no verification"

    def version(self) -> str:
        return first_line("cp", "--version")

    def open(self, setting: Setting) -> Session:
        return _Copying(setting)


class _Piping(Session):
    def prepare(self) -> None:
        self.ssh = Ssh(self.cage, self.setting.scratch)

    def first(self) -> None:
        script = 'tar -C "$1" -cf - . | ssh -F "$2" "$3" "tar -C \'$4\' -xpf -"'
        self.cage.run_together(
            [
                ["sh", "-c", script, "sh", self.source, self.ssh.config, self.ssh.host, target]
                for target in self.targets
            ],
            self.within_s,
        )


class TarOverSsh(Peer):
    name, title, needs = "tar-ssh", "tar over ssh (floor)", ("tar", *ssh.NEEDS)
    can = frozenset({Can.FIRST, Can.FOUR})
    is_floor = True
    clock = "the pipe, from start to exit, ssh handshake included; no verification"

    def version(self) -> str:
        return first_line("tar", "--version")

    def open(self, setting: Setting) -> Session:
        return _Piping(setting)
