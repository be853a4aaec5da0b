"""Subversion over ssh: one repository at the source's side, a working copy on each; for the row of locks."""

from __future__ import annotations

from pathlib import Path

from bench.peers import ssh
from bench.peers.base import Can, Peer, Session, Setting, first_line
from bench.peers.ssh import Ssh

__all__ = ["Subversion"]


class _Committing(Session):
    """A commit is seen at the source's working copy after its ``svn update``, which is part of the row."""

    adopts = False

    def prepare(self) -> None:
        self.ssh = Ssh(self.cage, self.setting.scratch)
        repository = self.field.left / "state" / "repository"
        self.cage.run(["svnadmin", "create", repository])
        self._url = f"svn+ssh://{self.ssh.host}{repository}"

    def first(self) -> None:
        self._svn("checkout", "--force", self._url, self.source)
        self._svn("add", "--force", "--quiet", f"{self.source}/.")
        self._svn("commit", "-m", "as it is", self.source)
        self._svn("checkout", self._url, self.targets[0])

    def adopt(self) -> None:
        self.first()

    def locked_edit(self, path: str, body: bytes) -> None:
        file = self.targets[0] / path
        self._svn("lock", file)
        file.write_bytes(body)
        self._svn("commit", "-m", "edited", file)
        self._svn("update", self.source)

    def _svn(self, *words: str | Path) -> None:
        argv = ["svn", "--non-interactive", "--quiet", *words]
        self.cage.run(argv, within_s=self.within_s, env={"SVN_SSH": self.ssh.command, "LC_ALL": "C.UTF-8"})


class Subversion(Peer):
    name, title, needs = "subversion", "Subversion over ssh", ("svn", "svnadmin", "svnserve", *ssh.NEEDS)
    can = frozenset({Can.LOCK})
    clock = "`svn lock`, `svn commit` and the other side's `svn update`, each from start to exit, ssh handshakes included"

    def version(self) -> str:
        return first_line("svn", "--version")

    def open(self, setting: Setting) -> Session:
        return _Committing(setting)
