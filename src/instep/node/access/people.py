"""Users, tokens and sessions as records of the access store."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from typing import TypeVar

import msgspec

from instep.api.command import Role
from instep.errors import NotAllowedError, RefusedError
from instep.node.access.caller import Caller, DoorName
from instep.node.config.outside.oidc import GroupRole
from instep.store.access_store import AccessStore

TOKEN_PREFIX = "ist_"
SESSION_IDLE_MS = 12 * 3_600_000
SESSION_MS_MAX = 7 * 86_400_000
PROVIDED_MS_MAX = 12 * 3_600_000
"""Of a session by a provider: it cannot say here that the person left."""
SESSIONS_MAX = 25
"""For one user; the session that was quiet the longest ends in favour of a new one."""
SEEN_EVERY_MS = 60_000
"""How often the moment of the last use is written."""
AGENT_MAX = 200


class AccessRights(msgspec.Struct, kw_only=True):
    """The rights of a user, a token or a session."""

    name: str
    role: Role
    filesets: tuple[str, ...] | None = None

    def caller(self, door: DoorName, address: str, *, as_name: str | None = None) -> Caller:
        reached = None if self.filesets is None else frozenset(self.filesets)
        return Caller(as_name or self.name, self.role, reached, door, address)


class User(AccessRights, kw_only=True):
    """A person with a password."""

    phc: str
    created_ms: int
    signed_in_ms: int | None = None


class Identity(AccessRights, kw_only=True):
    """A person whom a provider named: the subject keeps the name that it came with first, so that no change of names at
    the provider makes one person two. The rights are those of the last sign-in."""

    issuer: str
    subject: str
    created_ms: int
    signed_in_ms: int


class Token(AccessRights, kw_only=True):
    """A program's token: the digest of its secret. It belongs to the person ``created_by``."""

    digest: str
    created_ms: int
    created_by: str
    expires_ms: int | None = None
    used_ms: int | None = None


class BrowserSession(AccessRights, kw_only=True):
    """A signed-in browser, under the digest of its cookie. ``by_link``: of no user, but of a one-time link."""

    address: str
    agent: str
    created_ms: int
    seen_ms: int
    by_link: bool
    identity: str | None = None
    """The key of the person's identity, where a provider named the person, and ``groups`` the groups then."""
    groups: tuple[str, ...] = ()


Record = TypeVar("Record", bound=AccessRights)
RoleOf = Callable[[str, tuple[str, ...]], GroupRole | None]
"""The role of a person whom this issuer names with these groups, by the present configuration."""


def digest_of(secret: str) -> str:
    """The name of a secret in the store. Secrets have 256 random bits, so a quick digest hides them."""
    return hashlib.sha256(secret.encode(errors="surrogatepass")).hexdigest()


class Records:
    """Reads and writes the records of one store."""

    def __init__(self, store: Callable[[], AccessStore], now_ms: Callable[[], int], role_of: RoleOf) -> None:
        self._store = store
        self.now_ms = now_ms
        self._role_of = role_of

    def get(self, kind: type[Record], key: str) -> Record | None:
        raw = self._store().get(_kind(kind), key)
        return None if raw is None else msgspec.json.decode(raw, type=kind)

    def all(self, kind: type[Record]) -> list[tuple[str, Record]]:
        return [(key, msgspec.json.decode(raw, type=kind)) for key, raw in self._store().all(_kind(kind))]

    def put(self, key: str, record: AccessRights, *, durable: bool = True) -> None:
        raw = msgspec.json.encode(record)
        self._store().put(_kind(type(record)), key, self.now_ms(), raw, durable=durable)

    def take(self, kind: type[Record], key: str) -> bool:
        """Remove; whether there was one."""
        return self._store().take(_kind(kind), key) is not None

    # Tokens -------------------------------------------------------------------------------------------------

    def make_token(
        self, name: str, role: Role, filesets: tuple[str, ...] | None, ttl_ms: int | None, by: str
    ) -> tuple[str, Token]:
        """The secret, and the token as it is kept. ``RefusedError`` ``token_exists``."""
        now = self.now_ms()
        for key, old in self.all(Token):
            if old.name == name:
                if not _is_over(old, now):
                    raise RefusedError(
                        f"there is a token {name} already",
                        hint=f"instep token revoke {name}",
                        code="token_exists",
                        name=name,
                    )
                self.take(Token, key)
        secret = TOKEN_PREFIX + secrets.token_urlsafe(32)
        token = Token(
            name=name, role=role, filesets=filesets, digest=digest_of(secret), created_ms=now, created_by=by,
            expires_ms=None if ttl_ms is None else now + ttl_ms,
        )  # fmt: skip
        self.put(token.digest, token)
        return secret, token

    def token_of(self, secret: str) -> Token | None:
        """The token with this secret, when it is in force."""
        now = self.now_ms()
        token = self.get(Token, digest_of(secret))
        if token is None or _is_over(token, now):
            return None
        if token.used_ms is None or now - token.used_ms >= SEEN_EVERY_MS:
            token.used_ms = now
            self.put(token.digest, token, durable=False)
        return token

    def revoke_token(self, name: str) -> bool:
        found = [key for key, token in self.all(Token) if token.name == name]
        return sum(self.take(Token, key) for key in found) > 0

    def revoke_tokens_of(self, person: str) -> tuple[str, ...]:
        """End the tokens that belong to a person; their names."""
        found = [(key, token.name) for key, token in self.all(Token) if token.created_by == person]
        return tuple(sorted(name for key, name in found if self.take(Token, key)))

    # Sessions -----------------------------------------------------------------------------------------------

    def begin_session(
        self, rights: AccessRights, address: str, agent: str, *, by_link: bool, identity: str | None = None,
        groups: tuple[str, ...] = (),
    ) -> str:  # fmt: skip
        """A new session; the secret for its cookie."""
        now = self.now_ms()
        mine = [(key, one) for key, one in self.all(BrowserSession) if one.name == rights.name]
        mine.sort(key=lambda item: item[1].seen_ms)
        for key, one in mine:
            if self._has_ended(one, now) or len(mine) >= SESSIONS_MAX:
                self.take(BrowserSession, key)
                mine = mine[1:]
        secret = secrets.token_urlsafe(32)
        session = BrowserSession(
            name=rights.name, role=rights.role, filesets=rights.filesets, address=address,
            agent=agent[:AGENT_MAX], created_ms=now, seen_ms=now, by_link=by_link,
            identity=identity, groups=groups,
        )  # fmt: skip
        self.put(digest_of(secret), session)
        return secret

    def session_of(self, secret: str) -> BrowserSession | None:
        """The session of a cookie, when it goes on; with the rights that its user has now."""
        now, key = self.now_ms(), digest_of(secret)
        session = self.get(BrowserSession, key)
        if session is None:
            return None
        rights = self._present_rights(session)
        if self._has_ended(session, now) or rights is None:
            self.take(BrowserSession, key)
            return None
        if now - session.seen_ms >= SEEN_EVERY_MS:
            session.seen_ms = now
            self.put(key, session, durable=False)
        session.role, session.filesets = rights.role, rights.filesets
        return session

    def _present_rights(self, session: BrowserSession) -> AccessRights | None:
        """The rights that the person of a session has now, by this node's own records and configuration."""
        if session.by_link:
            return session
        if session.identity is None:
            return self.get(User, session.name)
        known = self.get(Identity, session.identity)
        row = None if known is None else self._role_of(known.issuer, session.groups)
        return None if row is None else AccessRights(name=session.name, role=row.role, filesets=row.filesets)

    # Persons whom a provider names --------------------------------------------------------------------------

    def identify(self, issuer: str, subject: str, name: str, groups: tuple[str, ...]) -> tuple[str, Identity]:
        """The identity of a person, and its key. ``NotAllowedError``: ``no_role``, ``name_taken``."""
        now, key = self.now_ms(), digest_of(f"{issuer}\0{subject}")
        row, known = self._role_of(issuer, groups), self.get(Identity, key)
        if row is None:
            raise NotAllowedError(
                f"{name if known is None else known.name} is in no group that has a role here",
                hint="add a group to roles in [oidc] of instep.toml, then: instep config reload",
                code="no_role",
            )
        if known is None and (self.is_of_provider(name) or self.get(User, name) is not None):
            raise NotAllowedError(
                f"the name {name} belongs to another person here",
                hint=f"instep user remove {name}, where both are one person; else name another claim as name_claim",
                code="name_taken",
            )
        identity = Identity(
            name=name if known is None else known.name, role=row.role, filesets=row.filesets, issuer=issuer,
            subject=subject, created_ms=now if known is None else known.created_ms, signed_in_ms=now,
        )  # fmt: skip
        self.put(key, identity)
        return key, identity

    def is_of_provider(self, name: str) -> bool:
        """True when the name belongs to a person whom a provider named."""
        return any(one.name == name for _, one in self.all(Identity))

    def remove_person(self, name: str) -> bool:
        """Forget a user, and an identity of that name; whether there was one."""
        keys = [key for key, one in self.all(Identity) if one.name == name]
        return self.take(User, name) + sum(self.take(Identity, key) for key in keys) > 0

    def end_sessions(self, wanted: Callable[[str, BrowserSession], bool]) -> int:
        """End the sessions for which ``wanted`` is true, by their digest and record; how many."""
        found = [key for key, session in self.all(BrowserSession) if wanted(key, session)]
        return sum(self.take(BrowserSession, key) for key in found)

    @staticmethod
    def _has_ended(session: BrowserSession, now: int) -> bool:
        longest = SESSION_MS_MAX if session.identity is None else PROVIDED_MS_MAX
        return now - session.seen_ms > SESSION_IDLE_MS or now - session.created_ms > longest


def _kind(kind: type[AccessRights]) -> str:
    return {User: "user", Token: "token", BrowserSession: "session", Identity: "identity"}[kind]


def _is_over(token: Token, now_ms: int) -> bool:
    return token.expires_ms is not None and token.expires_ms <= now_ms
