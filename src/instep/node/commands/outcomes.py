"""The outcome of a publish, a rollback or a restore, as its command answers; and the service that may give it."""

from __future__ import annotations

import getpass
from typing import assert_never

from msgspec import UNSET

from instep.api.lines import OutcomeDocument
from instep.api.parts import generation
from instep.core.publish import vocabulary as p
from instep.core.vocabulary import Trouble, error_of
from instep.errors import RefusedError, UsageError
from instep.node.access.door import CALLER
from instep.node.commands.targets import running_service_of
from instep.node.node import Node
from instep.node.trees.scanning.held_view import held_documents
from instep.node.writing.writer import WriterService

NAMED_MAX = 128
"""Bytes of an author that a program names: with the person and a node before it, it still fits in a change set."""


def raise_for(trouble: Trouble | None) -> None:
    """End the command with the trouble, where there is any."""
    if trouble is not None:
        raise error_of(trouble)


def writer_of(node: Node, named: str | None) -> WriterService:
    """The service of a fileset that is written here."""
    service = running_service_of(node, named)
    if not isinstance(service, WriterService):
        raise RefusedError(
            f"{service.fileset.name} is written on {service.fileset.writer}, not here",
            hint=f"run this on {service.fileset.writer}",
            code="not_the_writer",
            writer=service.fileset.writer,
            node=node.runtime.name,
        )
    return service


def author() -> str:
    """The person who gave the command, or else the user of this process."""
    caller = CALLER.get()
    if caller is not None:
        return caller.name
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def author_as(named: str | None) -> str:
    """The author that a program names, with the person who gave the command where that is another one.
    ``UsageError`` for one so long that it would leave no room for the others."""
    person = author()
    size = len((named or "").encode())
    if size > NAMED_MAX:
        raise UsageError(
            f"the author has {size} bytes, the limit is {NAMED_MAX}",
            hint="name a person; what there is to say is the message",
            code="bad_author",
        )
    is_another = named and CALLER.get() is not None and named != person
    return f"{named}, by {person}" if is_another else named or person


def outcome_document(service: WriterService, outcome: p.Outcome) -> OutcomeDocument:
    """The answer of ``publish`` and ``rollback``; an error where nothing was published."""
    head = service.head if isinstance(outcome, p.WouldPublish) else None
    added = changed = removed = changed_bytes = 0
    match outcome:
        case p.NotPublished(trouble) | p.WouldPublish(refusal=Trouble() as trouble):
            raise error_of(trouble)
        case p.Unchanged(head, held):
            pass
        case p.Published(head, added, changed, removed, changed_bytes, held):
            pass
        case p.WouldPublish(added, changed, removed, changed_bytes, _, held):
            pass
        case _:
            assert_never(outcome)
    is_dry = isinstance(outcome, p.WouldPublish)
    return OutcomeDocument(
        fileset=service.fileset.name,
        changed=bool(added or changed or removed) if is_dry else isinstance(outcome, p.Published),
        dry_run=True if is_dry else UNSET,
        generation=generation(head),
        added=added,
        changed_paths=changed,
        removed=removed,
        bytes=changed_bytes,
        held=held_documents(service.fileset, held),
        held_total=held.total,
    )
