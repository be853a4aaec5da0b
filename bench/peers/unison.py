"""Unison over ssh, forced to mirror the source, with times, owners and permissions kept."""

from __future__ import annotations

from pathlib import Path

from bench.peers import ssh
from bench.peers.base import Can, Handle, Peer, Session, Setting, first_line
from bench.peers.ssh import Ssh

__all__ = ["Unison"]


class _Reconciling(Session):
    """A run is by hand, as with rsync. ``adopt`` lets it write its archives."""

    def prepare(self) -> None:
        self.ssh = Ssh(self.cage, self.setting.scratch)
        self._ours, self._theirs = self.field.left / "state", self.field.rights[0] / "state"

    def first(self) -> None:
        self.cage.run(self._command(), within_s=self.within_s, env=self._env())

    def adopt(self) -> None:
        self.first()

    def unchanged(self) -> None:
        self.first()

    def nudge(self) -> Handle | None:
        process = self.cage.start(self._command(), log="unison", env=self._env())
        return Handle(lambda: self.cage.finish(process, self.within_s))

    def both(self) -> None:
        """Paths that both sides changed are left apart: exit code 1."""
        self.cage.run(self._command(), within_s=self.within_s, env=self._env(), accept=(0, 1))

    def _env(self) -> dict[str, str]:
        return {"UNISON": str(self._ours)}

    def _command(self) -> list[str | Path]:
        keep = ["-perms", "-1", "-times", "-owner", "-group", "-numericids"]
        return [
            "unison", str(self.source), f"ssh://{self.ssh.host}/{self.targets[0]}",
            "-ui", "text", "-batch", "-auto", "-confirmbigdel=false", "-logfile", "/dev/null",
            *([] if self.setting.is_two_way else ["-force", str(self.source)]), "-fastcheck", "true", *keep,
            "-sshargs", f"-F {self.ssh.config}", "-servercmd", f"env UNISON={self._theirs} unison",
        ]  # fmt: skip


class Unison(Peer):
    name, title, needs = "unison", "Unison over ssh", ("unison", *ssh.NEEDS)
    can = frozenset({Can.FIRST, Can.CHANGE, Can.UNCHANGED, Can.LATENCY, Can.BOTH, Can.CATCH_UP})
    clock = (
        "`unison -batch -force SOURCE`, from start to exit, ssh handshake included; two-way without `-force`, and paths "
        "that both sides changed stay apart"
    )

    def version(self) -> str:
        return first_line("unison", "-version")

    def open(self, setting: Setting) -> Session:
        return _Reconciling(setting)
