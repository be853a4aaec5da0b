"""Membership of the cluster: joins, renewals, revocations, and members' reports about each other."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from instep.errors import InstepError, NotAllowedError, PeerError, RefusedError
from instep.model.address import Address, parse_address, why_not_plain_host
from instep.model.ids import NodeName
from instep.net.connections.allow import AllowList
from instep.net.connections.tls import TlsContexts
from instep.net.messages import messages as m
from instep.net.trust.certs import Purpose, check_request, pin_of, pin_of_key
from instep.node.config.editing import edits, node_edits
from instep.node.peers.network.federation import Federation
from instep.node.peers.network.invitations import Invitations
from instep.node.peers.network.partner_rows import own_rows
from instep.node.peers.presence import dialled_at, is_loopback_host, serving_of, why_not_serving
from instep.node.runtime.driver import monotonic_ms, wall_ms
from instep.node.runtime.runtime import Runtime

_MEMBERS = "members"
_FOREIGN = "members/foreign"
MEMBERS_MAX = 1_024
SKEW_MS = 3_600_000
MOVES_APART_MS = 60_000
"""A node that moves more often is not followed: each time costs an edit of ``instep.toml``."""


class Membership:
    """Only the node that holds the CA key invites and renews; every node learns and revokes."""

    def __init__(self, runtime: Runtime, tls: TlsContexts, settings_changed: Callable[[], None]) -> None:
        self._runtime = runtime
        self._tls = tls
        self.invitations = Invitations(runtime)
        self._federation = Federation(runtime, tls, self.invitations, self.is_ours)
        self.settings_changed = settings_changed
        runtime.is_ours = self.is_ours
        raw = runtime.store.get(_MEMBERS)
        known = msgspec.msgpack.decode(raw, type=list[m.Member]) if raw is not None else []
        self.members: dict[NodeName, m.Member] = {member.name: member for member in known}
        raw = runtime.store.get(_FOREIGN)
        self._foreign = set(msgspec.msgpack.decode(raw, type=list[NodeName]) if raw is not None else ())
        """Members that only nodes of other clusters have named."""
        self._moved_at_ms: dict[NodeName, int] = {}
        self._met: set[NodeName] = set()
        self.advertised = runtime.settings.advertise
        """The address of this node that others get to know: that of the settings, once it listens there."""
        self._seen_at: dict[NodeName, str] = {}
        """Where this node's connections come from, by the node that told it."""
        self.version = 0
        """Rises when the record of a member has changed, whatever the clock says."""
        self._has_news = False
        self.on_news: Callable[[], None] | None = None
        """Called when a member came, moved, has other keys or serves otherwise: connected peers get the news."""

    # Joins --------------------------------------------------------------------------------------------------

    async def join(self, request: m.JoinRequest, address: str, offers: tuple[m.Offer, ...]) -> m.JoinReply:
        """Turn a token into certificates and list the new node as a partner."""
        runtime = self._runtime
        version = m.agree(m.VERSIONS, request.versions)
        now = wall_ms()
        book = self.invitations.book()
        pin = pin_of_key(check_request(request.tls_csr, request.name, Purpose.TLS))
        try:
            invite = book.check(request.token_id, request.secret, request.name, now, pin=pin)
        except NotAllowedError as error:
            text = f"{address} asked to join as {request.name}: {error.reason}"
            runtime.note_of_peer(address, "join_refused", text, code=error.error_code, address=address)
            raise
        if invite.is_federation:
            raise NotAllowedError(
                "this token links a node of another cluster, and makes no member of this one",
                hint=f"on {runtime.name}: instep invite {request.name}; or make the node first: "
                f"instep init {request.name}",
                code="token_federates",
                name=request.name,
            )
        issued = runtime.pki.issue(request.name, request.tls_csr, request.sign_csr, now, may_replace=True)
        link = invite.link
        flags = {"replicate": link.replicate, "data": link.data, "hub": link.hub}
        edits.set_partner(runtime.directory, request.name, flags)
        book.use(request.token_id, now, pin=pin)
        self.invitations.save(book)
        self.settings_changed()
        self._foreign.discard(request.name)
        self._remember(m.Member(request.name, request.address, pin, b"", now))
        runtime.note("joined", f"{request.name} joined from {address}", name=request.name)
        return m.JoinReply(
            version=version,
            cluster=runtime.pki.ca().subject.rfc4514_string(),
            inviter=runtime.name,
            inviter_address=str(runtime.settings.advertise),
            ca=runtime.pki.authorities_pem(),
            tls_cert=issued.tls,
            sign_cert=issued.sign,
            crl=runtime.pki.crl_pem(),
            members=tuple(
                msgspec.structs.replace(each, serving=None, rows=None)
                for each in self.members_message().members
            ),
            offers=offers,
        )

    def federate(
        self, request: m.FederateRequest, address: str, offers: tuple[m.Offer, ...]
    ) -> m.FederateReply:
        """Turn a token into a link with a node of another cluster."""
        return self._federation.accept(request, address, offers, self.settings_changed)

    # Members ------------------------------------------------------------------------------------------------

    def me(self) -> m.Member:
        runtime = self._runtime
        return m.Member(
            runtime.name,
            str(self.advertised),
            runtime.pki.pin,
            runtime.pki.sign_key,
            wall_ms(),
            serving_of(runtime.settings, is_drained=runtime.draining.is_drained, host=self.outward_host),
            rows=own_rows(runtime.settings),
        )

    def myself(self) -> m.Member:
        """This node as a balancer needs to know it, without its keys."""
        settings = self._runtime.settings
        is_drained = self._runtime.draining.is_drained
        serving = serving_of(settings, is_drained=is_drained, host=self.outward_host)
        return m.Member(settings.name, str(self.advertised), "", serving=serving)

    def members_message(self) -> m.Members:
        """Every member, with its rows and how it serves as far as there is room."""
        room, told = m.MEMBERS_BYTES_MAX, []
        for member in (self.me(), *(self.members[name] for name in sorted(self.members))):
            room -= len(m.encode(member))
            told.append(member if room >= 0 else msgspec.structs.replace(member, serving=None, rows=None))
        return m.Members(tuple(told))

    @property
    def outward_host(self) -> str:
        """The host of this node for programs on other machines: the advertised one, or, where that is loopback, the
        one that every sender sees this node's connections come from."""
        advertised = self._runtime.settings.advertise
        seen = {host for host in self._seen_at.values() if not is_loopback_host(host)}
        return seen.pop() if advertised.is_loopback and len(seen) == 1 else advertised.host

    @property
    def outward_address(self) -> Address:
        """Where nodes on other machines would dial this one, were it listening there."""
        return Address(self.outward_host, self._runtime.settings.advertise.port)

    def troubles(self) -> list[str]:
        """Where this node advertises nothing, and its senders see it at several addresses: which one counts."""
        seen = {host: sender for sender, host in self._seen_at.items() if not is_loopback_host(host)}
        settings = self._runtime.settings
        if not settings.advertise.is_loopback or len(seen) < 2:
            return []
        told = ", ".join(f"{sender} at {host}" for host, sender in sorted(seen.items()))
        steps = "; or: ".join(
            f"instep node set-address {settings.name} {Address(host, settings.advertise.port)}"
            for host in sorted(seen)
        )
        return [
            f"this node is seen by {told}; say which address balancers and a new writer's partners use: {steps}"
        ]

    def seen_by(self, sender: NodeName, address: str) -> None:
        """A sender says which address this node's connection comes from."""
        if address and not why_not_plain_host(address) and self._seen_at.get(sender) != address:
            self._seen_at[sender] = address
            self._runtime.tell()

    def met(self, who: NodeName, hello: m.Hello, seen_at: str) -> None:
        """A partner introduced itself on a verified connection, which comes from the address ``seen_at``."""
        known = self.members.get(who)
        pin = known.pin if known is not None else ""
        serving = known.serving if known is not None else None
        self._met.add(who)
        pinned = self._runtime.pki.pins.certificates().get(who)
        if pinned is not None:
            self._foreign.add(who)
            pin = pin_of(pinned)
        else:
            self._foreign.discard(who)
        self.pinned_key_told(who, hello.sign_key)
        told = dialled_at(hello.address, seen_at)
        self._follow_move(who, told)
        formerly = known.formerly if known is not None else ""
        self._remember(m.Member(who, told, pin, hello.sign_key, wall_ms(), serving, seen_at, formerly))

    def told_self(self, who: NodeName, message: m.Members) -> None:
        """A partner reports how it serves, on its own verified connection: its reports about others are refused."""
        if [member.name for member in message.members] != [who]:
            raise PeerError(f"{who} reports other members than itself", code="unexpected_message")
        known = self.members.get(who)
        if known is not None:
            (told,) = message.members
            at = dialled_at(told.address, known.seen_at)
            self._follow_move(who, at)
            self._remember(
                msgspec.structs.replace(
                    known, address=at, serving=told.serving, updated_ms=wall_ms(), rows=told.rows
                )
            )

    def pinned_key_told(self, who: NodeName, sign_key: bytes) -> None:
        """A pinned partner sent its signing key over the connection that its pin verifies: its records hold
        from now on. Nodes of our own CA are known by their signing certificates instead."""
        pins = self._runtime.pki.pins
        if who in pins.certificates() and pins.keep_sign_key(who, sign_key):
            self._runtime.note(
                "pinned_key", f"the signing key of {who}, which is pinned here, is known", node=who
            )

    def learned(self, source: NodeName, message: m.Members) -> None:
        """Take a partner's list of others: for showing and for the operator to link; it opens nothing. A
        second-hand record does not replace a node's own report, and one with a time in the future is refused."""
        latest = wall_ms() + SKEW_MS
        is_news = False
        followed = self._runtime.settings.filesets.values()
        is_of_writer = any(fileset.writer == source for fileset in followed)
        is_believed = not followed or is_of_writer
        row = self._runtime.settings.partners.get(source)
        removed = self._runtime.pki.crl().removed
        is_far = source in self._runtime.pki.pins.certificates()
        for member in message.members:
            if is_far and self.is_ours(member.name):
                continue  # another cluster has no say about ours
            if is_far and member.name not in self.members:
                self._foreign.add(member.name)
            elif not is_far and member.name in self._foreign:
                self._foreign.discard(member.name)
                is_news = True
            if member.name == self._runtime.name or (member.name in self._met and member.name != source):
                continue
            if member.updated_ms < removed.get(member.name, 0) * 1_000:
                continue  # from before its removal
            known = self.members.get(member.name)
            if member.name == source and row is not None and row.address is not None:
                host = row.address.host
                told = dialled_at(member.address, host)
                member = msgspec.structs.replace(member, address=told, seen_at=host)
            if member.name != source and not is_believed:
                # Only the node itself, or the writer that we follow, says where requests of users go.
                kept = known if known is not None else msgspec.structs.replace(member, serving=None)
                member = msgspec.structs.replace(
                    member, serving=kept.serving, address=kept.address, seen_at=kept.seen_at
                )
            if member.updated_ms <= latest and (known is None or member.updated_ms > known.updated_ms):
                if member.name == source:  # another's word moves no address in instep.toml, and no name
                    self._follow_move(member.name, member.address)
                elif is_of_writer and member.formerly in self.members:
                    text = f"{source} says that {member.formerly} is {member.name} now"
                    self._runtime.note_of_peer(
                        source, "renamed", text, node=member.name, before=member.formerly
                    )
                is_news = self.take(member) or is_news
        if is_news:
            self._save_members()

    def is_ours(self, name: NodeName) -> bool:
        """Whether a node of this cluster has the name, as far as this node knows."""
        pki, row = self._runtime.pki, self._runtime.settings.partners.get(name)
        if pki.pins.is_pinned(name) or name in self._foreign:
            return False
        is_known = name in self.members or (row is not None and row.pin is None)
        return is_known or (pki.is_ca and pki.has_issued(name, wall_ms()))

    def _follow_move(self, name: NodeName, address: str) -> None:
        """A node has another address than before: dial it there, where this node's file has the one from before. A file
        that has a third one means that, such as a proxy's."""
        known, row = self.members.get(name), self._runtime.settings.partners.get(name)
        at = parse_address(address)
        if known is None or row is None or row.address is None or at is None or at == row.address:
            return
        if parse_address(known.address) != row.address or at.is_wildcard or why_not_plain_host(at.host):
            return
        now, last = monotonic_ms(), self._moved_at_ms.get(name)
        self._moved_at_ms[name] = now
        try:
            if last is not None and now - last < MOVES_APART_MS:
                raise RefusedError(
                    f"it moved less than {MOVES_APART_MS // 1000} s ago", code="moves_too_often"
                )
            edits.set_partner(self._runtime.directory, name, {"address": str(at)})
            self.settings_changed()
        except InstepError as error:
            text = f"{name} is at {at} now, which instep.toml could not take: {error.reason}; "
            text += f"instep node set-address {name} {at}"
            self._runtime.note_of_peer(name, "address_not_followed", text, node=name)
            return
        text = f"{name} is at {at} now, before at {row.address}"
        self._runtime.note_of_peer(name, "address_changed", text, node=name, address=str(at))

    def _remember(self, member: m.Member) -> None:
        if self.take(member):
            self._save_members()

    def take(self, member: m.Member) -> bool:
        """Keep the member if it is news and there is room; return whether it was kept. An address that could say
        more in a balancer's file than where something listens is refused, and the node then stands in none."""
        known = self.members.get(member.name)
        why = why_not_serving(member)
        if why is not None:
            text = f"{member.name} cannot stand behind a balancer: it {why}"
            self._runtime.note_of_peer(member.name, "bad_address", text, node=member.name)
            member = msgspec.structs.replace(member, serving=None)
        if member.rows is None and known is not None:  # a peer that does not send them, or had no room
            member = msgspec.structs.replace(member, rows=known.rows)
        if known == member or (known is None and len(self.members) >= MEMBERS_MAX):
            return False
        self.members[member.name] = member
        is_same = known is not None and msgspec.structs.replace(member, updated_ms=known.updated_ms) == known
        if not is_same:
            self.version += 1
            self._has_news = True
        return True

    def _save_members(self) -> None:
        for name in filter(self.is_ours, self._runtime.pki.pins.introduced()):
            self._runtime.pki.pins.forget_introduced(name)  # a node of this cluster signs by its certificate
        members = msgspec.msgpack.encode(list(self.members.values()))
        foreign = msgspec.msgpack.encode(sorted(self._foreign & set(self.members)))
        self._runtime.deferred.write(_MEMBERS, lambda store: store.put(_MEMBERS, members))
        self._runtime.deferred.write(_FOREIGN, lambda store: store.put(_FOREIGN, foreign))
        if self._has_news and self.on_news is not None:
            self._has_news = False
            self.on_news()

    def forget(self, name: NodeName) -> None:
        if self.members.pop(name, None) is not None:
            self.version += 1
            self._has_news = True
            self._save_members()

    def removed(self, name: NodeName) -> None:
        """The CA signed that this node is gone: nothing here lists it or shows its reports any more."""
        text = f"{name} was removed from the cluster"
        try:
            if node_edits.forget_node(self._runtime.directory, name):
                self.settings_changed()
        except InstepError as error:
            text += f"; instep.toml still names it: {error.reason}"
        self._met.discard(name)
        self.forget(name)
        self._runtime.store.delete_reports(name)
        self._runtime.note("removed", text, node=name)

    def renamed(self, old: NodeName, new: NodeName) -> None:
        """Use the new name in place of the old one, in this node's file and records."""
        text = f"{old} is {new} now"
        try:
            if node_edits.rename_node(self._runtime.directory, old, new):
                self.settings_changed()
        except InstepError as error:
            text += f"; instep.toml still names {old}: {error.reason}"
        self._met.discard(old)
        self.forget(old)
        self._runtime.store.delete_reports(old)
        self._runtime.note("renamed", text, node=new, before=old)

    def unlink(self, name: NodeName) -> None:
        """The node is no partner any more: its serving report is not passed on, and no balancer gets it."""
        known = self.members.get(name)
        if known is not None and known.serving is not None:
            self._remember(msgspec.structs.replace(known, serving=None, updated_ms=wall_ms()))

    # Certificates -------------------------------------------------------------------------------------------

    def adopt_crl(self, crl: bytes) -> bool:
        """A newer revocation list of our CA: use it at once. Whether it was newer."""
        known = self._runtime.pki.crl().removed
        if not self._runtime.pki.adopt_crl(crl):
            return False
        for name, before_s in self._runtime.pki.crl().removed.items():
            if known.get(name) != before_s and name != self._runtime.name:
                self.removed(NodeName(name))
        self._runtime.pki.merge_lists(wall_ms())
        self._tls.reload()
        self._runtime.note("revocations", "a revocation list arrived that says more than was known")
        return True

    def allow_list(self) -> AllowList:
        return AllowList(self._runtime.settings.allow)
