"""Applications that run on one node only: ``standby run``."""

from __future__ import annotations

import signal
import threading

import click

from instep.api.shared_parts import leases as api
from instep.cli.output import say
from instep.cli.session import Session, command, group
from instep.errors import InstepError

standby = group("standby", "Applications that run on one node of the cluster only.")
AGAIN_S = 2.0
_GOES_ON = ("lease_lost", "daemon_ended", "daemon_down", "fenced", "maintenance")
"""After these the node stands by again."""
_HANDLED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


@command("run", parent=standby, example="instep standby run deploy -- /opt/deploy/bin/server run")
@click.argument("service")
@click.argument("program", metavar="COMMAND...", nargs=-1, required=True, type=click.UNPROCESSED)
def run(session: Session, service: str, program: tuple[str, ...]) -> None:
    """Stand by until no other node runs the service, then run the command, and nowhere else meanwhile.

    Before it starts, the other nodes are kept away as [standby.SERVICE] says. When the lease is lost the command is
    stopped, and this node stands by again. Its exit code is passed on when it ends by itself.
    """
    from instep.cli.shared_parts.lease_command import run_under_lease

    control = session.control
    asked = api.LeaseHoldCommand(name=f"standby:{service}", wait=True)
    control.ask(api.LeaseListCommand(), timeout_s=30.0)

    def fence(hold: str) -> None:
        document = control.ask(api.StandbyFenceCommand(hold=hold, service=service), timeout_s=90.0)
        for role in document.roles:
            say(f"instep: {role} cannot log in any more")

    told = ""
    while True:
        try:
            code = run_under_lease(control, session.node, asked, program, None, say, fence)
        except InstepError as error:
            if error.error_code not in _GOES_ON:
                raise
            if error.reason != told:
                say(f"instep: {service} stands by: {error.reason}")
            told = error.reason
        else:
            raise click.exceptions.Exit(code)
        for number in _HANDLED:
            signal.signal(number, signal.SIG_DFL)
        threading.Event().wait(AGAIN_S)
