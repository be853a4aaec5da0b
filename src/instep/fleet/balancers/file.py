"""A rendered file on its way to a balancer: read by the balancer's own parser, then put where the balancer looks."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from instep.errors import RefusedError, ResourceError, UnavailableError
from instep.fleet.balancers.plan import MARK
from instep.fleet.hooks.run import MINIMAL_ENVIRONMENT, output_of
from instep.fleet.scratch import scratch_folder
from instep.model.counts import sized

CHECK_S = 30.0
OUTPUT_KEPT = 8 << 10
FILE_BYTES_MAX = 16 << 20
PREVIOUS = ".previous"
"""Added to the name of the file that was there before."""


class Program(Enum):
    """Which file is rendered."""

    HAPROXY = "haproxy"
    NGINX = "nginx"
    PROXY_MAP = "proxy-map"


@dataclass(frozen=True, slots=True)
class FileVerdict:
    """The parser's verdict. ``command`` is None where there is nothing to ask."""

    command: tuple[str, ...] | None
    output: str = ""


_AROUND = {
    Program.HAPROXY: "defaults\n    timeout connect 5s\n    timeout client 60s\n    timeout server 60s\n",
    Program.NGINX: (
        "events {{}}\nhttp {{\n    access_log off;\n"
        "    server_names_hash_bucket_size 256;\n    map_hash_bucket_size 256;\n"
        "    variables_hash_bucket_size 256;\n    include {file};\n}}\n"
    ),
}
"""The text around a file that holds only the backend, for the parser."""


async def check_file(
    program: Program, text: str, *, is_whole: bool, command: Sequence[str] | None = None
) -> FileVerdict:
    """Let the balancer's parser read ``text``. ``command`` is the operator's own, with ``{file}`` in it.

    ``RefusedError`` (``balancer_refused``) with its words when it does not like it, ``UnavailableError`` when
    there is no parser on this machine (``no_parser``) or it does not end within ``CHECK_S`` seconds.
    """
    if program is Program.PROXY_MAP and command is None:
        return FileVerdict(None)
    try:
        with scratch_folder() as folder:
            file, around = folder / "rendered.conf", folder / "around.conf"
            file.write_bytes(_readable(program, text, command).encode("utf-8", "surrogateescape"))
            if program in _AROUND:
                around.write_text(_AROUND[program].format(file=file))
            arguments = _arguments(program, is_whole, file, around, command)
            output = await _run(program, arguments)
    except OSError as error:
        raise ResourceError(f"the rendered file could not be checked: {error.strerror or error}") from error
    shown = tuple(word.replace(str(folder), "...") for word in arguments)
    return FileVerdict(shown, output.replace(str(folder), "..."))


def _readable(program: Program, text: str, command: Sequence[str] | None) -> str:
    """nginx opens its logs when it checks, which not every user may do: the file is read without its default one."""
    if program is Program.NGINX and command is None:
        return text.replace("\nhttp {\n", "\nhttp {\n    access_log off;\n", 1)
    return text


def _arguments(
    program: Program, is_whole: bool, file: Path, around: Path, command: Sequence[str] | None
) -> list[str]:
    if command is not None:
        return [word.replace("{file}", str(file)) for word in command]
    if program is Program.HAPROXY:
        return ["haproxy", "-c", *([] if is_whole else ["-f", str(around)]), "-f", str(file)]
    # Neither its log nor its pid file is touched: a user who may not write there can check, too.
    apart = f"error_log stderr; pid {file.parent}/nginx.pid;"
    return ["nginx", "-t", "-q", "-g", apart, "-c", str(file if is_whole else around)]


async def _run(program: Program, arguments: list[str]) -> str:
    found = (
        arguments[0]
        if arguments[0].startswith("/")
        else shutil.which(arguments[0], path=MINIMAL_ENVIRONMENT["PATH"])
    )
    if found is None or not os.access(found, os.X_OK):
        raise UnavailableError(
            f"{arguments[0]} is not on this machine, so nothing can read the file for {program.value}",
            hint=f"install {program.value} here, or name its parser with check in [balancers]",
            code="no_parser",
            program=arguments[0],
        )
    command = (found, *arguments[1:])
    try:
        status, raw = await output_of(command, None, CHECK_S, errors=asyncio.subprocess.STDOUT)
    except TimeoutError as error:
        raise UnavailableError(
            f"{arguments[0]} did not end within {CHECK_S:g} s", code="timeout", program=arguments[0]
        ) from error
    output = raw[-OUTPUT_KEPT:].decode("utf-8", "replace").strip()
    if status != 0:
        raise RefusedError(
            f"{arguments[0]} refuses the rendered file (exit code {status})",
            hint="nothing was changed; look at its output",
            code="balancer_refused",
            program=arguments[0],
            exit=status,
            last_lines=output.splitlines()[-20:],
        )
    return output


def read_kept(path: Path) -> str | None:
    """The file that is there now, None when there is none. ``ResourceError`` when it cannot be read."""
    try:
        with path.open("rb") as file:
            raw = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise ResourceError(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    if len(raw) > FILE_BYTES_MAX:
        raise ResourceError(f"{path} is larger than {sized(FILE_BYTES_MAX)}", path=str(path))
    return raw.decode("utf-8", "surrogateescape")


def keep_file(
    path: Path,
    text: str,
    *,
    may_replace: bool = False,
    is_shared: bool = False,
    keeps_previous: bool = True,
) -> bool:
    """Put ``text`` at ``path`` in one step, with the owner and mode of the file before, which stays beside it
    as ``.previous``; whether anything changed. A symbolic link stays one.

    ``RefusedError`` (``not_ours``) for a file that was not rendered, unless it ``may_replace`` that or
    ``is_shared``: only lines of it are ours. ``ResourceError`` when it cannot be written.
    """
    real = Path(os.path.realpath(path))
    before = read_kept(real)
    if before == text:
        return False
    if before is not None and before.strip() and MARK not in before[:4096] and not (may_replace or is_shared):
        raise RefusedError(
            f"{path} was not rendered by instep and is not overwritten",
            hint="once, with --replace; the present file stays beside it as .previous",
            code="not_ours",
            path=str(path),
        )
    try:
        about = os.stat(real) if before is not None else None
        if before is not None and keeps_previous:
            _write(real.with_name(real.name + PREVIOUS), before, about)
        _write(real, text, about)
    except OSError as error:
        raise ResourceError(f"{path} cannot be written: {error.strerror}", path=str(path)) from error
    return True


def _write(path: Path, text: str, like: os.stat_result | None) -> None:
    mode = stat.S_IMODE(like.st_mode) if like is not None else 0o644
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode("utf-8", "surrogateescape"))
            if like is not None and (like.st_uid, like.st_gid) != (os.geteuid(), os.getegid()):
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
            os.fchmod(file.fileno(), mode)
            file.flush()
            os.fsync(file.fileno())
        os.rename(name, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(name)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
