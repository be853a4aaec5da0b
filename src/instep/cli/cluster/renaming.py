"""``node rename``: new certificates first, then the markers, last the file: typed again, it goes on from anywhere."""

from __future__ import annotations

import asyncio
import time

from instep.cli.cluster.launch import start_daemon, stop_daemon
from instep.cli.control import DaemonDown
from instep.cli.session import Session
from instep.errors import InstepError, RefusedError, UnavailableError, UsageError
from instep.model.ids import NodeName
from instep.net.client import PeerClient
from instep.net.connections.tls import TlsContexts
from instep.net.messages.messages import RenewReply, RenewRequest
from instep.net.service import RENEW
from instep.net.trust.pki import Issued, Pki
from instep.node.config.editing import node_edits
from instep.node.config.settings import Settings
from instep.tree.root.marker import read_marker, rename_in_marker


def rename(session: Session, old: NodeName, new: NodeName, timeout_s: float) -> bool:
    """Give this node another name; whether anything changed. Its daemon is stopped meanwhile, if it runs."""
    node, settings = session.node, session.settings()
    if settings.name == new:
        return False
    pki = Pki(node.pki)
    _check(settings, pki, old, new)
    roots = {name: each.path for name, each in settings.filesets.items() if not each.observe}
    for root in roots.values():
        read_marker(root, node.owner)
    try:
        stop_daemon(session.control, timeout_s)
        has_run = True
    except DaemonDown:
        has_run = False
    try:
        reply = asyncio.run(_issued(settings, pki, new, timeout_s))
        issued = Issued(reply.tls_cert, reply.sign_cert)
        pki.install(new, pki.authorities_pem(), issued, pki.crl_pem())
        for name, root in roots.items():
            rename_in_marker(root, name, old, new, node.owner)
        node_edits.rename_node(node, old, new)
    finally:
        if has_run and session.settings().name == pki.name:  # one that is half renamed would not start
            start_daemon(node)
    return True


def _check(settings: Settings, pki: Pki, old: NodeName, new: NodeName) -> None:
    """``RefusedError`` with the way, where this node could not have another name."""
    if settings.name != old:
        if old not in settings.partners:
            raise UsageError(f"this node is {settings.name}, and it has no partner {old}", code="no_partner")
        raise RefusedError(
            f"this node is {settings.name}: {old} gets its new name itself",
            hint=f"on {old}: instep node rename {old} {new}",
            code="other_node",
        )
    written = next((name for name, each in settings.filesets.items() if each.is_written_here), None)
    if written is not None:
        raise RefusedError(
            f"{old} writes {written}, and its generations are signed under that name",
            hint=f"instep handover {written} NODE",
            code="still_writes",
            fileset=written,
        )
    if pki.is_ca:
        raise RefusedError(
            f"{old} holds the cluster's CA key, and every node dials it by this name",
            hint=f"it keeps the name; a new address is no other name: instep node set-address {old} HOST:PORT",
            code="holds_ca",
        )


async def _issued(settings: Settings, pki: Pki, new: NodeName, timeout_s: float) -> RenewReply:
    """Certificates for the new name, from the node that holds the CA key."""
    tls = TlsContexts(pki, lambda: int(time.time() * 1000))
    trouble: InstepError = UnavailableError("no partner is dialled that could renew", code="no_ca")
    for name, row in settings.partners.items():
        if row.address is None:
            continue
        client = PeerClient(tls, name, str(row.address))
        try:
            return await client.call(RENEW, RenewRequest(*pki.requests(new)), total_s=timeout_s)
        except InstepError as error:
            trouble = error if error.error_code != "no_ca" else trouble
        finally:
            await client.close()
    raise trouble
