"""The cluster as this node sees it: ``invite``, ``node``, ``check``."""

from __future__ import annotations

from shlex import quote

import click
from msgspec import UNSET

from instep.api import members as api
from instep.api.command import as_json
from instep.api.looking import PingCommand
from instep.api.verifying import CheckCommand
from instep.cli.arguments import read_address, read_network
from instep.cli.cluster.partners import link_options, offline_partners, require_known, shown_network
from instep.cli.cluster.topology import dot_lines, tree_lines
from instep.cli.control import DaemonDown
from instep.cli.output import moment, printable, say, table
from instep.cli.session import (
    DURATION,
    Session,
    command,
    daemon_word,
    group,
    max_behind_option,
    timeout_option,
)
from instep.errors import RefusedError, ResourceError, UsageError
from instep.model.ids import node_name
from instep.model.link import Link
from instep.node.config.settings import Settings
from instep.node.config.values import shown_duration


@command("invite", example="TOKEN=$(instep invite s1 --from 10.20.0.2)")
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@link_options(True)
@click.option(
    "--ttl", "ttl_ms", type=DURATION, default="1h", show_default=True, help="How long a token works, once."
)
@click.option("--from", "from_address", metavar="ADDR", help="Also allow peers from this address or network.")
@click.option(
    "--other-cluster", is_flag=True, help="Only for a node that exists in another cluster: link it."
)
@timeout_option("30s")
def invite(
    session: Session,
    names: tuple[str, ...],
    replicate: bool,
    data: bool,
    hub: bool,
    ttl_ms: int,
    from_address: str | None,
    other_cluster: bool,
    timeout_ms: int,
) -> None:
    """Print a one-time token for each new node; the ready join line goes to stderr.

    A node that exists in another cluster is linked by its keys and gets no certificate; with --other-cluster the
    token is good for such a node alone, and any node can make it.
    """
    from instep.node.config.editing import edits
    from instep.node.peers.reachability import check_invitation, is_covered

    settings = session.settings()
    for name in names:
        if node_name(name) == settings.name:
            raise UsageError(f"{name} is this node itself", hint="choose another name", code="own_name")
    source = None if from_address is None else read_network(from_address)
    check_invitation(settings, names, source, session.node.path)
    if source is not None and not is_covered(settings.allow, source):
        session.control.ask(PingCommand(), timeout_s=5)
        edits.allow_networks(session.node, [shown_network(source)])
        session.reload()
    data, hub, ttl_s = data and replicate, hub and replicate, ttl_ms / 1000
    asked = {
        name: api.InviteCommand(
            name, replicate=replicate, data=data, hub=hub, ttl_s=ttl_s, other_cluster=other_cluster
        )
        for name in names
    }
    tokens = {name: session.call(command, timeout_ms / 1000) for name, command in asked.items()}

    if not session.gave_json({"tokens": [{"name": name, **as_json(told)} for name, told in tokens.items()]}):
        for name, told in tokens.items():
            print(told.token, flush=True)
            if told.warning:
                say(f"warning: {told.warning}")
            say(f"on {name}, within {shown_duration(ttl_ms)}:")
            say(
                f"  instep join {told.token}{_accepts(settings, name, replicate=replicate, data=data)} --start"
            )


def _accepts(settings: Settings, name: str, *, replicate: bool, data: bool) -> str:
    """The filesets that the new node may have from here, at the paths that they have here."""
    link = Link(replicate=replicate, data=data, hub=False)
    offered = [
        f"{one.name}={one.path}"
        for one in settings.filesets.values()
        if one.definition is not None
        and one.offers_to(node_name(name))
        and link.lets(one.definition.fileset_class, own_line=True)
    ]
    return "".join(f" --accept {quote(each)}" for each in offered)


node = group("node", "The nodes of the cluster, their facts and how they stand.")


@command("list", parent=node, example="instep node list --json")
def node_list(session: Session) -> None:
    """All nodes that this node knows, with address, fingerprint and standing."""
    document = session.call_or(lambda: _offline_nodes(session), api.NodeListCommand(facts=True))
    if not session.gave_json(document):
        rows = [
            (
                n.name + (" (this node)" if n.self else ""), _where(n), _stands(n), n.pin,
                ", ".join(f"{key} {value}" for key, value in n.facts.items() if not n.self),
            )
            for n in document.nodes
        ]  # fmt: skip
        table(rows, ("node", "address", "standing", "fingerprint", "facts"))


def _stands(row: api.NodeRowDocument) -> str:
    """Its standing, and what keeps work from it."""
    if row.revoked_at:
        return f"revoked {moment(row.revoked_at)}"
    why = f": {'; '.join(row.drains)}" if row.drains else ""
    return f"{row.standing}, drained{why}" if row.drained else row.standing


def _where(row: api.NodeRowDocument) -> str | None:
    return row.address or (f"{row.seen_at}, dials only" if row.seen_at else None)


def _offline_nodes(session: Session) -> api.NodesDocument:
    from instep.net.trust.pki import Pki

    settings = session.settings()
    own = (settings.name, True, str(settings.advertise), Pki(session.node.pki).pin)
    others = (
        (name, False, None if row.address is None else str(row.address), row.pin)
        for name, row in settings.partners.items()
    )
    rows = (api.NodeRowDocument(*row, {}, "unknown") for row in (own, *others))
    return api.NodesDocument(daemon="stopped", nodes=tuple(rows))


@command("map", parent=node, example="instep node map --dot | dot -Tsvg > cluster.svg")
@click.option("--dot", "as_dot", is_flag=True, help="A graph for Graphviz instead of a tree.")
def node_map(session: Session, as_dot: bool) -> None:
    """Draw which node sends which fileset to which, as this node sees it now."""
    document = session.call(api.NodeMapCommand())
    session.show(document, dot_lines(document) if as_dot else tree_lines(document))


@command("facts", parent=node, example="instep node facts s1")
@click.argument("name", required=False)
def node_facts(session: Session, name: str | None) -> None:
    """The facts of a node, which gates compare."""
    document = session.call(api.NodeFactsCommand(name))
    if not session.gave_json(document):
        table(sorted(document.facts.items()), ("fact", "value"))


@command("set-address", parent=node, example="instep node set-address main 10.20.0.9:7443")
@click.argument("name")
@click.argument("address", metavar="HOST:PORT")
def node_set_address(session: Session, name: str, address: str) -> None:
    """Say where a node is dialled: this one, and then its partners follow; or a partner that has moved.

    Where this node listens goes along when nothing would answer at the new address otherwise.
    """
    from instep.node.config.editing import edits

    settings, at = session.settings(), read_address(address, "HOST:PORT")
    if at.is_wildcard:
        raise UsageError(f"{at} cannot be dialled", hint="name an address of the machine", code="bad_address")
    if node_name(name) != settings.name:
        _set_address_of_partner(session, name, str(at))
        return
    try:
        known = session.call(api.PartnerListCommand(), 10.0).partners
    except DaemonDown:
        known = offline_partners(session).partners
    was, before = settings.advertise, edits.own_address(session.node)
    changed = edits.set_own_address(session.node, at)
    reloaded = session.reload() if changed else None
    settings = session.settings()
    if reloaded is not None and reloaded.listens not in (UNSET, str(settings.listen)):
        edits.put_back(session.node, before)
        session.reload()
        raise ResourceError(
            f"this node cannot listen on {settings.listen}, so its address stays {was}: "
            f"{'; '.join(reloaded.troubles)}",
            hint=f"free the port, or name another one: instep node set-address {name} HOST:PORT",
            code="cannot_listen",
        )
    steps = [f"on {p.name}: instep node set-address {name} {at}" for p in known if not p.reachable]
    if not at.is_loopback and not settings.allow:
        steps.insert(0, "peers may connect from this machine only: instep allow add CIDR")
    told, steps = ([p.name for p in known if p.reachable], steps) if changed else ([], [])
    document = {
        "node": name, "address": str(at), "listen": str(settings.listen), "changed": changed,
        "daemon": daemon_word(changed, reloaded), "told": told, "next": steps,
    }  # fmt: skip
    lines = [f"{name} is dialled at {at}, and listens on {settings.listen}"]
    lines += [f"  told: {', '.join(told)}"] if told else []
    session.show(document, (*lines, *(f"  next: {step}" for step in steps)))


def _set_address_of_partner(session: Session, name: str, at: str) -> None:
    """Dial another node at this address; one that dials here has no address to set."""
    from instep.node.config.editing import edits

    row = session.settings().partners.get(node_name(name))
    if row is not None and row.address is None and row.link.replicate:
        raise RefusedError(
            f"{name} dials this node, which needs no address of it",
            hint=f"on {name}: instep node set-address {name} {at}",
            code="dials_here",
            node=name,
        )
    require_known(session, name)
    changed = edits.set_partner(session.node, name, {"address": at})
    session.show_change({"partner": name}, changed, f"{name} is dialled at {at}")


@command("remove", parent=node, example="instep node remove s2")
@click.argument("name")
def node_remove(session: Session, name: str) -> None:
    """Take a node out of the cluster for good: its certificates are revoked, and every node forgets it.

    Nothing on that node is touched. A server of the same name can be invited again.
    """
    document = session.call(api.NodeRemoveCommand(name), 60.0)
    session.show(document, f"{name} is removed" if document.changed else f"{name} was removed already")


@command("rename", parent=node, example="instep node rename s1 web1")
@click.argument("name")
@click.argument("new", metavar="NEW")
@timeout_option("60s")
def node_rename(session: Session, name: str, new: str, timeout_ms: int) -> None:
    """Give this node another name: it gets certificates for it, and the other nodes use it in their files.

    The daemon is stopped and started. A node that writes a fileset or holds the CA key keeps its name. Files, archive
    and rights stay.
    """
    from instep.cli.cluster.renaming import rename

    changed = rename(session, node_name(name), node_name(new), timeout_ms / 1000)
    document = {"name": new, "before": name, "changed": changed}
    session.show(document, f"{name} is {new}" if changed else f"this node is {new} already")


@command("drain", parent=node, example='instep node drain --for 2h --reason "kernel update"')
@click.argument("name", required=False)
@click.option("--for", "for_ms", type=DURATION, help="End by itself after this time.")
@click.option("--reason", help="Shown in status.")
def node_drain(session: Session, name: str | None, for_ms: int | None, reason: str | None) -> None:
    """Say that a node should get no new work: this one, or a partner whose allow_drain names this one."""
    for_s = None if for_ms is None else for_ms / 1000
    document = session.call(api.DrainCommand(name, for_s, reason))
    session.show(document, f"{document.node} is drained")


@command("undrain", parent=node, example="instep node undrain")
@click.argument("name", required=False)
def node_undrain(session: Session, name: str | None) -> None:
    """Take a drain back."""
    document = session.call(api.UndrainCommand(name))
    still = "still drained, for another reason" if document.drained else "not drained"
    session.show(document, f"{document.node} is {still}")


@command("check", example="instep check --json")
@max_behind_option
@timeout_option("1m")
def check(session: Session, max_behind_ms: int | None, timeout_ms: int) -> None:
    """Check all conditions for work; exit 0 only when all of them hold."""
    document = session.call(CheckCommand(max_behind_ms=max_behind_ms), timeout_ms / 1000)
    if not session.gave_json(document):
        for one in document.checks:
            if one.ok:
                note = f"  {one.note}" if one.note else ""
                print(printable(f"ok    {one.name}{note}"))
                continue
            sides = (("ours", one.ours), ("theirs", one.theirs))
            values = ", ".join(f"{side} {value}" for side, value in sides if value is not None)
            print(f"FAIL  {one.name} on {one.node}  {values}".rstrip())
            if one.hint:
                print(f"      next: {one.hint}")
    if not document.ok:
        raise click.exceptions.Exit(RefusedError.exit_code)
