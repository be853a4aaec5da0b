"""The caller of a command: a person at the control socket, a signed-in browser, or a program with a token."""

from __future__ import annotations

import enum
from dataclasses import dataclass

from instep.api.command import Role
from instep.core.authors import person_of
from instep.errors import NotAllowedError


class DoorName(enum.Enum):
    """The way a command comes in."""

    SOCKET = "socket"
    API = "api"
    PANEL = "panel"


@dataclass(frozen=True, slots=True)
class Caller:
    """The giver of a command, with the role; ``filesets`` are the only ones that it reaches, None for all. A
    program with a token is named behind the owner of the token (``ana by token deploy``)."""

    name: str
    role: Role
    filesets: frozenset[str] | None
    door: DoorName
    address: str = ""

    @property
    def person(self) -> str:
        """The person who answers for it: the user, or the owner of the token."""
        return person_of(self.name)

    def reaches(self, fileset: str) -> bool:
        return self.filesets is None or fileset in self.filesets

    def require_fileset(self, fileset: str | None) -> None:
        """``NotAllowedError`` ``fileset_missing`` unless this caller reaches the fileset, or, for None, all of them."""
        if self.filesets is None or fileset in self.filesets:
            return
        what = "commands about the whole node" if fileset is None else f"the fileset {fileset}"
        raise NotAllowedError(
            f"{self.name} does not reach {what}",
            hint="have a person who reaches all filesets give it",
            code="fileset_missing",
            filesets=sorted(self.filesets),
        )
