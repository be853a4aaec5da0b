"""An sshd of our own on loopback, with throw-away keys; what rsync, Unison, lsyncd and tar travel through.

Ciphers and everything else that matters for speed are OpenSSH's defaults.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from bench.cage import Cage
from bench.waiting import until

__all__ = ["NEEDS", "PORT", "Ssh"]

NEEDS = ("ssh", "sshd", "ssh-keygen")
PORT = 20022


class Ssh:
    """``argv`` is the ssh command that reaches the targets' side."""

    host = "bench-target"

    def __init__(self, cage: Cage, scratch: Path) -> None:
        directory = self.directory = scratch / "ssh"
        directory.mkdir(mode=0o700)
        for key in ("host", "user"):
            subprocess.run(
                ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / key)],
                check=True,
                timeout=30,
            )
        shutil.copy(directory / "user.pub", directory / "authorized_keys")
        (directory / "known_hosts").write_text(f"{self.host} {(directory / 'host.pub').read_text()}")
        self.config = directory / "config"
        self.config.write_text(
            f"Host {self.host}\n  HostName 127.0.0.1\n  HostKeyAlias {self.host}\n  Port {PORT}\n"
            f"  User {pwd.getpwuid(os.geteuid()).pw_name}\n  IdentityFile {directory}/user\n  IdentitiesOnly yes\n"
            f"  UserKnownHostsFile {directory}/known_hosts\n  BatchMode yes\n  LogLevel ERROR\n"
        )
        daemon_config = directory / "sshd_config"
        daemon_config.write_text(
            f"ListenAddress 127.0.0.1\nPort {PORT}\nHostKey {directory}/host\nAuthorizedKeysFile {directory}/authorized_keys\n"
            f"PidFile {directory}/pid\nStrictModes no\nUsePAM no\nPermitRootLogin prohibit-password\n"
            "Subsystem sftp internal-sftp\nMaxStartups 100\nPrintMotd no\nUseDNS no\n"
        )
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)  # sshd insists on it
        sshd = shutil.which("sshd")
        assert sshd is not None
        cage.start([sshd, "-D", "-e", "-f", daemon_config], log="sshd")
        until(lambda: cage.listens(PORT), 10, "sshd listening")
        self.argv = ("ssh", "-F", str(self.config))
        self.command = " ".join(self.argv)
