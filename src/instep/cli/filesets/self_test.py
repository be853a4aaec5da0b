"""``test``: probes and golden answers, now."""

from __future__ import annotations

import click

from instep.api import verifying as api
from instep.cli.output import printable
from instep.cli.session import Session, command, timeout_option
from instep.errors import RefusedError


@command("test", example="instep test catalog --fleet --through-balancer")
@click.argument("fileset", required=False)
@click.option(
    "--through-balancer", is_flag=True, help="Ask the golden requests through the balancer as well."
)
@click.option(
    "--node", "nodes", multiple=True, metavar="NODE", help="Test on these partners; run it on the writer."
)
@click.option("--fleet", is_flag=True, help="Test here and on every partner, and compare the answers.")
@timeout_option("2m")
def test(
    session: Session,
    fileset: str | None,
    through_balancer: bool,
    nodes: tuple[str, ...],
    fleet: bool,
    timeout_ms: int,
) -> None:
    """Run the probe hooks and golden requests of a fileset now; nothing is changed. Exit 0 only when all are right."""
    asked = api.TestCommand(fileset, through_balancer=through_balancer, nodes=nodes, fleet=fleet)
    document = session.call(asked, timeout_ms / 1000)
    session.show(document, map(_line, document.tests))
    if not document.ok:
        raise click.exceptions.Exit(RefusedError.exit_code)


def _line(one: api.TestDocument) -> str:
    where = f"on {one.node}" + (" through the balancer" if one.kind == "balancer" else "")
    what = f"{printable(one.name)} {where}"
    if not one.ok:
        return f"FAIL  {what}  {printable(one.reason)}"
    return f"ok    {what}" + ("  same answer as before" if one.compared else "")
