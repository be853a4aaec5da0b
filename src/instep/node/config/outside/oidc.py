"""Signing in by a provider of OpenID Connect: ``[oidc]``."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from instep.api.command import Role
from instep.errors import InstepError
from instep.model.ids import FilesetName, fileset_name
from instep.node.config.keys import NO_DEFAULT, key
from instep.node.config.kinds import BadValue, kind, list_of, matching, string
from instep.node.config.table_reader import Table
from instep.node.config.values import absolute_path, private_file

ROLES_MAX = 200
_SCOPE = re.compile(r"[\x21\x23-\x5b\x5d-\x7e]{1,100}")


@dataclass(frozen=True, slots=True)
class GroupRole:
    """The members of a provider's group have this role here; ``filesets`` are the only ones that they reach, None for
    all."""

    group: str
    role: Role
    filesets: tuple[FilesetName, ...] | None

    def __str__(self) -> str:
        reached = "" if self.filesets is None else f":{','.join(self.filesets)}"
        return f"{self.group}={self.role.value}{reached}"


def is_safe_address(text: str) -> bool:
    """Whether secrets may travel to this address: by TLS, or without leaving this machine."""
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        parts.port  # noqa: B018 - raises where it is no number
    except ValueError:
        return False
    if not host or parts.username is not None or not text.isascii() or not text.isprintable() or " " in text:
        return False
    if parts.scheme == "https":
        return True
    try:
        return parts.scheme == "http" and ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


@kind()
def _issuer(raw: object) -> str:
    text = string(raw)
    if not is_safe_address(text) or urlsplit(text).query or urlsplit(text).fragment:
        raise BadValue('is not an address such as "https://login.example.org/realms/main"')
    return text


@kind(is_list=True)
def _scopes(raw: object) -> tuple[str, ...]:
    found = list_of(string, 20)(raw)
    wrong = [one for one in found if not _SCOPE.fullmatch(one)]
    if wrong or "openid" not in found:
        raise BadValue('is not a list of scopes with "openid" in it, such as ["openid", "profile", "groups"]')
    return found


@kind(lambda rows: [str(row) for row in rows], is_list=True)
def group_roles(raw: object) -> tuple[GroupRole, ...]:
    """``GROUP=ROLE`` or ``GROUP=ROLE:FILESET,FILESET``; a group's name may hold any sign."""
    return tuple(_group_role(text) for text in list_of(string, ROLES_MAX)(raw))


def _group_role(text: str) -> GroupRole:
    group, equals, given = text.rpartition("=")
    role, colon, names = given.partition(":")
    try:
        filesets = tuple(fileset_name(name) for name in names.split(",")) if colon else None
        if not group or not equals:
            raise ValueError
        return GroupRole(group, Role(role), filesets)
    except (ValueError, InstepError):
        raise BadValue(
            f"holds {text}, which is not GROUP=ROLE or GROUP=ROLE:FILESET,FILESET with a role of "
            f"{', '.join(one.value for one in Role)}"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class OidcSettings:
    """A provider of OpenID Connect, by which persons sign in to the panel."""

    issuer: str = key(NO_DEFAULT, _issuer)
    """The address of the provider, exactly as its tokens name it; `https`, or `http` on loopback."""
    client_id: str = key(
        NO_DEFAULT, matching(r"[\x21-\x7e]{1,200}", "is not an id of 1 to 200 printable signs")
    )
    """The id of this node's panel at the provider."""
    secret_file: Path | None = key(None, private_file)
    """A file of mode 0600 with the client's secret; without it the client is a public one, with PKCE alone."""
    ca_file: Path | None = key(None, absolute_path)
    """The certificates that may sign the provider's; without it those that this machine trusts."""
    scopes: tuple[str, ...] = key(["openid", "profile"], _scopes)
    """What the provider is asked for."""
    name_claim: str = key("preferred_username", string)
    """The claim with the person's name, such as `ana`."""
    groups_claim: str = key("groups", string)
    """The claim with the person's groups."""
    roles: tuple[GroupRole, ...] = key([], group_roles)
    """The role of each group, such as `maps-team=operator:catalog,maps`; of a person's groups the first in this list
    counts. A person in none of them is refused."""

    @property
    def host(self) -> str:
        """The provider's name for persons."""
        return urlsplit(self.issuer).netloc

    def role_of(self, groups: tuple[str, ...]) -> GroupRole | None:
        """The first row for one of these groups."""
        return next((row for row in self.roles if row.group in groups), None)


def read_oidc(top: Table) -> OidcSettings | None:
    if "oidc" not in top.raw:
        return None
    table = top.below("oidc")
    before = len(top.reading.problems)
    row: dict[str, Any] = table.read(OidcSettings)
    if row["roles"] == ():
        table.warn("roles", "is empty, so the provider lets in no person")
    return None if len(top.reading.problems) > before else OidcSettings(**row)
