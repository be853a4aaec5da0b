"""A writer's own past: heads of its line that partners hold, beside what is stored here with the same position."""

from __future__ import annotations

import msgspec

from instep.core.publish.own_line import own_at
from instep.core.publish.vocabulary import HeadOfOursSeen, PublishFacts
from instep.model.definition import decode_definition
from instep.model.ids import HeadRef, LineId, NodeName
from instep.net.messages.messages import Head
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on
from instep.store.port import NodeStore


def told_head(runtime: Runtime, source: NodeName, head: Head) -> HeadOfOursSeen:
    """The machine's event for a head that a partner holds. The definition of one of ours is kept."""
    signed = head.generation
    verdict = verdict_on(runtime, signed.signature, signed.id)
    if not verdict.is_valid:
        return HeadOfOursSeen(source, signed, verdict)
    if head.definition and verdict.signer == runtime.name:
        definition = decode_definition(head.definition)
        if definition.digest == signed.body().definition:
            runtime.store.put_blob(definition.digest, head.definition)
    ours = _stored_at(runtime.store, head.line, signed.ref())
    return HeadOfOursSeen(source, signed, verdict, None if ours is None else ours.id)


def with_beside(message: Head, runtime: Runtime, facts: PublishFacts, known: HeadRef | None) -> Head:
    """A head for a partner that reported ``known``: with the writer's own generation of that position, or the one below
    where it has none of that number, when it is another one. Not where an operator decided to go past the partner's
    head."""
    if known is None:
        return message
    if known.position < facts.descends_from <= message.generation.ref().position:
        return message  # A head below the one that was adopted since descends from the same generation as before.
    ours = _stored_at(runtime.store, message.line, known)
    if ours is None or ours.id == known.id:
        return message
    return msgspec.structs.replace(message, beside=ours)


def _stored_at(store: NodeStore, line: LineId, ref: HeadRef) -> HeadRef | None:
    return own_at(ref, lambda epoch, number: store.generation_at(line, epoch, number), store.generation)
