"""What a publish, a rollback or a restore came to, as its command answers; and who may ask for one."""

from __future__ import annotations

import getpass
from typing import TYPE_CHECKING, Any

from instep.core import publish_vocabulary as p
from instep.core.held import HeldPaths
from instep.core.vocabulary import Trouble
from instep.errors import InstepError, RefusedError, family_of
from instep.node.commands.parameters import running_service_of
from instep.node.control import Params
from instep.node.held_view import held_documents
from instep.node.writer import WriterService

if TYPE_CHECKING:
    from instep.node.daemon import Daemon

__all__ = ["author", "error_of", "held_document", "outcome_document", "writer_of"]


def error_of(trouble: Trouble) -> InstepError:
    """A machine's trouble as the error that a command ends with."""
    family = family_of(trouble.exit_code)
    return family(trouble.reason, hint=trouble.hint, code=trouble.code, **dict(trouble.facts))


def writer_of(daemon: Daemon, params: Params) -> WriterService:
    """The service of a fileset that is written here."""
    service = running_service_of(daemon, params)
    if not isinstance(service, WriterService):
        raise RefusedError(
            f"{service.fileset.name} is written on {service.fileset.writer}, not here",
            hint=f"run this on {service.fileset.writer}",
            code="not_the_writer",
            writer=service.fileset.writer,
            node=daemon.runtime.name,
        )
    return service


def author() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def held_document(service: WriterService, held: HeldPaths) -> dict[str, Any]:
    """The paths that keep their last entries, as ``publish`` and ``wait`` name them."""
    return {"held": held_documents(service.fileset, held), "held_total": held.total}


def outcome_document(service: WriterService, outcome: p.Outcome) -> dict[str, Any]:
    """What ``publish`` and ``rollback`` answer with; an error where nothing was published."""
    name = service.fileset.name
    match outcome:
        case p.Published(head, added, changed, removed, changed_bytes, held):
            return {
                "fileset": name,
                "changed": True,
                "generation": head.as_json(),
                "added": added,
                "changed_paths": changed,
                "removed": removed,
                "bytes": changed_bytes,
                **held_document(service, held),
            }
        case p.Unchanged(head, held):
            return {
                "fileset": name,
                "changed": False,
                "generation": head.as_json() if head is not None else None,
                "added": 0,
                "changed_paths": 0,
                "removed": 0,
                "bytes": 0,
                **held_document(service, held),
            }
        case p.WouldPublish(added, changed, removed, changed_bytes, refusal, held):
            if refusal is not None:
                raise error_of(refusal)
            return {
                "fileset": name,
                "changed": bool(added or changed or removed),
                "dry_run": True,
                "generation": service.head.as_json() if service.head is not None else None,
                "added": added,
                "changed_paths": changed,
                "removed": removed,
                "bytes": changed_bytes,
                **held_document(service, held),
            }
        case p.NotPublished(trouble):
            raise error_of(trouble)
