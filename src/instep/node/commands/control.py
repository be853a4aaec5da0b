"""The control socket: ``POST /v1/<command>`` with JSON parameters, answered in JSON lines.

``instep.api`` defines each command's parameters and result; ``door`` carries it out. The last line of every answer is
``{"result": ...}`` or ``{"error": ...}``; before it come ``{"progress": ...}`` or ``{"item": ...}`` lines.
The modes of the socket and its folder let callers in: the node's user and root, and the members of ``socket_group``.
The role of a caller follows from the user that the kernel names.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aiohttp import web

from instep.api.command import Document, Role, as_json
from instep.errors import InstepError, UsageError
from instep.node.access.caller import Caller, DoorName
from instep.node.access.door import CommandDoor
from instep.node.directory import user_name
from instep.node.runtime.driver import own_error

BODY_MAX = 1 << 20
_CREDENTIALS = struct.Struct("3i")
"""``struct ucred``: process, user, group."""
log = logging.getLogger(__name__)


class Speaker:
    """Writes lines of one answer; a caller that went away is noticed on the next line."""

    def __init__(self, response: web.StreamResponse, process: int = 0) -> None:
        self._response = response
        self.process = process
        """The process that called, as the kernel noted it when it connected."""

    async def progress(
        self, what: str, done: int, total: int | None, unit: str, rate: float | None = None
    ) -> None:
        line = {"what": what, "done": done, "total": total, "unit": unit, "rate": rate}
        await self._line({"progress": line})

    async def item(self, item: Document) -> None:
        await self._line({"item": as_json(item)})

    async def _line(self, line: Mapping[str, Any]) -> None:
        await self._response.write(json.dumps(line).encode() + b"\n")


class ControlServer:
    """Serves the commands of one node on its Unix socket."""

    def __init__(self, path: Path, door: CommandDoor, role_of: Callable[[int], Role]) -> None:
        self._path = path
        self._door = door
        self._role_of = role_of
        self._runner: web.AppRunner | None = None

    async def start(self) -> None:
        app = web.Application(client_max_size=BODY_MAX)
        app.router.add_post("/v1/{command}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False)
        await self._runner.setup()
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, str(self._path)).start()
        finally:
            os.umask(old)

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None
        self._path.unlink(missing_ok=True)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(request)
        speaker = Speaker(response, _caller(request)[0])
        line: dict[str, Any]
        try:
            line = {"result": await self._run(request, speaker)}
        except ConnectionError:
            return response
        except (InstepError, OSError) as error:
            line = {"error": own_error(error).as_json()}
        try:
            await response.write(json.dumps(line).encode() + b"\n")
            await response.write_eof()
        except ConnectionError:
            log.info("the caller of %s went away", request.match_info["command"])
        return response

    async def _run(self, request: web.Request, speaker: Speaker) -> Mapping[str, Any]:
        try:
            params = json.loads(await request.read() or b"{}")
        except (ValueError, RecursionError) as error:
            raise UsageError(f"parameters are not JSON: {error}") from error
        if not isinstance(params, dict):
            raise UsageError("parameters are not a JSON object")
        uid = _caller(request)[1]
        caller = Caller(user_name(uid), self._role_of(uid), None, DoorName.SOCKET)
        return as_json(await self._door.run(request.match_info["command"], params, caller, speaker))


def role_of(uid: int, member: Role) -> Role:
    """A user's role: root and the node's user may all, and of the others the modes let in only members of the group."""
    return Role.ADMIN if uid in (0, os.geteuid()) else member


def _caller(request: web.Request) -> tuple[int, int]:
    """The process and the user at the other end of the socket, as the kernel noted them when the caller connected."""
    assert request.transport is not None
    descriptor = request.transport.get_extra_info("socket").fileno()
    with socket.socket(socket.AF_UNIX, fileno=os.dup(descriptor)) as link:
        pid, uid, _ = _CREDENTIALS.unpack(
            link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        )
    return pid, uid
