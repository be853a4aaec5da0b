"""How ``publish`` and ``rollback`` end, as documents and errors."""

from __future__ import annotations

from typing import Any

from instep.core import publish_vocabulary as p
from instep.core.held import HeldPaths
from instep.core.vocabulary import Trouble
from instep.errors import InstepError, family_of
from instep.node.held_view import held_documents
from instep.node.writer import WriterService

__all__ = ["error_of", "held_document", "outcome_document"]


def error_of(trouble: Trouble) -> InstepError:
    """A machine's trouble as the error that a command ends with."""
    family = family_of(trouble.exit_code)
    return family(trouble.reason, hint=trouble.hint, code=trouble.code, **dict(trouble.facts))


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
