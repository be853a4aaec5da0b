#!/usr/bin/env python3
"""A portal's side of a lock: take it for a person, change the file, submit and release. Standard library alone.

    portal.py SOCKET FILESET PATH PERSON SESSION < NEW_CONTENTS

It runs as root or as the user of the node's daemon, who alone may name another owner than themselves. Exit code 0:
the home made the change. Otherwise the code of the contract: 6 is contention (locked, outdated, lost).
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import sys
import tempfile
from typing import Any


class Refused(Exception):
    """The daemon answered with an error: ``code``, ``exit_code``, ``reason``, ``facts``, ``hint``."""

    def __init__(self, error: dict[str, Any]) -> None:
        super().__init__(error["reason"])
        self.error = error


class Daemon(http.client.HTTPConnection):
    """HTTP over the node's Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=660)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)

    def ask(self, command: str, **params: Any) -> dict[str, Any]:
        """The result of one command; its answer is a row of JSON lines, and the last one counts."""
        self.request("POST", f"/v1/{command}", json.dumps(params), {"Content-Type": "application/json"})
        last = json.loads(self.getresponse().read().splitlines()[-1])
        if "error" in last:
            raise Refused(last["error"])
        result: dict[str, Any] = last["result"]
        return result


def save(root: str, path: str, contents: bytes) -> None:
    """Replace the file in one act, as an editor does, keeping its mode."""
    target = os.path.join(root, path)
    with tempfile.NamedTemporaryFile(dir=os.path.dirname(target), prefix=".portal-", delete=False) as draft:
        draft.write(contents)
    try:
        os.chmod(draft.name, os.stat(target).st_mode & 0o7777 if os.path.exists(target) else 0o644)
        os.rename(draft.name, target)
    except OSError:
        os.unlink(draft.name)
        raise


def main(socket_path: str, fileset: str, path: str, person: str, session: str) -> int:
    daemon = Daemon(socket_path)
    who = {"fileset": fileset, "path": path, "owner": person, "client": session}
    status = daemon.ask("status", fileset=fileset)
    root = status["filesets"][0]["path"]
    try:
        lock = daemon.ask("lock", **who, ttl_ms=300_000, reason="edited in the portal")
        print(f"locked until {lock['until']}, refresh from {lock['renew_after']} on", file=sys.stderr)
        save(root, path, sys.stdin.buffer.read())
        done = daemon.ask("unlock", **who, token=lock["token"], message=f"edited by {person} in the portal")
    except Refused as refused:
        error = refused.error
        print(f"{error['code']}: {error['reason']}", file=sys.stderr)
        print(f"next: {error['hint']}", file=sys.stderr)
        return int(error["exit_code"])
    print(json.dumps(done))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:6]))
