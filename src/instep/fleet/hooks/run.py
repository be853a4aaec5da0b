"""The ``run`` kind of hook: a program in a session of its own, ended as a group, its output bounded."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import pwd
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import NamedTuple, Self

import msgspec

from instep.fleet.hooks.guard import end_marked
from instep.fleet.hooks.spec import OUTPUT_KEPT, Attempt, HookCall
from instep.fleet.scratch import scratch_folder
from instep.model.counts import lasting
from instep.model.paths import path_fields

MINIMAL_ENVIRONMENT: Mapping[str, str] = MappingProxyType(
    {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
)
SETPRIV = "/usr/bin/setpriv"
GRACE_S = 2.0
"""Between SIGTERM and SIGKILL, and again between SIGKILL and giving a program up."""
DRAIN_S = 0.2
"""How long output is still read after the program ended; a child that still runs may hold the pipe open."""


class Account(NamedTuple):
    """The user that a program runs as: that user's own groups and no other."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def account_of(user: str) -> Account | str | None:
    """The account to switch to, None when the daemon runs as it already, or why it cannot be."""
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        return f"user {user} is not known on this machine"
    if found.pw_uid == os.geteuid():
        return None
    if os.geteuid() != 0:
        return f"it should run as user {user} ({found.pw_uid}), but this daemon runs as {os.geteuid()}"
    return Account(found.pw_uid, found.pw_gid, tuple(os.getgrouplist(user, found.pw_gid)))


def as_account(arguments: tuple[str, ...], account: Account | None) -> tuple[str, ...]:
    """The command line of a program that runs as another user: by a program of its own, because the daemon's event loop
    cannot start one so."""
    if account is None:
        return arguments
    groups = ",".join(map(str, account.groups))
    who = (f"--reuid={account.uid}", f"--regid={account.gid}", f"--groups={groups}", "--inh-caps=-all")
    return (SETPRIV, *who, "--", *arguments)


class ToldFiles(NamedTuple):
    """``changed`` holds the paths, each ended by NUL; ``json`` the whole call."""

    changed: Path
    json: Path


class Told:
    """The files that hold a program's call, written at the first use and removed at the end.

    They are written as the paths come, so that a generation of a million changes costs no memory.
    """

    def __init__(self, call: HookCall, reader: Account | None = None) -> None:
        self._call = call
        self._reader = reader
        self._scratch = contextlib.ExitStack()
        self._is_begun = False
        self._files: ToldFiles | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._scratch.close()

    def files(self) -> ToldFiles:
        """Blocks while it writes; ``OSError`` when there is no room, at this and every later use."""
        if self._files is None:
            if self._is_begun:
                raise OSError(errno.EIO, "the input of the hook was not written whole")
            folder = self._scratch.enter_context(scratch_folder())
            self._is_begun = True
            files = ToldFiles(folder / "changed", folder / "call.json")
            self._write(files)
            if self._reader is not None:
                for path in files:
                    os.chown(path, self._reader.uid, self._reader.gid)
                folder.chmod(0o711)
            self._files = files
        return self._files

    def _write(self, files: ToldFiles) -> None:
        call = self._call
        opening: dict[str, object] = {
            "hook": call.hook,
            "fileset": call.fileset,
            "generation": None if call.generation is None else call.generation.number,
            "generation_id": None if call.generation is None else call.generation.id.hex(),
            "previous": None if call.previous is None else call.previous.number,
        }
        if call.code is not None:
            opening |= {"code": call.code, "reason": call.reason}
        with files.changed.open("wb") as changed, files.json.open("wb") as told:
            told.write(msgspec.json.encode(opening)[:-1] + b',"changed":[')
            between = b""
            for path in call.changed:
                changed.write(path + b"\0")
                told.write(between + msgspec.json.encode(path_fields(path)))
                between = b","
            told.write(b"]}")


async def run_program(
    arguments: tuple[str, ...],
    stdin: int,
    environment: Mapping[str, str],
    timeout_ms: int,
    account: Account | None = None,
    mark: str | None = None,
    descriptors: tuple[int, ...] = (),
) -> Attempt:
    """Run to the end or the deadline. The exit of the program itself counts, not the exits of its children:
    a server that a reload hook starts may stay, unless the deadline passes; then the whole group goes.

    ``stdin`` is a descriptor, and the program inherits ``descriptors``. With a ``mark``, a text of the environment such
    as ``NAME=VALUE``, the processes that left the group go too when the program is ended or cancelled."""
    command = as_account(arguments, account)
    async with _Output.open() as output:
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=output.write_end,
                stderr=output.write_end,
                env=environment,
                cwd="/",
                start_new_session=True,
                pass_fds=descriptors,
            )
        except (OSError, ValueError) as error:
            what = error.strerror if isinstance(error, OSError) else str(error)
            return Attempt(f"{command[0]} cannot be started: {what}")
        output.close_write_end()
        try:
            async with asyncio.timeout(timeout_ms / 1000):
                status = await process.wait()
        except TimeoutError:
            ended = await _end(process, mark)
            reason = f"ran longer than {lasting(timeout_ms)} and was ended"
            return Attempt(reason if ended else f"{reason}, but is still there", output.tail())
        except BaseException:
            await asyncio.shield(_end(process, mark))
            raise
        await output.drain(DRAIN_S)
        return Attempt(_reason(status), output.tail(), status)


async def output_of(
    arguments: Sequence[str], given: bytes | None, within_s: float, *, errors: int
) -> tuple[int, bytes]:
    """Exit status and output of a program that reads ``given``; ``errors`` is where its error output goes. None for
    a program that reads nothing: writing to one that has ended already is an error of the event loop.
    ``TimeoutError`` after ``within_s``: its whole group is ended then."""
    process = await asyncio.create_subprocess_exec(
        *arguments,
        stdin=asyncio.subprocess.DEVNULL if given is None else asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=errors,
        env=dict(MINIMAL_ENVIRONMENT),
        cwd="/",
        start_new_session=True,
    )
    try:
        async with asyncio.timeout(within_s):
            told, _ = await process.communicate(given)
    finally:
        if process.returncode is None:
            _signal_group(process, signal.SIGKILL)
            await asyncio.shield(process.wait())
    return process.returncode or 0, told


def _reason(status: int) -> str:
    if status == 0:
        return ""
    if status > 0:
        return f"exited with {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


async def _end(process: asyncio.subprocess.Process, mark: str | None) -> bool:
    """SIGTERM to the group, then SIGKILL to whatever is left of it, at once when no caller waits any more: a daemon
    that stops leaves none behind. Whether the program is gone."""
    try:
        _signal_group(process, signal.SIGTERM)
        await _has_ended(process)
    finally:
        _signal_group(process, signal.SIGKILL)
        if mark is not None:
            await asyncio.to_thread(end_marked, mark)
        is_gone = await _has_ended(process)
    return is_gone


def _signal_group(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


async def _has_ended(process: asyncio.subprocess.Process) -> bool:
    try:
        async with asyncio.timeout(GRACE_S):
            await process.wait()
    except TimeoutError:
        return False
    return True


class _Output:
    """Both output streams on one pipe of our own, so that waiting for the program never waits for the pipe."""

    def __init__(self, read_end: int, write_end: int) -> None:
        self._read_end = read_end
        self.write_end = write_end
        self._kept = bytearray()
        self._ended = asyncio.Event()

    @classmethod
    @contextlib.asynccontextmanager
    async def open(cls) -> AsyncIterator[_Output]:
        read_end, write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(read_end, False)
        output = cls(read_end, write_end)
        loop = asyncio.get_running_loop()
        loop.add_reader(read_end, output._read)
        try:
            yield output
        finally:
            loop.remove_reader(read_end)
            os.close(read_end)
            output.close_write_end()

    def close_write_end(self) -> None:
        if self.write_end >= 0:
            os.close(self.write_end)
            self.write_end = -1

    def _read(self) -> None:
        try:
            piece = os.read(self._read_end, OUTPUT_KEPT)
        except BlockingIOError:
            return
        if piece:
            self._kept += piece
            del self._kept[:-OUTPUT_KEPT]
        else:
            asyncio.get_running_loop().remove_reader(self._read_end)
            self._ended.set()

    async def drain(self, timeout_s: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                await self._ended.wait()

    def tail(self) -> bytes:
        return bytes(self._kept)
