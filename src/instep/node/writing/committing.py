"""Signing and storing a new generation, with its epoch record where that is missing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from instep.core.publish import vocabulary as v
from instep.core.publish.commit_facts import LastCommit, committed
from instep.errors import RefusedError
from instep.model.definition import Definition
from instep.model.generation import UNSIGNED, EpochBody, GenerationBody, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, HeadRef, LineId
from instep.net.messages.messages import BUNDLE_BYTES_MAX, Bundle
from instep.node.lines.saved_facts import save_facts
from instep.node.runtime.driver import wall_ms
from instep.node.runtime.runtime import Runtime
from instep.tree.root.failpoints import failpoint, register

AUTO_AUTHOR = "auto"
"""Stands as author where no operator asked for the publish."""
FIRST_EPOCH = 1
COMMIT_AFTER = register("publish.commit.after")


class OwnLine(Protocol):
    """A line that is written here."""

    facts: v.PublishFacts
    last_commit: LastCommit

    @property
    def runtime(self) -> Runtime: ...

    @property
    def line(self) -> LineId: ...

    @property
    def definition(self) -> Definition: ...


def commit(service: OwnLine, effect: v.Commit) -> HeadRef:
    """Sign and store; on the event loop, so that it stays in order with every ``Save`` of the line."""
    runtime, store, line, definition = (
        service.runtime,
        service.runtime.store,
        service.line,
        service.definition,
    )
    body = GenerationBody(
        version=1,
        fileset=line.fileset,
        origin=line.origin,
        epoch=effect.epoch,
        number=effect.number,
        parent=effect.parent.id if effect.parent is not None else EMPTY_DIGEST,
        root=effect.root,
        definition=definition.digest,
        author=effect.author or AUTO_AUTHOR,
        message=effect.message,
        time_ms=wall_ms(),
        entries=effect.entries,
        size_bytes=effect.size_bytes,
    )
    raw = body.encoded()
    signed = SignedGeneration(raw, runtime.pki.sign(SignedGeneration(raw, UNSIGNED).id))
    head = signed.ref()
    epoch = _missing_epoch(service, effect.epoch)
    is_newest = service.facts.head == effect.parent
    facts = service.facts
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
    if is_newest:
        service.last_commit.is_durable(effect.parent, head)
    service.facts = facts
    failpoint(COMMIT_AFTER)
    return head


def bundle_of(pages: Sequence[bytes] | None, contents: Mapping[Digest, bytes]) -> Bundle | None:
    """New pages and small contents that travel with a head; None where they are too large or not known."""
    if pages is None:
        return None
    size = sum(map(len, pages)) + sum(len(data) + 32 for data in contents.values())
    return Bundle(tuple(pages), tuple(contents.items())) if size <= BUNDLE_BYTES_MAX else None


def _missing_epoch(service: OwnLine, number: int) -> SignedEpoch | None:
    runtime, line = service.runtime, service.line
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
