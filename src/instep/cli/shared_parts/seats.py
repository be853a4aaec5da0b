"""Places that users take, counted once in the cluster: ``seat``."""

from __future__ import annotations

import click

from instep.api.shared_parts import seats as api
from instep.cli.output import moment, printable, say, table
from instep.cli.session import Session, command, group, timeout_option

seat = group("seat", "Places of a pool, taken by users and counted once in the cluster.")


@command("acquire", parent=seat, example="instep seat acquire editors ana")
@click.argument("pool")
@click.argument("user")
@timeout_option("30s")
def seat_acquire(session: Session, pool: str, user: str, timeout_ms: int) -> None:
    """Seat a user at this node. A user of several nodes takes one place.

    With the database away those who sit here go on for the pool's grace, and no new user sits down.
    """
    document = session.call(api.SeatAcquireCommand(pool, user), timeout_ms / 1000)
    if not session.gave_json(document):
        for server in document.servers:
            print(server)
        how = "has a place" if document.changed else "has a place already"
        count = "" if document.taken is None else f", {document.taken} of {document.places} are taken"
        say(f"{printable(user)} {how} in {pool}{count}")
        if document.until is not None:
            say(f"the database is away: the place is kept until {moment(document.until)}")


@command("release", parent=seat, example="instep seat release editors ana")
@click.argument("pool")
@click.argument("user")
@click.option("--all", "everywhere", is_flag=True, help="Every use on every node; the place is free at once.")
@timeout_option("30s")
def seat_release(session: Session, pool: str, user: str, everywhere: bool, timeout_ms: int) -> None:
    """End one use of a user at this node."""
    document = session.call(api.SeatReleaseCommand(pool, user, everywhere), timeout_ms / 1000)
    if not session.gave_json(document):
        say(f"{printable(user)} {'is released' if document.changed else 'had no place'} in {pool}")


@command("list", parent=seat, example="instep seat list")
def seat_list(session: Session) -> None:
    """The pools of the cluster, and the users who have their places."""
    document = session.call(api.SeatListCommand())
    if not session.gave_json(document):
        for pool in document.pools:
            nodes = ", ".join(pool.nodes)
            other = f"; other settings at {pool.differs_from}" if pool.differs_from else ""
            print(f"{pool.name}  {pool.taken} of {pool.places} places ({pool.kind}), on {nodes}{other}")
            rows = [(one.user, moment(one.since), _where(one), moment(one.until)) for one in pool.seats]
            if rows:
                table(rows, ("user", "since", "nodes", "until"))


def _where(seated: api.SeatDocument) -> str:
    uses = ", ".join(use.node if use.times == 1 else f"{use.node} {use.times} times" for use in seated.uses)
    return uses or "lingers"
