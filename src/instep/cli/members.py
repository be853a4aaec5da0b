"""The cluster as this node sees it: ``invite``, ``node``, ``check``."""

from __future__ import annotations

import sys
from typing import Any

import click

from instep.cli.output import printable, say, table
from instep.cli.partners import link_options, read_network, shown_network
from instep.cli.session import DURATION, Session, command, group, pass_session, timeout_option
from instep.cli.topology import dot_lines, tree_lines
from instep.errors import RefusedError, UsageError

__all__ = ["check", "invite", "node"]


# invite -------------------------------------------------------------------------------------------------


@command("invite", example="TOKEN=$(instep invite s1 --from 10.20.0.2)")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@link_options(True)
@click.option(
    "--ttl", "ttl_ms", type=DURATION, default="1h", show_default=True, help="How long a token works, once."
)
@click.option("--from", "from_address", metavar="ADDR", help="Also allow peers from this address or network.")
@pass_session
def invite(
    session: Session,
    names: tuple[str, ...],
    replicate: bool,
    data: bool,
    hub: bool,
    ttl_ms: int,
    from_address: str | None,
) -> None:
    """Print a one-time token for each new node; the ready join line goes to stderr."""
    from instep.model.ids import node_name
    from instep.node.config import edits
    from instep.node.reachability import check_invitation, is_covered

    settings = session.settings()
    for name in names:
        if node_name(name) == settings.name:
            raise UsageError(f"{name} is this node itself", hint="choose another name", code="own_name")
    source = None if from_address is None else read_network(from_address)
    check_invitation(settings, names, source, session.node.path)
    if source is not None and not is_covered(settings.allow, source):
        session.control.call("ping", {}, timeout_s=5)
        edits.allow_networks(session.node, [shown_network(source)])
        session.reload()
    flags = {"replicate": replicate, "data": data and replicate, "hub": hub and replicate}
    tokens = [
        session.call("invite", 30.0, **{"name": name, "from": from_address, "ttl_s": ttl_ms / 1000, **flags})
        for name in names
    ]

    def text() -> None:
        for name, told in zip(names, tokens, strict=True):
            print(told["token"])
            say(f"on {name}, within {_shown(ttl_ms)}:")
            say(f"  instep join {told['token']} --start")

    sys.stdout.flush()
    session.show({"tokens": [{"name": name, **told} for name, told in zip(names, tokens, strict=True)]}, text)


def _shown(ms: int) -> str:
    from instep.node.config.values import shown_duration

    return shown_duration(ms)


# node ---------------------------------------------------------------------------------------------------

node = group("node", "The nodes of the cluster and what is known of them.")


@command("list", parent=node, example="instep node list --json")
@pass_session
def node_list(session: Session) -> None:
    """All nodes that this node knows, with address, fingerprint and standing."""
    document = session.call_or(lambda: _offline_nodes(session), "node_list")

    def text() -> None:
        rows = [
            (
                n["name"] + (" (this node)" if n.get("self") else ""),
                n.get("address"),
                n.get("standing"),
                n.get("pin"),
            )
            for n in document["nodes"]
        ]
        table(rows, ("node", "address", "standing", "fingerprint"))

    session.show(document, text)


def _offline_nodes(session: Session) -> dict[str, Any]:
    from instep.net.pki import Pki

    settings = session.settings()
    own = {
        "name": settings.name, "self": True, "address": str(settings.advertise),
        "pin": Pki(session.node.pki).pin, "facts": {}, "standing": "unknown",
    }  # fmt: skip
    others: list[dict[str, Any]] = [
        {
            "name": name, "self": False, "address": None if row.address is None else str(row.address),
            "pin": row.pin, "facts": {}, "standing": "unknown",
        }
        for name, row in settings.partners.items()
    ]  # fmt: skip
    return {"daemon": "stopped", "nodes": [own, *others]}


@command("map", parent=node, example="instep node map --dot | dot -Tsvg > cluster.svg")
@click.option("--dot", "as_dot", is_flag=True, help="A graph for Graphviz instead of a tree.")
@pass_session
def node_map(session: Session, as_dot: bool) -> None:
    """Draw who sends which fileset to whom, as this node sees it now."""
    document = session.call("node_map")
    session.show(document, lambda: print("\n".join(dot_lines(document) if as_dot else tree_lines(document))))


@command("facts", parent=node, example="instep node facts s1")
@click.argument("name", required=False)
@pass_session
def node_facts(session: Session, name: str | None) -> None:
    """The facts of a node, which gates compare."""
    document = session.call("node_facts", node=name)
    session.show(document, lambda: table(sorted(document.get("facts", {}).items()), ("fact", "value")))


@command("drain", parent=node, example='instep node drain --for 2h --reason "kernel update"')
@click.argument("name", required=False)
@click.option("--for", "for_ms", type=DURATION, help="End by itself after this time.")
@click.option("--reason", help="Shown in status.")
@pass_session
def node_drain(session: Session, name: str | None, for_ms: int | None, reason: str | None) -> None:
    """Say that a node should get no new work: this one, or a partner whose allow_drain names this one."""
    document = session.call("drain", node=name, for_s=_seconds(for_ms), reason=reason)
    session.show(document, lambda: print(f"{document.get('node', name or 'this node')} is drained"))


@command("undrain", parent=node, example="instep node undrain")
@click.argument("name", required=False)
@pass_session
def node_undrain(session: Session, name: str | None) -> None:
    """Take a drain back."""
    document = session.call("undrain", node=name)
    still = "still drained, for another reason" if document.get("drained") else "not drained"
    session.show(document, lambda: print(f"{document.get('node', name or 'this node')} is {still}"))


def _seconds(ms: int | None) -> float | None:
    return None if ms is None else ms / 1000


# check --------------------------------------------------------------------------------------------------


@command("check", example="instep check --json")
@timeout_option("1m")
@pass_session
def check(session: Session, timeout_ms: int) -> None:
    """Look at everything that must hold before work: exit 0 only when all of it does."""
    document = session.call("check", timeout_ms / 1000)

    def text() -> None:
        for one in document["checks"]:
            if one.get("ok"):
                note = f"  {one['note']}" if one.get("note") else ""
                print(printable(f"ok    {one['name']}{note}"))
                continue
            values = ", ".join(
                f"{side} {one[side]}" for side in ("ours", "theirs") if one.get(side) is not None
            )
            where = f" on {one['node']}" if one.get("node") else ""
            print(f"FAIL  {one['name']}{where}  {values}".rstrip())
            if one.get("hint"):
                print(f"      next: {one['hint']}")

    session.show(document, text)
    if not document["ok"]:
        raise click.exceptions.Exit(RefusedError.exit_code)
