"""``test``: probes and golden answers, now."""

from __future__ import annotations

import click

from instep.cli.output import printable
from instep.cli.session import Session, command, pass_session, timeout_option
from instep.errors import RefusedError

__all__ = ["test"]


@command("test", example="instep test catalog --through-balancer")
@click.argument("fileset", required=False)
@click.option(
    "--through-balancer", is_flag=True, help="Ask the golden requests through the balancer as well."
)
@timeout_option("2m")
@pass_session
def test(session: Session, fileset: str | None, through_balancer: bool, timeout_ms: int) -> None:
    """Run the probe hooks and golden requests of a fileset now; nothing is changed. Exit 0 only when all are right."""
    document = session.call("test", timeout_ms / 1000, fileset=fileset, through_balancer=through_balancer)

    def text() -> None:
        for one in document["tests"]:
            where = "" if one["kind"] != "balancer" else "  through the balancer"
            if one["ok"]:
                how = "" if one["kind"] == "probe" else "  same answer" if one["compared"] else "  answers"
                print(f"ok    {printable(one['name'])} on {one['node']}{how}{where}")
            else:
                print(f"FAIL  {printable(one['name'])} on {one['node']}{where}  {printable(one['reason'])}")

    session.show(document, text)
    if not document["ok"]:
        raise click.exceptions.Exit(RefusedError.exit_code)
