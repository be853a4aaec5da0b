"""The epoch records of a line as nodes send and receive them."""

from __future__ import annotations

from collections.abc import Sequence

from instep.core.lines.accept import EpochBook
from instep.errors import PeerError
from instep.model.generation import SignedEpoch
from instep.model.ids import LineId, NodeName
from instep.node.lines.saved_facts import load_facts, pending_key
from instep.node.lines.signed_again import own_chain
from instep.node.runtime.runtime import Runtime
from instep.store.port import NodeStore

UNREADABLE = 1 << 53


def records_of(runtime: Runtime, line: LineId, book: EpochBook) -> tuple[SignedEpoch, ...]:
    """Every record that is kept here, oldest first. The writer of the newest adds that one under its own signature: a
    node that comes late and names this writer in its file need not verify a row of signers whose certificates have
    ended."""
    kept = tuple(runtime.store.epochs(line))
    current = book.current
    if current is None or current.writer != runtime.name or book.disputed is not None:
        return kept
    own = next((record for record in kept if record.id == current.id), None)
    if own is None or (own.signature.signer == runtime.name and own.signature.chain == own_chain(runtime)):
        return kept
    return (*kept, SignedEpoch(own.raw, runtime.pki.sign(own.id)))


def unknown(records: Sequence[SignedEpoch], book: EpochBook) -> list[SignedEpoch]:
    """Those worth a verification: not known here, and not below the newest that is."""
    claims = [claim for claim in (book.current, book.previous, *book.rivals) if claim is not None]
    known = {claim.id for claim in claims}
    lowest = book.disputed or (book.current.epoch if book.current is not None else 0)
    return [record for record in records if record.id not in known and epoch_of(record) >= lowest]


def epoch_of(record: SignedEpoch) -> int:
    """The epoch that a record claims; one that cannot be read is the machine's to refuse."""
    try:
        return record.body().epoch
    except PeerError:
        return UNREADABLE


def overrules(store: NodeStore, line: LineId, configured: NodeName) -> bool:
    """Whether an operator wrote another writer's name than the newest record's, after that had reached the file."""
    facts = load_facts(store, line)
    current = facts.epochs.current if facts is not None else None
    return current is not None and current.writer != configured and store.get(pending_key(line)) is None
