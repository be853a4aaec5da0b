"""Invitations of this node: one-time tokens for new nodes, and the record of those that are still open."""

from __future__ import annotations

import secrets
from dataclasses import dataclass

import msgspec

from instep.errors import RefusedError
from instep.model.ids import NodeName
from instep.model.link import Link
from instep.net.trust.certs import fingerprint_bytes
from instep.net.trust.tokens import SECRET_BYTES, Invitation, PendingInvite, TokenBook, token_text
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime

_BOOK = "invites"
_BOOK_KEY = "invites/key"


@dataclass(frozen=True, slots=True)
class Invited:
    token: str
    expires_at_ms: int
    address: str


class Invitations:
    """Only the node that holds the CA key invites into the cluster; any node invites one of another cluster."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    def book(self) -> TokenBook:
        """The open invitations as they are saved."""
        store = self._runtime.store
        key = store.get(_BOOK_KEY)
        if key is None:
            key = secrets.token_bytes(32)
            store.put(_BOOK_KEY, key)
        raw = store.get(_BOOK)
        state = msgspec.msgpack.decode(raw, type=dict[str, PendingInvite]) if raw is not None else {}
        return TokenBook(key, state)

    def save(self, book: TokenBook) -> None:
        self._runtime.store.put(_BOOK, msgspec.msgpack.encode(book.state()))

    def invite(self, name: NodeName, link: Link, ttl_ms: int, *, is_federation: bool = False) -> Invited:
        """A one-time token for ``name``; ``reachability`` has looked whether it could work. ``is_federation``: it makes
        no member of this cluster, and links a node of another one alone."""
        runtime = self._runtime
        settings = runtime.settings
        if not runtime.pki.is_ca and not is_federation:
            raise RefusedError(
                f"{runtime.name} does not hold the cluster's CA key and cannot make certificates",
                hint=f"on the node that holds the CA key: instep invite {name}; for a node of another cluster, here: "
                f"instep invite {name} --other-cluster",
                code="no_ca",
            )
        if name == runtime.name:
            raise RefusedError(f"{name} is this node", code="own_name", name=name)
        advertise = settings.advertise
        now = wall_ms()
        book = self.book()
        book.forget_old(now)
        invitation = Invitation(
            token_id=secrets.token_bytes(12),
            secret=secrets.token_bytes(SECRET_BYTES),
            name=name,
            inviter=runtime.name,
            addresses=(str(advertise),),
            ca=fingerprint_bytes(runtime.pki.ca()),
            expires_at_ms=now + ttl_ms,
            pin=bytes.fromhex(runtime.pki.pin),
            sign_key=runtime.pki.sign_key,
            is_federation=is_federation,
        )
        book.add(invitation, link)
        self.save(book)
        runtime.note("invited", f"invited {name}", name=name, ttl_ms=ttl_ms)
        return Invited(token_text(invitation), invitation.expires_at_ms, str(advertise))

    def is_invited(self, name: NodeName) -> bool:
        """Whether a token for this name may still be used."""
        return any(invite.name == name for invite in self.book().state().values())
