"""csync2 by hand (``csync2 -x``) to its own daemon, with TLS, the two sides told apart by name and directory."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

from bench.peers.base import Can, Handle, Peer, Session, Setting
from bench.waiting import until

__all__ = ["Csync2"]

_PORT = 20865
# csync2 binds its daemon to what -N calls it, so the two sides are called by addresses of loopback.
_LEFT, _RIGHT = "127.0.0.2", "127.0.0.3"


class _Marking(Session):
    """A run is by hand, as with rsync; it looks at the source only, its database stands for the target."""

    def prepare(self) -> None:
        self._sides = {_LEFT: self.field.left / "state", _RIGHT: self.field.rights[0] / "state"}
        key = self.setting.scratch / "key"
        key.write_text("k" * 64 + "\n")
        certificate, secret = self.setting.scratch / "cert.pem", self.setting.scratch / "cert-key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=bench",
             "-keyout", str(secret), "-out", str(certificate)],
            check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        for directory in self._sides.values():
            # One certificate for both: a client whose issuer the server does not trust presents none.
            shutil.copy(certificate, directory / "csync2_ssl_cert.pem")
            shutil.copy(secret, directory / "csync2_ssl_key.pem")
            (directory / "db").mkdir()
            (directory / "csync2_bench.cfg").write_text(
                "group bench {\n"
                f"  host {_LEFT};\n  host {_RIGHT};\n"
                f"  key {key};\n  include %tree%;\n  exclude %tree%/.instep;\n  auto left;\n}}\n"
                f"prefix tree {{\n  on {_LEFT}: {self.source};\n  on {_RIGHT}: {self.targets[0]};\n}}\n"
            )
        self.cage.start(self._command(_RIGHT, "-ii"), env=self._env(_RIGHT), log="csync2d")
        until(lambda: self.cage.listens(_PORT), 10, "csync2 daemon listening")

    def first(self) -> None:
        self.cage.run(self._command(_LEFT, "-x"), within_s=self.within_s, env=self._env(_LEFT))

    def adopt(self) -> None:
        for side, tree in ((_LEFT, self.source), (_RIGHT, self.targets[0])):
            self.cage.run(
                self._command(side, "-cIr", str(tree)),
                within_s=self.within_s,
                env=self._env(side),
                accept=(0, 1, 2),
            )

    def unchanged(self) -> None:
        self.first()

    def nudge(self) -> Handle | None:
        process = self.cage.start(self._command(_LEFT, "-x"), env=self._env(_LEFT), log="csync2")
        return Handle(lambda: self.cage.finish(process, self.within_s))

    def _env(self, side: str) -> dict[str, str]:
        return {"CSYNC2_SYSTEM_DIR": str(self._sides[side])}

    def _command(self, side: str, *what: str) -> list[str | Path]:
        return ["csync2", "-N", side, "-C", "bench", "-D", self._sides[side] / "db", "-p", str(_PORT), *what]


class Csync2(Peer):
    name, title, needs = "csync2", "csync2", ("csync2", "openssl")
    can = frozenset({Can.FIRST, Can.CHANGE, Can.UNCHANGED, Can.LATENCY})
    is_slow = True
    clock = (
        "`csync2 -x` to a running daemon, from start to exit; with nothing changed it scans the source only"
    )

    def version(self) -> str:
        done = subprocess.run(["csync2", "-?"], capture_output=True, text=True, timeout=30, check=False)
        lines = [line for line in (done.stdout + done.stderr).splitlines() if line.startswith("csync2 ")]
        return lines[0].split(" - ")[0] if lines else "csync2"

    def open(self, setting: Setting) -> Session:
        return _Marking(setting)
