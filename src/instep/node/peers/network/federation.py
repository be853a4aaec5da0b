"""Nodes of other clusters: each side of a federated link trusts the other's keys, by a token or by a pin."""

from __future__ import annotations

from collections.abc import Callable

from cryptography import x509

from instep.errors import NotAllowedError, PeerError, RefusedError
from instep.model.address import parse_address, why_not_plain_host
from instep.model.ids import NodeName
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.trust.certs import Purpose, check_request, name_of, pin_of, pin_of_key, raw_of_key
from instep.net.trust.decoding import certificate_of_der, require_loadable
from instep.node.config.editing import edits
from instep.node.peers.network.invitations import Invitations
from instep.node.peers.presence import dialled_at
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime


class Federation:
    """The inviting side of a link between two clusters."""

    def __init__(
        self,
        runtime: Runtime,
        tls: TlsContexts,
        invitations: Invitations,
        is_ours: Callable[[NodeName], bool],
    ) -> None:
        """``is_ours``: whether a node of this cluster has a name."""
        self._is_ours = is_ours
        self._runtime = runtime
        self._tls = tls
        self._invitations = invitations

    def accept(
        self,
        request: m.FederateRequest,
        seen_at: str,
        offers: tuple[m.Offer, ...],
        settings_changed: Callable[[], None],
    ) -> m.FederateReply:
        """Turn a token into a link: the other node's keys are pinned here, and it is a partner with the token's
        rights."""
        runtime, now, name = self._runtime, wall_ms(), request.name
        book = self._invitations.book()
        chain = _proven_chain(request)
        pin = pin_of(chain[0])
        sign_key = raw_of_key(check_request(request.sign_csr, name, Purpose.SIGN))
        try:
            invite = book.check(request.token_id, request.secret, name, now, pin=pin)
            require_free_name(name, is_ours=self._is_ours(name))
        except (NotAllowedError, RefusedError) as error:
            text = f"{seen_at} asked to be linked as {name}: {error.reason}"
            runtime.note_of_peer(seen_at, "join_refused", text, code=error.error_code, address=seen_at)
            raise
        link = invite.link
        row: dict[str, object] = {"replicate": link.replicate, "data": link.data, "hub": link.hub, "pin": pin}
        if told := dialled_at(request.address, seen_at):
            row["address"] = told
        edits.set_partner(runtime.directory, name, row)
        runtime.pki.pins.pin(name, chain)
        runtime.pki.pins.keep_sign_key(name, sign_key)
        book.use(request.token_id, now, pin=pin)
        self._invitations.save(book)
        self._tls.reload()
        settings_changed()
        runtime.note("federated", f"{name} of another cluster is linked from {seen_at}", name=name, pin=pin)
        return m.FederateReply(runtime.name, runtime.pki.sign_key, offers)


def _proven_chain(request: m.FederateRequest) -> list[x509.Certificate]:
    """The certificates of a request whose key the signing request proves, and whose address can be dialled."""
    proven = pin_of_key(check_request(request.tls_csr, request.name, Purpose.TLS))
    chain = [certificate_of_der(der) for der in request.chain]
    require_loadable(chain)
    if pin_of(chain[0]) != proven or name_of(chain[0], Purpose.TLS) != request.name:
        raise PeerError(
            "the certificate is not of the node and the key that ask to be linked", code="bad_request"
        )
    address = parse_address(request.address)
    if request.address and (address is None or address.is_wildcard or why_not_plain_host(address.host)):
        raise PeerError(f"{request.address[:100]!r} is no address to dial", code="bad_request")
    return chain


def require_free_name(name: NodeName, *, is_ours: bool) -> None:
    """``RefusedError`` ``name_taken`` when a node of this cluster has the name: names of nodes stand for keys, and a
    pin would hide that node."""
    if is_ours:
        raise RefusedError(
            f"{name} is a node of this cluster already, so the one of the other cluster cannot have this name here",
            hint="link another node of that cluster, or one of the two gets another name, on it: instep node rename "
            f"{name} NEW",
            code="name_taken",
            name=name,
        )
