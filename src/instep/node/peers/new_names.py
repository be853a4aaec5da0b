"""Certificates for nodes that have some already, at the node that holds the CA key: renewed, or for another name."""

from __future__ import annotations

import msgspec

from instep.errors import RefusedError
from instep.model.ids import NodeName
from instep.net.messages import messages as m
from instep.net.trust.certs import name_in_request
from instep.node.config.editing import edits
from instep.node.lines.line_service import LineService
from instep.node.peers.membership import Membership
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime

_RENAMED = "renamed/"
"""Before the new name of a node: its name until it connects under the new one."""


class NewNames:
    """One per node; both names of a node count until it connects under the new one."""

    def __init__(self, runtime: Runtime, membership: Membership) -> None:
        self._runtime = runtime
        self._membership = membership

    def renew(self, who: NodeName, request: m.RenewRequest, lines: tuple[LineService, ...]) -> m.RenewReply:
        """New certificates for ``who``, under the name that its request has. ``lines`` are those of this node."""
        runtime = self._runtime
        if not runtime.pki.is_ca:
            raise RefusedError(f"{runtime.name} does not hold the CA key", code="no_ca")
        name = name_in_request(request.tls_csr)
        if name != who:
            self._check(name, who, lines)
        issued = runtime.pki.issue(name, request.tls_csr, request.sign_csr, wall_ms())
        if name != who:
            self._begin(who, name)
        runtime.note_of_peer(who, "renewed", f"{who} got new certificates", name=who)
        return m.RenewReply(issued.tls, issued.sign, runtime.pki.authorities_pem())

    def finish(self, new: NodeName) -> bool:
        """The node is connected under its new name: the old one is over, here and at every node that hears of it."""
        runtime, members, key = self._runtime, self._membership.members, f"{_RENAMED}{new}"
        raw = runtime.store.get(key)
        if raw is None:
            return False
        old = NodeName(raw.decode())
        known = members.get(old) or m.Member(new, "", "")
        self._membership.take(msgspec.structs.replace(known, name=new, formerly=old, updated_ms=wall_ms()))
        self._membership.renamed(old, new)
        runtime.pki.revoke(old, wall_ms())
        runtime.store.delete(key)
        return True

    def _check(self, name: NodeName, who: NodeName, lines: tuple[LineService, ...]) -> None:
        written = next((service.fileset.name for service in lines if service.writer == who), None)
        if written is not None:
            raise RefusedError(
                f"{who} writes {written}, and its generations are signed under that name",
                hint=f"on {who}: instep handover {written} {self._runtime.name}",
                code="still_writes",
                fileset=written,
            )
        known = {*self._runtime.settings.partners, *self._membership.members, self._runtime.name}
        if name in known and self._runtime.store.get(f"{_RENAMED}{name}") != who.encode():
            raise RefusedError(
                f"another node is {name}", hint="choose a free name", code="name_taken", name=name
            )

    def _begin(self, old: NodeName, new: NodeName) -> None:
        row = self._runtime.settings.partners[old]
        flags = {"replicate": row.replicate, "data": row.data, "hub": row.hub}
        address = {"address": str(row.address)} if row.address is not None else {}
        self._runtime.store.put(f"{_RENAMED}{new}", old.encode())
        edits.set_partner(self._runtime.directory, new, {**flags, **address})
        self._membership.settings_changed()
