"""``lock`` and ``edit``: change a file that lives elsewhere, as the only one."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import click

from instep.api.changes import locks as api
from instep.cli.filesets.edited_file import EditedFile
from instep.cli.output import moment, printable, say, table
from instep.cli.session import DURATION, Session, command, group
from instep.errors import InstepError, UnavailableError, UsageError

EDIT_TTL_MS = 3_600_000
"""The time of the lock of ``edit``, which is given anew while the editor runs."""
REFRESH_S = 600.0

lock = group("lock", "Locks of single paths, granted by the node that writes the fileset.")
client_option = click.option(
    "--client", default="", metavar="NAME", help="The program that holds it; two programs share no lock."
)
owner_option = click.option(
    "--owner", metavar="USER", help="The person that holds it; root and the node's own user may name others."
)


@command("acquire", parent=lock, example="instep lock acquire catalog styles/roads.sld --ttl 30m")
@click.argument("fileset")
@click.argument("path")
@click.option("--ttl", "ttl_ms", type=DURATION, default="10m", show_default=True, help="Its time.")
@click.option("--reason", default="", help="Shown to others who want it.")
@owner_option
@client_option
def acquire(
    session: Session, fileset: str, path: str, ttl_ms: int, reason: str, owner: str | None, client: str
) -> None:
    """Lock a path for you; again before its end gives it the whole time anew.

    Exit code 6: locked by another owner, or this node does not have the newest file yet.
    """
    shown, raw = _path(path)
    document = session.call(
        api.LockCommand(
            path=shown,
            path_b64=raw,
            fileset=fileset,
            owner=owner,
            client=client,
            ttl_ms=ttl_ms,
            reason=reason,
        )
    )
    session.show(
        document, f"{printable(shown)} is locked for {document.owner} until {moment(document.until)}"
    )


@command("release", parent=lock, example="instep lock release catalog styles/roads.sld -m 'wider roads'")
@click.argument("fileset")
@click.argument("path")
@click.option("-m", "--message", default="", help="Why it was changed, for the log.")
@click.option("--token", metavar="TOKEN", help="End only the lock of this token.")
@owner_option
@client_option
def release(
    session: Session, fileset: str, path: str, message: str, token: str | None, owner: str | None, client: str
) -> None:
    """Submit what you changed at the path and end the lock, in one act.

    Exit code 6: the change was not made, for the reason that is printed; it is in this node's archive.
    """
    shown, raw = _path(path)
    document = session.call(
        api.UnlockCommand(
            path=shown,
            path_b64=raw,
            fileset=fileset,
            owner=owner,
            client=client,
            token=token,
            message=message,
        )
    )
    session.show(document, _released(shown, document))


def _released(shown: str, document: api.UnlockDocument) -> str:
    if document.outcome is None:
        return f"{printable(shown)} is released; nothing was left to submit"
    number = f" as generation {document.generation.number}" if document.generation is not None else ""
    return f"{printable(shown)} is released and submitted{number}: {document.outcome}"


@command("list", parent=lock, example="instep lock list catalog")
@click.argument("fileset", required=False)
def list_(session: Session, fileset: str | None) -> None:
    """Show the locks in force, asked at the homes of the filesets."""
    document = session.call(api.LocksCommand(fileset))
    if session.gave_json(document):
        return
    rows = [
        (each.fileset, each.path, each.owner, each.client or "-", moment(each.until), each.reason)
        for each in document.locks
    ]
    table(rows, ("fileset", "path", "owner", "program", "until", "reason"))
    if not rows:
        print("no locks")
    for name in document.unreachable:
        print(f"{name}: its home cannot be reached")


@command(
    "break", parent=lock, example="instep lock break catalog styles/roads.sld --reason 'left for the day'"
)
@click.argument("fileset")
@click.argument("path")
@click.option("--reason", required=True, help="Sent to the owner.")
@click.option("--steal", "steals", is_flag=True, help="Lock it for you in the same act.")
@click.option(
    "--ttl", "ttl_ms", type=DURATION, default="10m", show_default=True, help="Its time, with --steal."
)
@owner_option
@client_option
def break_(
    session: Session,
    fileset: str,
    path: str,
    reason: str,
    steals: bool,
    ttl_ms: int,
    owner: str | None,
    client: str,
) -> None:
    """End another owner's lock; its owner gets the name of the person and the reason."""
    shown, raw = _path(path)
    document = session.call(
        api.BreakLockCommand(
            path=shown,
            path_b64=raw,
            reason=reason,
            fileset=fileset,
            owner=owner,
            client=client,
            ttl_ms=ttl_ms,
            steals=steals,
        )
    )
    whose = f"; it is yours until {moment(document.lock.until)}" if document.lock is not None else ""
    session.show(document, f"the lock of {printable(shown)} is broken{whose}")


@command("edit", example="instep edit catalog styles/roads.sld")
@click.argument("fileset")
@click.argument("path")
@click.option("-m", "--message", default="", help="Why it was changed, for the log.")
def edit(session: Session, fileset: str, path: str, message: str) -> None:
    """Lock a path, open a copy of it in $VISUAL or $EDITOR, submit it, release it.

    The copy is laid into the tree when the editor ends, also when it fails; then the lock is released.
    """
    root = _root(session, fileset)
    shown, raw = _path(path)
    client = f"edit {os.getpid()}"
    asking = api.LockCommand(
        path=shown, path_b64=raw, fileset=fileset, client=client, ttl_ms=EDIT_TTL_MS, reason="edited"
    )
    session.call(asking)
    code = _edited(session, asking, root, os.fsencode(path))
    done = session.call(
        api.UnlockCommand(path=shown, path_b64=raw, fileset=fileset, client=client, message=message)
    )
    if code != 0:
        raise UnavailableError(
            f"the editor ended with code {code}; {_released(shown, done)}", code="editor_failed"
        )
    session.show(done, _released(shown, done))


def _edited(session: Session, asking: api.LockCommand, root: Path, path: bytes) -> int:
    """Run the editor on a copy; the lock gets its whole time again while it runs. The editor opens nothing of the tree
    itself: another node decides where its links lead."""
    with tempfile.TemporaryDirectory(prefix="instep-edit-") as folder:
        copy = Path(folder, os.fsdecode(path.rpartition(b"/")[2]))
        try:
            with EditedFile(root, path) as file:
                file.copy_to(copy)
                code = _run_editor(session, asking, copy)
                file.take_back(copy)
        except InstepError:
            session.call(_giving_up(asking))
            raise
    return code


def _run_editor(session: Session, asking: api.LockCommand, file: Path) -> int:
    words = _editor()
    try:
        running = subprocess.Popen([*words, str(file)])
    except OSError as error:
        raise UsageError(
            f"the editor {words[0]} cannot be started: {error.strerror}",
            hint="export EDITOR=vi",
            code="no_editor",
        ) from error
    while True:
        try:
            return running.wait(REFRESH_S)
        except subprocess.TimeoutExpired:
            try:
                session.call(asking)
            except InstepError as error:
                say(
                    f"instep: {error.reason}; save elsewhere, or go on: the file is compared when it is submitted"
                )


def _giving_up(asking: api.LockCommand) -> api.UnlockCommand:
    return api.UnlockCommand(
        path=asking.path, path_b64=asking.path_b64, fileset=asking.fileset, client=asking.client
    )


def _editor() -> list[str]:
    """The words of $VISUAL or $EDITOR, without a shell."""
    for name in ("VISUAL", "EDITOR"):
        try:
            words = shlex.split(os.environ.get(name, ""))
        except ValueError as error:
            raise UsageError(
                f"${name} cannot be read: {error}", hint=f"export {name}=vi", code="no_editor"
            ) from error
        if words:
            return words
    return ["vi"]


def _root(session: Session, fileset: str) -> Path:
    from instep.node.lines.snapshot import pick_fileset

    return pick_fileset(session.settings(), fileset).path


def _path(path: str) -> tuple[str, bytes]:
    raw = os.fsencode(path)
    return raw.decode("utf-8", "replace"), raw
