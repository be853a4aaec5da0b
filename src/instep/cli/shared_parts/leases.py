"""``lease``: the rights of the cluster that one node holds at a time, and commands that run under one."""

from __future__ import annotations

import os

import click

from instep.api.shared_parts import leases as api
from instep.cli.output import coloured, moment, printable, say, table
from instep.cli.session import DURATION, Session, command, group
from instep.errors import UsageError

lease = group("lease", "Rights that one node of the cluster holds at a time, in the cluster's database.")
_COLOURS = {"held": "green", "broken": "red"}


@command("list", parent=lease, example="instep lease list")
def list_(session: Session) -> None:
    """Show who holds which lease, since when and until when, and how this node stands to the database."""
    document = session.call(api.LeaseListCommand(), 30.0)
    if session.gave_json(document):
        return
    table(
        [
            (
                one.name,
                coloured(one.state.upper(), _COLOURS.get(one.state, "yellow")),
                one.holder or "",
                f"until {moment(one.until)}" if one.until else "",
                f"fence {one.fence}",
                one.reason or "",
            )
            for one in document.leases
        ]
    )
    if not document.leases:
        print("no lease was ever held")
    for line in database_lines(document.database):
        print(line)


def database_lines(database: api.DatabaseDocument) -> list[str]:
    """The cluster's database in a line, and what to do where it needs a look."""
    if database.database is None:
        return ["cluster database: not needed on this node yet"]
    shown = printable(database.database)
    if not database.reached:
        lines = [
            f"cluster database {shown}: AWAY since {moment(database.since)}   {printable(database.reason)}"
        ]
        return [*lines, *(f"  next: {printable(step)}" for step in database.next)]
    quiet = f"; nothing changes hands until {moment(database.quiet_until)}" if database.quiet_until else ""
    return [f"cluster database {shown}: reached, era {database.era}{quiet}"]


@command("break", parent=lease, example='instep lease break nightly-index --reason "s2 is dead"')
@click.argument("lease_name", metavar="NAME")
@click.option("--reason", required=True, help="Why; events and the list show it.")
def break_(session: Session, lease_name: str, reason: str) -> None:
    """End a lease that a node holds: it is renewed no more, its holder is stopped, and then it is free."""
    document = session.call(api.LeaseBreakCommand(name=lease_name, reason=reason), 30.0)
    said = (
        f"{document.name}: broken; {document.holder} stops, and it is free at {moment(document.free_at)}"
        if document.changed
        else f"{document.name}: no node holds it; nothing to change"
    )
    session.show(document, said)


@command("check", parent=lease, example="instep lease check && /usr/local/bin/swap-index")
def check(session: Session) -> None:
    """Inside a command of `lease run`: exit 0 when the lease is in force at this moment, else 6.

    A step that must not come late asks right before it. Only what the step itself writes to can refuse one that comes
    later still, by INSTEP_LEASE_FENCE.
    """
    hold = os.environ.get("INSTEP_LEASE_HOLD", "")
    if not hold:
        session.node.require()
        raise UsageError(
            "this is not a command under a lease",
            code="no_lease_here",
            hint="run it inside: instep lease run NAME -- COMMAND",
        )
    document = session.call(api.LeaseCheckCommand(hold=hold), 15.0)
    session.show(document, f"{document.name}: in force, fence {document.fence}")


@command("run", parent=lease, example="instep lease run nightly-index -- /usr/local/bin/reindex --all")
@click.argument("lease_name", metavar="NAME")
@click.option("--wait", "is_waiting", is_flag=True, help="Wait while another holder has the lease.")
@click.option(
    "--timeout", "timeout_ms", type=DURATION, default=None, help="With --wait: give up after this time."
)
@click.option(
    "--ttl", "ttl_ms", type=DURATION, default="15s", show_default=True,
    help="How long the lease outlives a holder that is gone: 5s to 30s.",
)  # fmt: skip
@click.argument("program", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def run(
    session: Session,
    lease_name: str,
    is_waiting: bool,
    timeout_ms: int | None,
    ttl_ms: int,
    program: tuple[str, ...],
) -> None:
    """Run a command while this node holds the lease, and nowhere else meanwhile.

    The command's own exit code is passed on. It is stopped, with everything that it started, before the lease can be
    another node's: then the exit code is 6. INSTEP_LEASE and INSTEP_LEASE_FENCE name the lease to it.
    """
    from instep.cli.shared_parts.lease_command import run_under_lease

    asked = api.LeaseHoldCommand(name=lease_name, ttl_ms=_ttl(ttl_ms), wait=is_waiting)
    code = run_under_lease(session.control, session.node, asked, program, timeout_ms, say)
    raise click.exceptions.Exit(code)


def _ttl(ttl_ms: int) -> int:
    if not 5_000 <= ttl_ms <= 30_000:
        raise click.BadParameter("is not between 5s and 30s", param_hint="--ttl")
    return ttl_ms
