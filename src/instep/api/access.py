"""Persons and programs that give commands over HTTP, their sessions, and the audit of all commands that change."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from instep.api.command import Command, Document, Role, Seconds, command
from instep.errors import ConfigError, RefusedError, UnavailableError
from instep.model.ids import Count

NAME_MAX = 64
PERSON_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_.@-]*$"
PersonName = Annotated[str, msgspec.Meta(min_length=1, max_length=NAME_MAX, pattern=PERSON_NAME)]
"""The name of a user or of a token."""
PASSWORD_MIN = 10
PASSWORD_MAX = 1_000
Password = Annotated[str, msgspec.Meta(min_length=PASSWORD_MIN, max_length=PASSWORD_MAX)]


class RightsDocument(Document, frozen=True):
    """A name with its role; ``filesets`` are the only ones that it reaches, null for all."""

    name: str
    role: str
    filesets: tuple[str, ...] | None


# Users --------------------------------------------------------------------------------------------------


class UserDocument(RightsDocument, frozen=True):
    """A user of the panel. ``provider`` named the person, with the rights of the last sign-in; null where the person
    has a password here."""

    created_at: str | None
    signed_in_at: str | None
    provider: str | None = None


class UsersDocument(Document, frozen=True):
    """All users of this node's panel, by name."""

    users: tuple[UserDocument, ...]


class UserChangeDocument(Document, frozen=True):
    """The user, and whether anything changed; ``sessions`` ended with it, and the ``tokens`` of these names."""

    name: str
    changed: bool
    sessions: int
    tokens: tuple[str, ...] = ()


@command("user_list", Role.ADMIN, is_audited=False)
class UserListCommand(Command[UsersDocument], frozen=True):
    """All users of this node's panel."""


@command("user_add", Role.ADMIN, RefusedError, secrets=("password",))
class UserAddCommand(Command[UserChangeDocument], frozen=True, kw_only=True):
    """Add a user, or give the one of that name another role and other filesets."""

    name: PersonName
    password: Password | None = None
    """Needed for a new user; an existing one keeps its own without."""
    given: Role = msgspec.field(default=Role.VIEWER, name="role")
    filesets: tuple[str, ...] | None = None


@command("user_passwd", Role.ADMIN, RefusedError, secrets=("password",))
class UserPasswordCommand(Command[UserChangeDocument], frozen=True, kw_only=True):
    """Give a user another password, and end the user's sessions."""

    name: PersonName
    password: Password


@command("user_remove", Role.ADMIN)
class UserRemoveCommand(Command[UserChangeDocument], frozen=True, kw_only=True):
    """Remove a user, or a person whom a provider named, and end the person's sessions and tokens."""

    name: PersonName


# Tokens -------------------------------------------------------------------------------------------------


class TokenDocument(RightsDocument, frozen=True):
    """A token, without its secret. It belongs to the person who made it (``created_by``)."""

    created_at: str | None
    expires_at: str | None
    used_at: str | None
    created_by: str


class TokensDocument(Document, frozen=True):
    """All tokens of this node, by name."""

    tokens: tuple[TokenDocument, ...]


class TokenMadeDocument(RightsDocument, frozen=True):
    """A new token: its secret is shown this once."""

    token: str
    expires_at: str | None


class TokenChangeDocument(Document, frozen=True):
    """The token, and whether there was one to revoke."""

    name: str
    changed: bool


@command("token_list", Role.ADMIN, is_audited=False)
class TokenListCommand(Command[TokensDocument], frozen=True):
    """All tokens of this node, without their secrets."""


@command("token_create", Role.ADMIN, RefusedError)
class TokenCreateCommand(Command[TokenMadeDocument], frozen=True, kw_only=True):
    """Make a token for a program. Without ``ttl_s`` it works until it is revoked."""

    name: PersonName
    given: Role = msgspec.field(default=Role.VIEWER, name="role")
    filesets: tuple[str, ...] | None = None
    ttl_s: Seconds | None = None


@command("token_revoke", Role.ADMIN)
class TokenRevokeCommand(Command[TokenChangeDocument], frozen=True, kw_only=True):
    """End a token at once."""

    name: PersonName


# Sessions -----------------------------------------------------------------------------------------------


class PanelLinkDocument(Document, frozen=True):
    """A link that signs in once; the code alone is for a form without scripts."""

    url: str
    code: str
    expires_at: str | None


@command("panel_login", Role.ADMIN, RefusedError, UnavailableError)
class PanelLoginCommand(Command[PanelLinkDocument], frozen=True):
    """Make a link that signs its first user in as the person who asked for it."""


class SessionDocument(RightsDocument, frozen=True):
    """A signed-in browser; ``id`` names it, and is not the secret of its cookie."""

    id: str
    address: str
    agent: str
    created_at: str | None
    seen_at: str | None
    by_link: bool


class SessionsDocument(Document, frozen=True):
    """All sessions of this node's panel, the newest first."""

    sessions: tuple[SessionDocument, ...]


class SessionsEndedDocument(Document, frozen=True):
    """How many sessions ended."""

    ended: int


@command("session_list", Role.ADMIN, is_audited=False)
class SessionListCommand(Command[SessionsDocument], frozen=True):
    """All browsers that are signed in."""


@command("session_end", Role.ADMIN)
class SessionEndCommand(Command[SessionsEndedDocument], frozen=True):
    """End one session, all of one user, or all."""

    id: str | None = None
    user: str | None = None


# Certificates -------------------------------------------------------------------------------------------


class CertificateDocument(Document, frozen=True):
    """A certificate of this node, of the cluster's CA (``what`` is ``ca``), of another CA that this node shows
    (``shown``), or one that this node's CA issued."""

    what: str
    subject: str
    pin: str
    not_after: str | None
    revoked_at: str | None


class CertificatesDocument(Document, frozen=True):
    """All of them; ``backed_up_at`` is when the CA's key was written to a backup, where it is here."""

    is_ca: bool
    certificates: tuple[CertificateDocument, ...]
    issued: tuple[CertificateDocument, ...]
    backed_up_at: str | None


@command("certificate_list", Role.VIEWER, ConfigError)
class CertificateListCommand(Command[CertificatesDocument], frozen=True):
    """This node's certificates, the cluster's CA, and on the CA's node all that it issued; no keys."""


# Audit --------------------------------------------------------------------------------------------------


class AuditRowDocument(Document, frozen=True, kw_only=True):
    """A command that was given, by whom, and how it ended: ``done``, ``refused``, ``failed`` with ``code``, or
    ``unfinished`` while it runs or when the daemon ended during it."""

    number: int
    at: str | None
    who: str
    role: str
    door: str
    address: str
    command: str
    fileset: str | None
    parameters: Mapping[str, Any]
    reason: str | None
    outcome: str
    code: str | None
    result: Mapping[str, Any] | None


class AuditDocument(Document, frozen=True):
    """Rows of the audit, newest first; ``before`` asks for the rows behind these."""

    rows: tuple[AuditRowDocument, ...]
    before: int | None


@command("audit", Role.ADMIN, is_audited=False)
class AuditCommand(Command[AuditDocument], frozen=True):
    """The commands that changed anything, or were refused, since a moment in milliseconds of the wall clock."""

    since_ms: Count = 0
    before: Count | None = None
    limit: Annotated[int, msgspec.Meta(ge=1, le=1_000)] = 200
