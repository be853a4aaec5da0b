"""Access to the panel and the REST API, and the record of commands: ``panel``, ``user``, ``token``, ``audit``."""

from __future__ import annotations

import stat
import sys
import time
from pathlib import Path

import click

from instep.api import access as api
from instep.api.command import Role
from instep.cli.output import first_line, moment, printable, say, table
from instep.cli.session import DURATION, EXISTING_FILE, Function, Session, command, group
from instep.errors import ConfigError, RefusedError, UsageError

panel = group("panel", "The web panel: sign in, see and end sessions.")
user = group("user", "Users of the panel on this node.")
token = group("token", "Tokens for programs that use the REST API of this node.")
_ROLES = click.Choice([role.value for role in Role])


def rights_options(function: Function) -> Function:
    """The role, and the filesets that it is limited to."""
    for option in (
        click.option("--fileset", "filesets", multiple=True, metavar="FILESET", help="Only this one; may be repeated."),
        click.option(
            "--role", type=_ROLES, default=Role.VIEWER.value, show_default=True,
            help="viewer looks, operator also acts, approver also approves, admin may all.",
        ),
    ):  # fmt: skip
        function = option(function)
    return function


def password_option(function: Function) -> Function:
    return click.option(
        "--password-file", "file", type=EXISTING_FILE, metavar="FILE",
        help="A file of mode 0600; else it is asked for, or read from the standard input.",
    )(function)  # fmt: skip


# Panel --------------------------------------------------------------------------------------------------


@command("login", parent=panel, example="instep panel login")
def panel_login(session: Session) -> None:
    """Print a link that signs in once, within a minute, as the person who asks for it."""
    told = session.call(api.PanelLoginCommand())
    if not session.gave_json(told):
        print(told.url, flush=True)
        say(f"It works once, until {moment(told.expires_at)}. Without scripts, paste this code: {told.code}")


@command("sessions", parent=panel, example="instep panel sessions")
def panel_sessions(session: Session) -> None:
    """All browsers that are signed in."""
    told = session.call(api.SessionListCommand())
    if not session.gave_json(told):
        rows = [
            (
                one.id[:12], one.name, one.role, _filesets(one.filesets), one.address, moment(one.seen_at),
                printable(one.agent),
            )
            for one in told.sessions
        ]  # fmt: skip
        table(rows, ("session", "person", "role", "filesets", "from", "last seen", "browser"))


@command("logout", parent=panel, example="instep panel logout ana")
@click.argument("person", required=False)
def panel_logout(session: Session, person: str | None) -> None:
    """End all sessions of a person, or of all persons."""
    told = session.call(api.SessionEndCommand(user=person))
    session.show(told, f"{told.ended} sessions ended" if told.ended != 1 else "1 session ended")


# Users --------------------------------------------------------------------------------------------------


@command("add", parent=user, example="instep user add ana --role operator --fileset catalog")
@click.argument("name")
@rights_options
@password_option
def user_add(session: Session, name: str, role: str, filesets: tuple[str, ...], file: Path | None) -> None:
    """Add a user, or give the one of that name another role; an existing user keeps the password without a file."""
    known = {one.name for one in session.call(api.UserListCommand()).users}
    password = None if name in known and file is None else _password(session, file)
    asked = api.UserAddCommand(name=name, password=password, given=Role(role), filesets=filesets or None)
    told = session.call(asked)
    session.show(told, f"{name} is a user, as {role}" if told.changed else f"{name}: nothing to change")


@command("list", parent=user, example="instep user list")
def user_list(session: Session) -> None:
    """All users of this node's panel."""
    told = session.call(api.UserListCommand())
    if not session.gave_json(told):
        rows = [
            (
                one.name, one.role, _filesets(one.filesets), moment(one.created_at), moment(one.signed_in_at),
                printable(one.provider or "a password"),
            )
            for one in told.users
        ]  # fmt: skip
        table(rows, ("name", "role", "filesets", "created", "signed in", "by"))


@command("passwd", parent=user, example="instep user passwd ana")
@click.argument("name")
@password_option
def user_passwd(session: Session, name: str, file: Path | None) -> None:
    """Give a user another password; the user's sessions end."""
    if name not in {one.name for one in session.call(api.UserListCommand()).users}:
        raise RefusedError(f"there is no user {name}", hint=f"instep user add {name}", code="no_user")
    told = session.call(api.UserPasswordCommand(name=name, password=_password(session, file)))
    session.show(told, f"{name} has a new password; sessions that ended: {told.sessions}")


@command("remove", parent=user, example="instep user remove ana")
@click.argument("name")
def user_remove(session: Session, name: str) -> None:
    """Remove a user, and end the user's sessions and tokens."""
    told = session.call(api.UserRemoveCommand(name=name))
    tokens = f"; tokens that ended: {', '.join(told.tokens)}" if told.tokens else ""
    session.show(told, f"{name} is removed{tokens}" if told.changed else f"there is no user {name}")


def _password(session: Session, file: Path | None) -> str:
    """Never an argument: other users of this machine see those."""
    if file is not None:
        mode = stat.S_IMODE(file.stat().st_mode)
        if mode & 0o077:
            raise ConfigError(
                f"{file} may be read by others (mode {mode:04o})",
                hint=f"chmod 600 {file}",
                code="secret_mode",
            )
        typed = file.read_text("utf-8").rstrip("\n")
    elif sys.stdin.isatty() and not session.is_json:
        typed = str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    else:
        typed = sys.stdin.readline().rstrip("\n")
    if not api.PASSWORD_MIN <= len(typed) <= api.PASSWORD_MAX:
        raise UsageError(
            f"a password has {api.PASSWORD_MIN} to {api.PASSWORD_MAX} characters",
            hint="type a longer one, or --password-file FILE",
            code="bad_password",
        )
    return typed


# Tokens -------------------------------------------------------------------------------------------------


@command(
    "create",
    parent=token,
    example="TOKEN=$(instep token create deploy --role operator --fileset catalog --ttl 30d)",
)
@click.argument("name")
@rights_options
@click.option("--ttl", "ttl_ms", type=DURATION, help="How long it works; without, until it is revoked.")
def token_create(
    session: Session, name: str, role: str, filesets: tuple[str, ...], ttl_ms: int | None
) -> None:
    """Make a token and print it, this once."""
    ttl_s = None if ttl_ms is None else ttl_ms / 1000
    told = session.call(
        api.TokenCreateCommand(name=name, given=Role(role), filesets=filesets or None, ttl_s=ttl_s)
    )
    session.show(told, told.token)


@command("list", parent=token, example="instep token list")
def token_list(session: Session) -> None:
    """All tokens of this node, without their secrets."""
    told = session.call(api.TokenListCommand())
    if not session.gave_json(told):
        rows = [
            (
                one.name, one.role, _filesets(one.filesets), one.created_by, moment(one.created_at),
                moment(one.expires_at), moment(one.used_at),
            )
            for one in told.tokens
        ]  # fmt: skip
        table(rows, ("name", "role", "filesets", "belongs to", "created", "ends", "used"))


@command("revoke", parent=token, example="instep token revoke deploy")
@click.argument("name")
def token_revoke(session: Session, name: str) -> None:
    """End a token at once."""
    told = session.call(api.TokenRevokeCommand(name=name))
    session.show(told, f"{name} is revoked" if told.changed else f"there is no token {name}")


# Audit --------------------------------------------------------------------------------------------------


@command("audit", example="instep audit --since 1d")
@click.option("--since", "since_ms", type=DURATION, default="1d", show_default=True, help="How far back.")
@click.option("--limit", type=click.IntRange(1, 1_000), default=200, show_default=True, help="Most rows.")
def audit(session: Session, since_ms: int, limit: int) -> None:
    """The commands that changed anything, or were refused: who, from where, why, and how each ended."""
    begin_ms = max(0, int(time.time() * 1000) - since_ms)
    told = session.call(api.AuditCommand(since_ms=begin_ms, limit=limit))
    if not session.gave_json(told):
        rows = [
            (
                moment(one.at), f"{one.who} ({one.role})", f"{one.door} {one.address}".strip(), one.command,
                one.fileset, one.outcome + (f": {one.code}" if one.code else ""), first_line(one.reason or ""),
            )
            for one in reversed(told.rows)
        ]  # fmt: skip
        table(rows, ("at", "who", "from", "command", "fileset", "outcome", "reason"))


def _filesets(named: tuple[str, ...] | None) -> str:
    return "all" if named is None else ", ".join(named)
