"""The access of one node: opens its store when it is needed first, and signs persons and programs in."""

from __future__ import annotations

import asyncio
import logging
import secrets
import threading
from collections.abc import Callable
from dataclasses import dataclass

from instep.core.authors import by_token
from instep.errors import DamagedError, NotAllowedError
from instep.node.access.attempts import AttemptLimits
from instep.node.access.audit import AuditTrail
from instep.node.access.caller import Caller, DoorName
from instep.node.access.passwords import hash_of, is_password
from instep.node.access.people import AccessRights, Records, RoleOf, User, digest_of
from instep.node.directory import NodeDirectory
from instep.store.access_store import AccessStore
from instep.store.database import set_aside

LINK_MS = 60_000
LINKS_MAX = 32
HASHES_MAX = 2
"""Passwords hashed at once: each takes 64 MiB."""
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class _Link:
    """A link that waits to be used."""

    rights: AccessRights
    until_ms: int


class Access:
    """Nothing is opened or hashed before it is needed."""

    def __init__(
        self, directory: NodeDirectory, now_ms: Callable[[], int], role_of: RoleOf = lambda *_: None
    ) -> None:
        self._path = directory.access
        self._now_ms = now_ms
        self._store: AccessStore | None = None
        self._opening = threading.Lock()
        self._links: dict[str, _Link] = {}
        self._hashing = asyncio.Semaphore(HASHES_MAX)
        self._nobody = ""
        self.records = Records(self.store, now_ms, role_of)
        self.audit = AuditTrail(self.store, now_ms)
        self.attempts = AttemptLimits(self.store, now_ms)

    def store(self) -> AccessStore:
        """A damaged file is kept aside and begun anew: all sessions end then, and users are added again."""
        with self._opening:
            if self._store is None:
                try:
                    self._store = AccessStore(self._path)
                except DamagedError as error:
                    kept = set_aside(self._path)
                    log.error("%s; it is kept as %s: add users and tokens again", error.reason, kept)
                    self._store = AccessStore(self._path)
            return self._store

    def close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    # Passwords ----------------------------------------------------------------------------------------------

    async def hashed(self, password: str) -> str:
        async with self._hashing:
            return await asyncio.to_thread(hash_of, password)

    async def sign_in(self, name: str, password: str, address: str) -> User:
        """The user with this password. ``NotAllowedError``: ``too_many_attempts``, or ``wrong_sign_in``, which is the
        same and takes as long for a name that is not known."""
        self.attempts.take(name, address)
        user = self.records.get(User, name)
        async with self._hashing:
            if not self._nobody:
                self._nobody = await asyncio.to_thread(hash_of, secrets.token_urlsafe())
            is_right = await asyncio.to_thread(
                is_password, password, self._nobody if user is None else user.phc
            )
        if user is None or not is_right:
            raise NotAllowedError(
                "the name or the password is wrong",
                hint="type both again, or sign in with a link: instep panel login",
                code="wrong_sign_in",
            )
        self.attempts.succeeded(name)
        user.signed_in_ms = self._now_ms()
        self.records.put(name, user, durable=False)
        return user

    # Links --------------------------------------------------------------------------------------------------

    def make_link(self, caller: Caller) -> tuple[str, int]:
        """A code that signs in once as this caller, and until when."""
        now = self._now_ms()
        self._links = {key: link for key, link in self._links.items() if link.until_ms > now}
        while len(self._links) >= LINKS_MAX:
            del self._links[next(iter(self._links))]
        code = secrets.token_urlsafe(24)
        filesets = None if caller.filesets is None else tuple(sorted(caller.filesets))
        rights = AccessRights(name=caller.name, role=caller.role, filesets=filesets)
        self._links[digest_of(code)] = _Link(rights, now + LINK_MS)
        return code, now + LINK_MS

    def use_link(self, code: str, address: str) -> AccessRights:
        """The rights of a link, which ends here. ``NotAllowedError``: ``too_many_attempts``, ``wrong_link``."""
        link = self._links.pop(digest_of(code), None)
        if link is not None and link.until_ms > self._now_ms():
            return link.rights
        self.attempts.take("", address)
        raise NotAllowedError(
            "this link was used already, or its minute has passed",
            hint="instep panel login",
            code="wrong_link",
        )

    # Callers ------------------------------------------------------------------------------------------------

    def caller_of_token(self, secret: str, address: str) -> Caller | None:
        token = self.records.token_of(secret)
        return (
            None
            if token is None
            else token.caller(DoorName.API, address, as_name=by_token(token.created_by, token.name))
        )

    def caller_of_cookie(self, secret: str, address: str) -> Caller | None:
        session = self.records.session_of(secret)
        return None if session is None else session.caller(DoorName.PANEL, address)
