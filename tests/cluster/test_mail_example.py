"""The example of a hook that mails, against a mail server of the test's own."""

from __future__ import annotations

import json
import os
import socketserver
import subprocess
import sys
import threading
from pathlib import Path

MAIL = Path(__file__).resolve().parents[2] / "examples" / "mail" / "mail.py"


class _MailServer(socketserver.TCPServer):
    """Takes one mail, as a server of RFC 5321 does."""

    mail = ""


class _Session(socketserver.StreamRequestHandler):
    server: _MailServer

    def handle(self) -> None:
        self._say("220 test")
        while line := self.rfile.readline():
            match line[:4].upper():
                case b"DATA":
                    self._say("354 go on")
                    lines = iter(self.rfile.readline, b".\r\n")
                    self.server.mail = b"".join(lines).decode()
                    self._say("250 taken")
                case b"QUIT":
                    self._say("221 bye")
                    return
                case _:
                    self._say("250 yes")

    def _say(self, text: str) -> None:
        self.wfile.write(f"{text}\r\n".encode())


def test_it_mails_the_paths_and_the_next_step() -> None:
    told = {
        "hook": "on_collision", "fileset": "site", "code": "sync_collisions", "reason": "2 paths of site to look at",
        "changed": [{"path": f"a{number}"} for number in range(60)],
    }  # fmt: skip
    with _MailServer(("127.0.0.1", 0), _Session) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        host = f"127.0.0.1:{server.server_address[1]}"
        command = [sys.executable, str(MAIL), host, "a@example.org", "b@example.org"]
        environment = {**os.environ, "INSTEP_SYNC": "site"}
        subprocess.run(command, input=json.dumps(told), text=True, env=environment, check=True, timeout=60)
        thread.join(60)
        assert "Subject: instep: on_collision site" in server.mail
        assert "2 paths of site to look at" in server.mail
        assert "a49\r\nand 10 more" in server.mail
        assert "instep sync collisions site" in server.mail
