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
_PENDING = "renaming/"
"""Before the name of a node: the new one that it has asked for. It may ask for one only."""


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
        # The list that the CA signs names the old one: that, and no node's word, takes it out of the others' files.
        runtime.pki.revoke(old, wall_ms(), for_good=True)
        runtime.store.delete(key)
        runtime.store.delete(f"{_PENDING}{old}")
        return True

    def revoked(self, who: NodeName) -> None:
        """A node is trusted no more: the name that it has asked for goes with it."""
        runtime, key = self._runtime, f"{_PENDING}{who}"
        raw = runtime.store.get(key)
        if raw is None:
            return
        new = NodeName(raw.decode())
        runtime.pki.revoke(new, wall_ms(), for_good=True)
        self._membership.removed(new)
        runtime.store.delete(f"{_RENAMED}{new}")
        runtime.store.delete(key)

    def _check(self, name: NodeName, who: NodeName, lines: tuple[LineService, ...]) -> None:
        written = next((service.fileset.name for service in lines if service.writer == who), None)
        if written is not None:
            raise RefusedError(
                f"{who} writes {written}, and its generations are signed under that name",
                hint=f"on {who}: instep handover {written} {self._runtime.name}",
                code="still_writes",
                fileset=written,
            )
        asked = self._runtime.store.get(f"{_PENDING}{who}")
        if asked == name.encode():
            return
        if asked is not None:
            pending = asked.decode()
            raise RefusedError(
                f"{who} has begun to be {pending}, so it cannot be {name}",
                hint=f"on {who}: instep node rename {who} {pending}",
                code="rename_begun",
                name=name,
            )
        if self._is_taken(name):
            raise RefusedError(
                f"another node is, was or will be {name}, or instep.toml of {self._runtime.name} names it",
                hint="choose a free name",
                code="name_taken",
                name=name,
            )

    def _is_taken(self, name: NodeName) -> bool:
        """Whether the name has, had or will have a right of its own."""
        runtime = self._runtime
        known = {
            *runtime.settings.partners,
            *self._membership.members,
            runtime.name,
            *runtime.pki.crl().names,
        }
        known |= {*runtime.pki.pins.certificates(), *(record.name for record in runtime.pki.records())}
        for fileset in runtime.settings.filesets.values():
            known |= {fileset.writer, *(fileset.to or ())}
        for balancer in runtime.settings.balancers.values():
            known |= {*(balancer.nodes or ()), *balancer.backends}
        return (
            name in known
            or name in runtime.settings.allow_drain
            or self._membership.invitations.is_invited(name)
        )

    def _begin(self, old: NodeName, new: NodeName) -> None:
        row = self._runtime.settings.partners[old]
        flags = {"replicate": row.replicate, "data": row.data, "hub": row.hub}
        address = {"address": str(row.address)} if row.address is not None else {}
        self._runtime.store.put(f"{_PENDING}{old}", new.encode())
        self._runtime.store.put(f"{_RENAMED}{new}", old.encode())
        edits.set_partner(self._runtime.directory, new, {**flags, **address})
        self._membership.settings_changed()
