"""A writer's own generations: signed and stored, with the epoch record where that is missing, and held against what
partners have of its past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from instep.core.publish import vocabulary as v
from instep.core.publish.commit_facts import LastCommit, committed
from instep.core.publish.own_line import own_at
from instep.core.publish.vocabulary import HeadOfOursSeen, PublishFacts
from instep.errors import RefusedError
from instep.model.definition import Definition, decode_definition
from instep.model.generation import UNSIGNED, EpochBody, GenerationBody, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, LineId, NodeName
from instep.net.messages.messages import BUNDLE_BYTES_MAX, Bundle, Head
from instep.node.lines.saved_facts import save_facts
from instep.node.profiles.rollbacks import keep_rollback
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.node.runtime.signers import verdict_on
from instep.store.port import NodeStore
from instep.tree.root.failpoints import failpoint, register

FIRST_EPOCH = 1
COMMIT_AFTER = register("publish.commit.after")


def commit(
    line: LineId,
    runtime: Runtime,
    facts: v.PublishFacts,
    last: LastCommit,
    definition: Definition,
    effect: v.Commit,
) -> tuple[HeadRef, v.PublishFacts]:
    """Sign and store, and return the facts that are durable now; on the event loop, so that it stays in order with
    every ``Save`` of the line."""
    store = runtime.store
    body = GenerationBody(
        version=1,
        fileset=line.fileset,
        origin=line.origin,
        epoch=effect.epoch,
        number=effect.number,
        parent=effect.parent.id if effect.parent is not None else EMPTY_DIGEST,
        root=effect.root,
        definition=definition.digest,
        author=effect.author,
        message=effect.message,
        time_ms=wall_ms(),
        entries=effect.entries,
        size_bytes=effect.size_bytes,
    )
    raw = body.encoded()
    signed = SignedGeneration(raw, runtime.pki.sign(SignedGeneration(raw, UNSIGNED).id))
    head = signed.ref()
    epoch = _missing_epoch(runtime, line, effect.epoch)
    is_newest = facts.head == effect.parent
    if is_newest:  # else a newer head of ours was adopted meanwhile: the machine drops this generation
        facts = committed(facts, head)
    with store.transaction():
        store.put_blob(definition.digest, definition.encoded())
        if epoch is not None:
            store.add_epoch(epoch)
        store.add_generation(signed)
        if is_newest:
            save_facts(store, line, facts)
            store.set_head(line, head)
            store.set_live(line, head)
            keep_rollback(store, line, head, effect.target)
    if is_newest:
        last.is_durable(effect.parent, head)
    failpoint(COMMIT_AFTER)
    return head, facts


def bundle_of(pages: Sequence[bytes] | None, contents: Mapping[Digest, bytes]) -> Bundle | None:
    """New pages and small contents that travel with a head; None where they are too large or not known."""
    if pages is None:
        return None
    size = sum(map(len, pages)) + sum(len(data) + 32 for data in contents.values())
    return Bundle(tuple(pages), tuple(contents.items())) if size <= BUNDLE_BYTES_MAX else None


def _missing_epoch(runtime: Runtime, line: LineId, number: int) -> SignedEpoch | None:
    if any(known.body().epoch == number for known in runtime.store.epochs(line)):
        return None
    if number != FIRST_EPOCH:
        raise RefusedError(
            f"no record gives epoch {number} of {line} to {runtime.name}; only epoch {FIRST_EPOCH} begins by itself",
            hint=f"instep status {line.fileset}",
            code="no_epoch_record",
            epoch=number,
            node=runtime.name,
        )
    body = EpochBody(1, line.fileset, line.origin, number, runtime.name, runtime.pki.sign_key, EMPTY_DIGEST)
    raw = body.encoded()
    return SignedEpoch(raw, runtime.pki.sign(SignedEpoch(raw, UNSIGNED).id))


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
