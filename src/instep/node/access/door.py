"""The one door of all commands: role, filesets, decoding, audit, handler. Control socket, REST and panel use it.

A handler is an async function ``(command, speaker) -> result``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from contextvars import ContextVar
from typing import Any, Protocol

import msgspec

from instep.api.command import OTHER_VERSION, Command, Document, command_from, require_role
from instep.api.filesets import FilesetListCommand, FilesetsDocument
from instep.api.lines import PublishCommand
from instep.api.looking import EventsCommand, EventsDocument, PingCommand, StatusCommand, StatusDocument
from instep.errors import InstepError, NotAllowedError, UsageError
from instep.node.access.audit import AuditTrail
from instep.node.access.caller import Caller, DoorName
from instep.node.runtime.driver import own_error

CALLER: ContextVar[Caller | None] = ContextVar("caller", default=None)
"""The caller of the command that this task carries out."""
NARROWED = (StatusCommand, FilesetListCommand, EventsCommand, PingCommand)
"""Commands about the whole node that answer a caller of some filesets with these alone."""
log = logging.getLogger(__name__)


class LineSink(Protocol):
    """Takes lines of one answer before its end; a caller that went away is noticed on the next line."""

    async def progress(
        self, what: str, done: int, total: int | None, unit: str, rate: float | None = None
    ) -> None: ...

    async def item(self, item: Document) -> None: ...


class Silent:
    """For callers who only want the end."""

    async def progress(
        self, what: str, done: int, total: int | None, unit: str, rate: float | None = None
    ) -> None:
        """Not shown."""

    async def item(self, item: Document) -> None:
        """Not shown."""


Handler = Callable[[Any, Any], Awaitable[Document]]
Commands = Mapping[type[Command[Any]], Handler]
"""The handler of each command."""


class CommandDoor:
    """Carries out commands by name, for callers who may give them."""

    def __init__(self, commands: Commands, audit: AuditTrail | None) -> None:
        self._audit = audit
        self._commands = {kind.command: (kind, handler) for kind, handler in commands.items()}

    async def run(self, name: str, params: Mapping[str, Any], caller: Caller, listener: LineSink) -> Document:
        """The result of a command. Whatever goes wrong is one of our errors; only the caller's going away is a
        ``ConnectionError``."""
        if name not in self._commands:
            raise UsageError(
                f"this daemon has no command {name!r}", hint=OTHER_VERSION, code="unknown_command"
            )
        kind, handler = self._commands[name]
        try:
            require_role(kind, caller.role)
            _require_filesets(kind, params, caller)
        except NotAllowedError as error:
            if self._audit is not None:
                self._audit.refused(caller, kind, params, error.error_code)
            raise
        asked = command_from(kind, params)
        if isinstance(asked, PublishCommand) and caller.door is not DoorName.SOCKET:
            asked = msgspec.structs.replace(asked, author=None)
        entry = (
            self._audit.begin(caller, kind, params) if self._audit is not None and kind.is_audited else None
        )
        mark = CALLER.set(caller)
        try:
            result = await handler(asked, listener)
        except ConnectionError:
            raise
        except (InstepError, OSError) as error:
            told = own_error(error).of_a_command()
            if entry is not None:
                entry.failed(told)
            raise told from error
        except (AssertionError, LookupError, TypeError, ValueError, AttributeError) as error:
            log.exception("command %s broke", name)
            broken = InstepError(f"{type(error).__name__}: {error}", hint="see the log of the daemon")
            if entry is not None:
                entry.failed(broken)
            raise broken from error
        finally:
            CALLER.reset(mark)
        if entry is not None:
            entry.done(result)
        return narrowed(result, caller)


def _require_filesets(kind: type[Command[Any]], params: Mapping[str, Any], caller: Caller) -> None:
    if caller.filesets is not None and params.get("to") is not None:
        raise NotAllowedError(
            f"{kind.command} into a directory asks for rights to all filesets: it may lie in another one's tree",
            hint="leave out `to`, or have an admin of all filesets give it",
            code="directory_not_allowed",
        )
    named = params.get("fileset")
    if named is None and issubclass(kind, NARROWED):
        return
    caller.require_fileset(named if isinstance(named, str) else None)


def narrowed(result: Document, caller: Caller) -> Document:
    """A result without the filesets that the caller does not reach."""
    if caller.filesets is None:
        return result
    if isinstance(result, StatusDocument):
        return msgspec.structs.replace(
            result,
            filesets=tuple(each for each in result.filesets if caller.reaches(each.name)),
            offers=(), warnings=(), links=(),
        )  # fmt: skip
    if isinstance(result, FilesetsDocument):
        found = tuple(each for each in result.filesets if caller.reaches(each.name))
        return msgspec.structs.replace(result, filesets=found, offers=())
    if isinstance(result, EventsDocument):
        return EventsDocument(tuple(each for each in result.events if each.get("fileset") in caller.filesets))
    return result
