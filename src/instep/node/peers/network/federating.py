"""The joining side of a link between clusters, on a node directory: ``join`` needs no daemon."""

from __future__ import annotations

import asyncio
import time

from instep.errors import RefusedError
from instep.net.client import federate
from instep.net.messages import messages as m
from instep.net.trust.certs import Purpose, der_of, fingerprint_bytes
from instep.net.trust.decoding import certificate_of_der
from instep.net.trust.pki import Pki
from instep.net.trust.tokens import Invitation
from instep.node.config.editing import edits
from instep.node.config.loading import load
from instep.node.directory import NodeDirectory
from instep.node.peers.network.federation import require_free_name


def is_federated(node: NodeDirectory, invitation: Invitation) -> bool:
    """Whether this token links a node of another cluster. ``RefusedError`` where it could not: ``no_node``,
    ``same_cluster``, ``other_cluster``."""
    inviter, name = invitation.inviter, invitation.name
    pki = Pki(node.pki)
    if not node.holds_node or not pki.has_certificates:
        if invitation.is_federation:
            raise RefusedError(
                f"this token links a node of another cluster, and {node.path} holds no node yet",
                hint=f"instep --dir {node.path} init {name} --start; then the same join again",
                code="no_node",
            )
        return False
    is_ours = any(fingerprint_bytes(ca) == invitation.ca for ca in pki.authorities())
    if is_ours and invitation.is_federation:
        raise RefusedError(
            f"{inviter} is of the same cluster as {name}",
            hint=f"list it: instep partner set {inviter} --address HOST:PORT",
            code="same_cluster",
        )
    if not is_ours and not invitation.pin:
        raise RefusedError(
            f"{name} belongs to another cluster than {inviter}, whose instep is too old to link it by a token",
            hint=f"trust its key instead: instep partner add {inviter} ADDRESS --pin FINGERPRINT",
            code="other_cluster",
        )
    return not is_ours


def join_other_cluster(
    node: NodeDirectory, invitation: Invitation, known_at: str, timeout_s: float
) -> tuple[m.Offer, ...]:
    """Pin the inviting node's keys, and list it with zeros. ``known_at`` is the address at which it may dial this node,
    or empty. The pin comes first: a row without it would trust nothing, and the same command goes on."""
    pki, settings = Pki(node.pki), load(node.path)
    inviter = invitation.inviter
    row = settings.partners.get(inviter)
    is_issued = pki.is_ca and pki.has_issued(inviter, time.time_ns() // 1_000_000)
    is_ours = inviter == settings.name or (row is not None and row.pin is None and row.address is not None)
    require_free_name(inviter, is_ours=is_ours or is_issued)
    tls_csr, sign_csr = pki.requests(invitation.name)
    request = m.FederateRequest(
        name=invitation.name,
        token_id=invitation.token_id,
        secret=invitation.secret,
        tls_csr=tls_csr,
        sign_csr=sign_csr,
        chain=tuple(map(der_of, (pki.certificate(Purpose.TLS), *pki.authorities()[:1]))),
        address=known_at,
    )
    found = asyncio.run(federate(invitation, request, total_s=timeout_s))
    pki.pins.pin(invitation.inviter, [certificate_of_der(der) for der in found.chain])
    pki.pins.keep_sign_key(invitation.inviter, found.reply.sign_key)
    edits.set_partner(node, invitation.inviter, {"address": found.address, "pin": invitation.pin.hex()})
    return found.reply.offers
