"""The partners of this node with their rights, and the addresses that may connect: ``partner`` and ``allow``."""

from __future__ import annotations

from collections.abc import Callable

import click

from instep.api import members as api
from instep.cli.arguments import read_network
from instep.cli.control import DaemonDown
from instep.cli.filesets.forgetting import totals_of_home
from instep.cli.output import moment, say, table
from instep.cli.session import Function, Session, command, daemon_word, group, timeout_option
from instep.errors import UsageError
from instep.model.counts import counted
from instep.model.ids import node_name
from instep.node.config import values
from instep.node.config.kinds import BadValue


def link_options(default: bool | None) -> Callable[[Function], Function]:
    """``--replicate``, ``--data``, ``--hub`` and their opposites; None keeps what is set."""

    def add(function: Function) -> Function:
        flags = (
            ("hub", "Also give it filesets that other nodes wrote.", None if default is None else False),
            ("data", "Also give it filesets of class data.", default),
            ("replicate", "Give it this node's filesets.", default),
        )
        for flag, text, value in flags:
            function = click.option(f"--{flag}/--no-{flag}", flag, default=value, help=text)(function)
        return function

    return add


def shown_network(network: values.IpNetwork) -> str:
    """A single address without its mask, as people write it."""
    return str(network.network_address) if network.num_addresses == 1 else str(network)


partner = group("partner", "The partners of this node, and the rights of each.")


@command("list", parent=partner, example="instep partner list")
def partner_list(session: Session) -> None:
    """Every partner with its flags, when it last was in contact, and why not."""
    document = session.call_or(lambda: offline_partners(session), api.PartnerListCommand())
    if not session.gave_json(document):
        rows = [
            (
                p.name, p.address or "dials here",
                *("yes" if flag else "no" for flag in (p.replicate, p.data, p.hub)),
                moment(p.last_checked), "yes" if p.reachable else "no", p.reason,
            )
            for p in document.partners
        ]  # fmt: skip
        table(rows, ("partner", "address", "replicate", "data", "hub", "last checked", "reachable", "reason"))


def offline_partners(session: Session) -> api.PartnersDocument:
    rows = (
        api.PartnerRowDocument(
            name, None if row.address is None else str(row.address), row.link.replicate, row.link.data,
            row.link.hub, None, False, "this node's daemon is stopped",
        )
        for name, row in session.settings().partners.items()
    )  # fmt: skip
    return api.PartnersDocument(daemon="stopped", partners=tuple(rows))


@command("set", parent=partner, example="instep partner set s1 --hub --no-data")
@click.argument("name")
@link_options(None)
@click.option("--address", "at", metavar="HOST:PORT", help="Where to dial it; empty: it dials here.")
@click.option(
    "--introduces/--no-introduces",
    default=None,
    help="Believe its word about the keys of nodes of other clusters, whose filesets it passes on.",
)
@click.option("--poll", metavar="10m|off", help="How often this node asks it for news.")
def partner_set(
    session: Session,
    name: str,
    replicate: bool | None,
    data: bool | None,
    hub: bool | None,
    at: str | None,
    introduces: bool | None,
    poll: str | None,
) -> None:
    """Change the rights of a partner; a member of the cluster that is no partner yet becomes one."""
    from instep.node.config.editing import edits

    wanted_poll = {} if poll is None else {"poll": _own_poll(poll)}
    require_known(session, name)
    given: dict[str, object] = {
        key: value
        for key, value in (("replicate", replicate), ("data", data), ("hub", hub), ("introduces", introduces))
        if value is not None
    }
    if at is not None:
        given["address"] = at or None
    given |= wanted_poll
    if not given:
        raise UsageError("nothing to set", hint=f"instep partner set {name} --hub", code="nothing_to_set")
    session.show_change({"partner": name}, edits.set_partner(session.node, name, given), f"{name} is set")


def _own_poll(text: str) -> str:
    try:
        values.own_poll(text)
    except BadValue as error:
        raise UsageError(f"--poll {text!r} {error}", hint="--poll 10m", code="bad_value") from None
    return text


def require_known(session: Session, name: str) -> None:
    """``UsageError`` for a name that this node could not verify."""
    if name not in session.settings().partners and not _is_member(session, name):
        raise UsageError(
            f"{name} is neither a partner of this node nor a member of its cluster that it has heard of",
            hint=f"instep invite {name}; or: instep partner add {name} ADDRESS --pin FINGERPRINT",
            code="no_partner",
        )


def _is_member(session: Session, name: str) -> bool:
    """Whether the daemon has heard of this node as one of its cluster, which need not be invited again."""
    try:
        nodes = session.call(api.NodeListCommand(), 10.0).nodes
    except DaemonDown:
        return False
    return any(node.name == name and not node.self and node.pin is not None for node in nodes)


@command("remove", parent=partner, example="instep partner remove s1")
@click.argument("name")
@click.option("--dry-run", is_flag=True, help="Show what this node has of it, and change nothing.")
def partner_remove(session: Session, name: str, dry_run: bool) -> None:
    """Take a node from the list; it gets nothing more.

    A node of this cluster keeps its certificate: see instep pki revoke. The keys of a node of another cluster
    are trusted no more. Its files in filesets of many homes stay here until instep fileset forget-line.
    """
    from instep.net.trust.pki import Pki
    from instep.node.config.editing import edits

    stays = totals_of_home(session, name)
    if not session.is_json:
        for one in stays:
            what = f"{counted(one.paths, 'path')} of {name} in {one.fileset}"
            print(f"{what} stay here; let them go: instep fileset forget-line {one.fileset} {name}")
    if dry_run:
        kept = [{"fileset": one.fileset, "paths": one.paths, "bytes": one.bytes} for one in stays]
        would = node_name(name) in session.settings().partners
        document = {"partner": name, "changed": would, "dry_run": True, "stays": kept}
        session.show(document, f"{name} would be no partner any more" if would else f"{name} is no partner")
        return
    changed = edits.remove_partner(session.node, name)
    changed = Pki(session.node.pki).pins.unpin(node_name(name)) or changed
    session.show_change({"partner": name}, changed, f"{name} is no partner any more")


@command("resend", parent=partner, example="instep partner resend s1")
@click.argument("name")
def partner_resend(session: Session, name: str) -> None:
    """Announce every head to a partner again, as if it had just connected."""
    document = session.call(api.PartnerResendCommand(name))
    session.show(document, f"heads were announced to {name}")


@command("poll", parent=partner, example="instep partner poll s1")
@click.argument("name")
@timeout_option("30s")
def partner_poll(session: Session, name: str, timeout_ms: int) -> None:
    """Ask a partner for its newest heads now, without waiting for the poll interval."""
    document = session.call(api.PartnerPollCommand(name), timeout_ms / 1000)
    lines, newer = counted(document.lines, "line"), document.newer
    session.show(document, f"{name} was asked about {lines}: {newer or 'no'} newer")


@command("add", parent=partner, example="instep partner add k1 10.30.0.1:7443 --pin 3f5a...c2")
@click.argument("name")
@click.argument("address")
@click.option(
    "--pin", required=True, metavar="FINGERPRINT", help="SHA-256 of its public key; there: instep node list."
)
@link_options(True)
@timeout_option("30s")
def partner_add(
    session: Session,
    name: str,
    address: str,
    pin: str,
    replicate: bool,
    data: bool,
    hub: bool,
    timeout_ms: int,
) -> None:
    """List a node of another cluster, trusted by its key alone. Do the same on the other side."""
    try:
        at, key = values.address(address), values.fingerprint(pin)
    except BadValue as error:
        raise UsageError(f"{address if 'HOST' in str(error) else pin!r} {error}", code="bad_value") from None
    data, hub = data and replicate, hub and replicate
    asked = api.PartnerAddCommand(name, str(at), key, replicate=replicate, data=data, hub=hub)
    document = session.call(asked, timeout_ms / 1000)
    session.show(document, f"{name} is a partner")


allow = group("allow", "The addresses from which peers may connect.")


def _show_allow(session: Session, changed: bool, reloaded: object) -> None:
    networks = [str(one) for one in session.settings().allow]
    document = {"allow": networks, "changed": changed, "daemon": daemon_word(changed, reloaded)}
    session.show(document, "\n".join(networks) or "only this machine: allow is empty")


@command("list", parent=allow, example="instep allow list")
def allow_list(session: Session) -> None:
    """The networks from which peers may connect."""
    networks = [str(one) for one in session.settings().allow]
    session.show({"allow": networks}, "\n".join(networks) or "only this machine: allow is empty")


@command("add", parent=allow, example="instep allow add 10.20.0.0/16")
@click.argument("networks", nargs=-1, required=True, metavar="CIDR...")
def allow_add(session: Session, networks: tuple[str, ...]) -> None:
    """Let peers connect from a network or address."""
    from instep.node.config.editing import edits

    was_empty = not session.settings().allow
    changed = edits.allow_networks(session.node, [shown_network(read_network(one)) for one in networks])
    if changed and was_empty and not any(one.is_loopback for one in session.settings().allow):
        say("instep: nodes on this machine may no longer connect; to keep them: instep allow add 127.0.0.0/8")
    _show_allow(session, changed, session.reload() if changed else None)


@command("remove", parent=allow, example="instep allow remove 10.20.0.0/16")
@click.argument("networks", nargs=-1, required=True, metavar="CIDR...")
def allow_remove(session: Session, networks: tuple[str, ...]) -> None:
    """Cut peers from a network off; open connections from there are closed."""
    from instep.node.config.editing import edits

    wanted = [read_network(one) for one in networks]
    changed = edits.disallow_networks(session.node, wanted)
    _show_allow(session, changed, session.reload() if changed else None)
