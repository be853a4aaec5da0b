"""``lock``: change a file that lives elsewhere, as the only one."""

from __future__ import annotations

import os

import click

from instep.api.changes import locks as api
from instep.cli.output import moment, printable, table
from instep.cli.session import DURATION, Session, command, group

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
@click.option("--token", metavar="TOKEN", help="Give only the lock of this token its time anew.")
@owner_option
@client_option
def acquire(
    session: Session,
    fileset: str,
    path: str,
    ttl_ms: int,
    reason: str,
    token: str | None,
    owner: str | None,
    client: str,
) -> None:
    """Lock a path for you; again before its end gives it the whole time anew.

    Exit code 6: locked by another owner, or this node does not have the newest file yet.
    """
    shown, raw = path_and_bytes(path)
    document = session.call(
        api.LockCommand(
            path=shown,
            path_b64=raw,
            fileset=fileset,
            owner=owner,
            client=client,
            ttl_ms=ttl_ms,
            reason=reason,
            token=token,
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
    shown, raw = path_and_bytes(path)
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
    session.show(document, released_text(shown, document))


def released_text(shown: str, document: api.UnlockDocument) -> str:
    if document.outcome is None:
        return f"{printable(shown)} is released; nothing was left to submit"
    number = f" as generation {document.generation.number}" if document.generation is not None else ""
    why = f"; {document.reason}" if document.reason else ""
    return f"{printable(shown)} is released and submitted{number}: {document.outcome}{why}"


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
    shown, raw = path_and_bytes(path)
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


def path_and_bytes(path: str) -> tuple[str, bytes]:
    raw = os.fsencode(path)
    return raw.decode("utf-8", "replace"), raw
