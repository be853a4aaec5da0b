"""The passphrase of a backup of keys: read from a file or a terminal, or made here and shown once."""

from __future__ import annotations

import secrets
import stat
import sys
from pathlib import Path

import click

from instep.cli.session import EXISTING_FILE, Function, Session
from instep.errors import ConfigError, UsageError

_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"


def read_passphrase(session: Session, file: Path | None, *, is_new: bool) -> tuple[bytes, str | None]:
    """The passphrase, and the same as text when it was made here and must be shown once."""
    if file is not None:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"{file} may be read by others (mode {mode:04o})",
                hint=f"chmod 600 {file}",
                code="secret_mode",
            )
        return file.read_bytes().rstrip(b"\n"), None
    if sys.stdin.isatty() and not session.is_json:
        typed = click.prompt("Passphrase", hide_input=True, confirmation_prompt=is_new, err=True)
        return str(typed).encode(), None
    if not is_new:
        raise UsageError("the passphrase is missing", hint="--passphrase-file FILE", code="no_passphrase")
    made = made_passphrase()
    return made.encode(), made


def made_passphrase() -> str:
    """A new one of about 118 bits, in letters and digits that are not mistaken for each other."""
    return "-".join("".join(secrets.choice(_LETTERS) for _ in range(6)) for _ in range(4))


def passphrase_option(function: Function) -> Function:
    return click.option(
        "--passphrase-file",
        type=EXISTING_FILE,
        metavar="FILE",
        help="A file of mode 0600; else it is asked for, or made and shown once where there is no terminal.",
    )(function)
