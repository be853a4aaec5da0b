"""``init``, ``start``, ``stop``, ``serve``, ``readonly``: a node begins, runs, takes no edits, and ends."""

from __future__ import annotations

import os
import time
from shlex import quote
from typing import Any

import click

from instep.api.members import ReadOnlyCommand
from instep.cli.cluster import addresses
from instep.cli.cluster.addresses import new_node_options
from instep.cli.cluster.launch import start_daemon, stop_daemon
from instep.cli.cluster.service import NodeService, enable, place_of_new_node
from instep.cli.control import DaemonDown
from instep.cli.output import printable
from instep.cli.session import Session, command, group, service_option, timeout_option
from instep.errors import RefusedError
from instep.node.directory import user_name


@command(
    "init",
    example="""instep init main --advertise 10.20.0.1:7443 --allow 10.20.0.0/16 --start
instep --dir /tmp/a init a --listen 127.0.0.1:7001 --start""",
)
@click.argument("name", required=False)
@new_node_options
@service_option
def init(
    session: Session,
    name: str | None,
    listen: str | None,
    advertise: str | None,
    panel: str | None,
    allow: tuple[str, ...],
    is_started: bool,
    has_service: bool,
) -> None:
    """Make this machine the first node of a new cluster.

    Makes the node directory, the cluster's certificate authority and this node's keys. Without --listen the
    node listens on loopback; with an --advertise address that is not loopback, on all interfaces, where only
    the networks of --allow get through. Where systemd runs and root asks, the node lies in /var/lib/instep, and
    its unit is installed and enabled.
    """
    from instep.net.trust.pki import Pki
    from instep.node.config.editing import edits
    from instep.node.runtime.state import make_state
    from instep.node.upkeep.after_reboot import Host

    node = place_of_new_node(session, has_service=has_service)
    chosen = addresses.choose(node, name, listen, advertise, panel, allow)
    if not node.holds_node:
        node.create()
        make_state(node)
    changed = edits.create(node, chosen.top)
    pki = Pki.create(node.pki, chosen.name, chosen.name, int(time.time() * 1000))
    document: dict[str, Any] = {
        "node": chosen.name, "directory": str(node.path), "listen": str(chosen.listen),
        "advertise": str(chosen.advertise), "allow": list(chosen.allow), "pin": pki.pin, "changed": changed,
        "panel": chosen.panel, "next": chosen.next_steps(node),
    }  # fmt: skip
    service = enable(node, Host()) if has_service else NodeService()
    document["service"] = service.document
    if is_started:
        from instep.cli.cluster.launch import start_daemon

        document["started"] = start_daemon(node)
    if not session.gave_json(document):
        print(f"node {chosen.name} in {node.path}" + ("" if changed else " (was there already)"))
        print(f"  listens on {chosen.listen}, others dial {chosen.advertise}")
        print(f"  peers may connect from {', '.join(chosen.allow) or 'this machine only'}")
        if chosen.panel != "off":
            print(
                f"  the panel answers on {chosen.panel}; sign in: instep --dir {quote(str(node.path))} panel login"
            )
        print(f"  fingerprint {pki.pin}")
        if is_started:
            print("  the daemon runs")
        if service.line is not None:
            print(service.line)
        for step in document["next"]:
            print(f"  next: {step}")


@command("start", example="instep start")
@timeout_option("60s")
def start(session: Session, timeout_ms: int) -> None:
    """Start the daemon: by systemd where a unit is installed for this node, else detached."""
    node = session.node
    node.require()
    session.settings()
    changed = start_daemon(node, timeout_ms / 1000)
    document = {"directory": str(node.path), "running": True, "changed": changed}
    session.show(document, "the daemon runs" if changed else "the daemon runs already")


@command("stop", example="instep stop --timeout 1m")
@timeout_option("30s")
def stop(session: Session, timeout_ms: int) -> None:
    """Stop the daemon; the next start finishes or resumes its work."""
    node = session.node
    node.require()
    try:
        stop_daemon(session.control, timeout_ms / 1000)
        changed = True
    except DaemonDown:
        changed = False
    document = {"directory": str(node.path), "running": False, "changed": changed}
    session.show(document, "the daemon has stopped" if changed else "no daemon was running")


@command("serve", example="instep --dir /srv/instep serve")
def serve(session: Session) -> None:
    """Run the daemon in the foreground until it is interrupted."""
    node = session.node
    node.require()
    if node.owner is not None and not os.environ.get("INVOCATION_ID"):  # a unit says which user it means
        user = user_name(node.owner[0])
        raise RefusedError(
            f"root would run the node of {user}, and leave files there that {user} cannot read",
            hint=f"sudo -u {user} instep --dir {quote(str(node.path))} serve",
            code="daemon_of_root",
            user=user,
        )
    from instep.daemon.process import run

    run(node.path)


readonly = group(
    "readonly", "This node takes no edits for a while, its own or others', and goes on following and serving."
)


def _read_only(session: Session, asked: ReadOnlyCommand) -> None:
    document = session.call(asked)
    if not session.gave_json(document):
        if not document.on:
            print(f"{document.node} takes edits" + ("" if document.changed else ", as before"))
            return
        why = f": {document.reason}" if document.reason else ""
        print(printable(f"{document.node} is read-only since {document.since}, by {document.by}{why}"))
        print("  what is written here is not published; locks, offers and sync runs are refused")
        print("  next: instep readonly off")


@command("on", parent=readonly, example='instep readonly on --reason "stocktaking"')
@click.option(
    "--reason", default="", metavar="TEXT", help="Shown by status, and to each node that is refused."
)
def readonly_on(session: Session, reason: str) -> None:
    """Publish nothing that is written here, and refuse locks, offers and sync runs by name, until it is ended.

    Filesets that are followed go on. Restarts change nothing.
    """
    _read_only(session, ReadOnlyCommand(on=True, reason=reason))


@command("off", parent=readonly, example="instep readonly off")
@click.option("--reason", default="", metavar="TEXT", help="Kept in events and audit.")
def readonly_off(session: Session, reason: str) -> None:
    """Take edits again: changes that waited are published and offered at once."""
    _read_only(session, ReadOnlyCommand(on=False, reason=reason))
