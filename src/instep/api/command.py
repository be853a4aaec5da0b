"""The form of a command: a frozen request with the name, role and errors of its kind, and the type of its result.

The control socket and the command line both read and write through here, so that each knows every request of the
other. A result may gain fields with a default; a parameter may be added. Neither is ever changed.
"""

from __future__ import annotations

import enum
import functools
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Generic, TypeVar

import msgspec

from instep.errors import InstepError, NotAllowedError, UnavailableError, UsageError

Seconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
"""How long something may take or last: at most thirty years, so that a moment from now can be written as a date."""
MESSAGE_MAX = 1000
Message = Annotated[str, msgspec.Meta(max_length=MESSAGE_MAX)]
"""Words of a person that other people read in a row of a table."""
OTHER_VERSION = "instep and its daemon may be of different versions: instep stop, then: instep start"


class Role(enum.Enum):
    """The least role that a command asks of a person, in rising order; a higher role has the rights of the lower."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    APPROVER = "approver"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether a person of this role may give a command that asks for the other."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class Document(msgspec.Struct, frozen=True):
    """A JSON object that a command answers with, or a part of one. The order of fields is the order of keys."""


Result = TypeVar("Result")
Kind = TypeVar("Kind", bound="Command[Any]")


class Command(
    msgspec.Struct, Generic[Result], frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """The parameters of one command, declared with ``command``. ``errors`` are the families that it may end with,
    beside ``UsageError``. ``is_audited`` is true of commands that change anything, and ``secrets`` are the parameters
    that no record holds. ``needs_tree`` is true of commands that read or change the tree of their fileset: a root that
    hangs ends them. ``timeout_s`` is how long the caller waits."""

    command: ClassVar[str]
    role: ClassVar[Role]
    errors: ClassVar[tuple[type[InstepError], ...]]
    is_audited: ClassVar[bool]
    secrets: ClassVar[tuple[str, ...]]
    needs_tree: ClassVar[bool]
    timeout_s: Seconds | None = None

    @classmethod
    def result(cls) -> type[Result]:
        """The type that it answers with."""
        found: type[Result] = typing.get_args(cls.__orig_bases__[0])[0]  # type: ignore[attr-defined]
        return found


class FilesetCommand(Command[Result], frozen=True):
    """A command about one fileset: the named one, or the only one of the node."""

    fileset: str | None = None


def command(
    name: str,
    role: Role,
    *errors: type[InstepError],
    is_audited: bool | None = None,
    secrets: tuple[str, ...] = (),
    needs_tree: bool = False,
) -> Callable[[type[Kind]], type[Kind]]:
    """Name a command as the control socket does, with the role that it asks for and the errors that it may end with.
    A command for viewers only looks; of the others, those that only look say so with ``is_audited=False``."""

    def declared(kind: type[Kind]) -> type[Kind]:
        kind.command, kind.role, kind.errors, kind.secrets = name, role, errors, secrets
        kind.is_audited = role is not Role.VIEWER if is_audited is None else is_audited
        kind.needs_tree = needs_tree
        return kind

    return declared


def as_json(document: msgspec.Struct) -> dict[str, Any]:
    """A request or a result as a JSON object: bytes as base64, unset fields left out."""
    found: dict[str, Any] = msgspec.to_builtins(document)
    return found


def require_role(kind: type[Command[Any]], role: Role) -> None:
    """``NotAllowedError`` ``role_missing`` when a command asks for more than the caller's role."""
    if not role.includes(kind.role):
        raise NotAllowedError(
            f"{kind.command} asks for the role {kind.role.value}, and this caller has the role {role.value}",
            hint=f"have a person with the role {kind.role.value} give it",
            code="role_missing",
            asked=kind.role.value,
            has=role.value,
        )


@functools.cache
def _parameters(kind: type[Command[Any]]) -> tuple[str, ...]:
    return tuple(field.encode_name for field in msgspec.structs.fields(kind))


def command_from(kind: type[Kind], params: Mapping[str, Any]) -> Kind:
    """The request that a caller sent. ``UsageError`` names all parameters that are unknown, or one that is wrong."""
    known = _parameters(kind)
    unknown = sorted(params.keys() - set(known))
    if unknown:
        raise UsageError(
            f"{kind.command} does not know {', '.join(unknown)}; it takes {', '.join(known)}",
            hint=OTHER_VERSION,
            code="unknown_parameter",
            parameters=unknown,
        )
    try:
        msgspec.json.encode(
            params
        )  # JSON can hold half a surrogate pair, which no file and no message between peers can
        found: Kind = msgspec.convert(params, kind)
    except (msgspec.ValidationError, UnicodeEncodeError) as error:
        raise UsageError(
            f"{kind.command} was asked wrongly: {error}", hint=OTHER_VERSION, code="bad_parameter"
        ) from error
    return found


def result_from(kind: type[Command[Result]], told: object) -> Result:
    """The result that a daemon sent. ``UnavailableError`` ``other_version`` when it is not one of ours."""
    try:
        return msgspec.convert(told, kind.result())
    except msgspec.ValidationError as error:
        raise UnavailableError(
            f"the daemon answered {kind.command} in words that this instep does not know: {error}",
            hint=OTHER_VERSION,
            code="other_version",
        ) from error
