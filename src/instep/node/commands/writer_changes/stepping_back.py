"""A former writer gives in: it follows the line that went on without its newest generations, and keeps those."""

from __future__ import annotations

from pathlib import Path
from shlex import quote

from instep.api.filesets import AcceptedDocument
from instep.api.parts import FullGenerationDocument
from instep.core.writer_change import writer_by
from instep.errors import RefusedError
from instep.node.config.editing.writer_edit import change_writer
from instep.node.lines.line_service import LineService
from instep.node.lines.snapshot import generation_document
from instep.node.node import Node

RECORDED_MAX = 10_000


def was_replaced(service: LineService) -> bool:
    """Whether the newest record gives the line to another node than this one, whose file still says otherwise."""
    current = service.facts.epochs.current
    return current is not None and current.writer != service.runtime.name


def step_back(
    node: Node, service: LineService, path: Path, home: str | None, mode: str | None
) -> AcceptedDocument:
    """Follow the writer that the newest record names. Files of this tree that the line does not have go to the
    archive by the next apply; the generations stay in ``log`` and history. ``RefusedError`` unless that was asked
    for."""
    runtime, name, line = node.runtime, service.fileset.name, service.line
    book = service.facts.epochs
    writer = writer_by(book)
    if writer is None or writer == runtime.name or home not in (None, writer):
        raise RefusedError(
            f"{name} is written on this node", code="written_here", fileset=name, node=runtime.name
        )
    assert book.current is not None
    outside = _outside(node, service)
    numbers = ", ".join(f"{one.epoch}.{one.number}" for one in outside)
    if path != service.fileset.path or mode not in ("replace", "seed"):
        raise RefusedError(
            f"{writer} writes epoch {book.current.epoch} of {name}, which does not hold the generations published here "
            f"since: {numbers or 'changes'}",
            hint=f"instep fileset accept {name} {quote(str(service.fileset.path))} --from {writer} --replace "
            "(the contents go to the archive)",
            code="left_behind",
            writer=writer,
            generations=numbers,
        )
    member = node.membership.members.get(writer)
    address = member.address if member is not None else None
    change_writer(node.directory, line, writer, None, address, keeps_owners=True)  # an accept was typed
    runtime.note(
        "stepped_back",
        f"{runtime.name} follows {writer}; generations {numbers} stay here, outside the line",
        line,
        generations=numbers,
    )
    node.reload()
    return AcceptedDocument(fileset=name, path=str(path), writer=writer, changed=True, set_aside=outside)


def _outside(node: Node, service: LineService) -> tuple[FullGenerationDocument, ...]:
    """The generations that were published here and that the line went on without, oldest first."""
    current = service.facts.epochs.current
    assert current is not None
    found: list[FullGenerationDocument] = []
    for signed in node.runtime.store.generations(service.line, RECORDED_MAX):
        if signed.id == current.base or signed.body().epoch >= current.epoch:
            break
        found.append(generation_document(signed))
    return tuple(reversed(found))
