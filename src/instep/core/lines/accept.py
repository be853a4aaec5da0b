"""Whether a signed record that a peer sent may become this node's head or epoch. Pure decisions.

Heads rise only (P4), by ``(epoch, number)``. A generation must bear the signature of its epoch's writer. An epoch
record is valid when the previous epoch's writer signed it (handover), when the cluster's CA key did (promotion), or
when this node's own configuration names its writer and that writer signed it; and the first one of a line when the
line's origin, which the configuration names too, signed it for itself. Two different valid records for one epoch:
neither is accepted until a higher epoch resolves it. Implements design section 4.

Checking the signature is the caller's part (``net.pki``); its result comes in as a ``SignerVerdict``.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from instep.core.authors import AUTHOR_MAX, MESSAGE_MAX
from instep.core.vocabulary import SignerVerdict, Trouble
from instep.errors import PeerError, Retry
from instep.model.generation import EpochBody, GenerationBody, SignedEpoch, SignedGeneration
from instep.model.ids import DIGEST_BYTES, EMPTY_DIGEST, Digest, HeadRef, LineId, NodeName

RECORD_VERSION = 1
FIRST_EPOCH = 1
RECORD_MAX_BYTES = 64 << 10
NUMBER_MAX = 1 << 53
"""Numbers stay exact in every language that reads our JSON."""


class EpochClaim(msgspec.Struct, frozen=True, array_like=True):
    """One epoch record in short: the node that may write from that epoch on."""

    epoch: int
    id: Digest
    writer: NodeName
    writer_key: bytes
    base: Digest = EMPTY_DIGEST
    """The id of the generation that the epoch builds on: the last one of before that still counts."""
    is_promoted: bool = False
    """The cluster's CA signed it: its writer publishes at once, for the base may be one that a revoked node signed."""


class EpochBook(msgspec.Struct, frozen=True, array_like=True):
    """The epoch records of a line that matter: the newest accepted, and the rivals of a disputed epoch.

    ``previous`` is the one before ``current``: its writer may have given ``current``'s epoch to a second
    node. While ``rivals`` is not empty nothing of their epoch is accepted; ``current`` is one of them."""

    current: EpochClaim | None = None
    previous: EpochClaim | None = None
    rivals: tuple[EpochClaim, ...] = ()

    @property
    def disputed(self) -> int | None:
        return self.rivals[0].epoch if self.rivals else None


@dataclass(frozen=True, slots=True)
class AcceptedHead:
    head: HeadRef
    body: GenerationBody


@dataclass(frozen=True, slots=True)
class AcceptedEpoch:
    """``book`` replaces the old one; ``is_disputed`` when the record is a rival of one accepted before."""

    book: EpochBook
    body: EpochBody
    is_disputed: bool = False


@dataclass(frozen=True, slots=True)
class KnownRecord:
    """It is the head (or epoch) already."""


@dataclass(frozen=True, slots=True)
class OldRecord:
    """Valid or not, it is below what is known; ``position`` is where it stands."""

    position: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Refused:
    trouble: Trouble


def _refused(code: str, reason: str, retry: Retry = Retry.ELSEWHERE, **facts: object) -> Refused:
    return Refused(Trouble(code, reason, retry, 9, None, tuple(sorted(facts.items()))))


def judge_head(
    signed: SignedGeneration,
    verdict: SignerVerdict,
    line: LineId,
    head: HeadRef | None,
    book: EpochBook,
    beside: HeadRef | None = None,
) -> AcceptedHead | KnownRecord | OldRecord | Refused:
    """Whether this generation may become the head of ``line``, whose head is ``head``. ``beside``: the ancestor
    with the position of ``head``, as the writer names it."""
    if len(signed.raw) > RECORD_MAX_BYTES:
        return _refused(
            "record_too_large", f"generation of {len(signed.raw)} bytes, the limit is {RECORD_MAX_BYTES}"
        )
    try:
        body = signed.body()
    except PeerError as error:
        return _refused(error.error_code, error.reason)
    wrong = _wrong_generation(body, line)
    if wrong is not None:
        return wrong
    ref = HeadRef(body.epoch, body.number, signed.id, body.root)
    if head is not None and ref.id == head.id:
        return KnownRecord()
    entitled = _entitled(signed.id, body, verdict, book)
    if head is not None and ref.position < head.position:
        return OldRecord(ref.position)
    if entitled is not None:
        return entitled
    twice = None if head is None else _twice(head, beside, ref, verdict.signer)
    if head is not None and twice is not None:
        return _refused("reused_number", twice, here=head.id.hex(), offered=ref.id.hex())
    return AcceptedHead(ref, body)


def _twice(head: HeadRef, beside: HeadRef | None, ref: HeadRef, signer: str) -> str | None:
    """Why ``ref`` is on another branch than ``head``, in words."""
    if ref.position == head.position:
        there = f"{head.id.hex()[:16]} here, {ref.id.hex()[:16]} offered"
        return f"generation {ref.number} of epoch {ref.epoch} exists twice: {there}"
    if beside is not None and _is_past(head, beside, ref):
        return _said_past(head, beside, ref, signer)
    return None


def _is_past(head: HeadRef, beside: HeadRef, ref: HeadRef) -> bool:
    """Whether ``ref`` descends from another generation of the number of ``head``: its writer came back with an older
    state, and published past ``head`` before it heard of it; or from one below, where a commit that failed took that
    number at the writer."""
    return ref.epoch == head.epoch and beside.position <= head.position and beside.id != head.id


def _said_past(head: HeadRef, beside: HeadRef, ref: HeadRef, writer: str) -> str:
    here = f"generation {head.number} of epoch {head.epoch}"
    if beside.position < head.position:
        return (
            f"{here} is {head.id.hex()[:16]} here, and {writer} has none of that number: its generation {ref.number} "
            f"is built on {beside.number}"
        )
    return (
        f"{here} exists twice: {head.id.hex()[:16]} here, "
        f"{beside.id.hex()[:16]} at {writer}, whose generation {ref.number} is built on that one"
    )


def _wrong_generation(body: GenerationBody, line: LineId) -> Refused | None:
    if body.version != RECORD_VERSION:
        return _refused(
            "unknown_version", f"generation of version {body.version}, this node knows {RECORD_VERSION}"
        )
    if body.line != line:
        return _refused("wrong_line", f"a generation of {body.line} was offered as one of {line}")
    if not (1 <= body.epoch <= NUMBER_MAX and 1 <= body.number <= NUMBER_MAX):
        return _refused("bad_record", f"generation with epoch {body.epoch} and number {body.number}")
    if len(body.root) != DIGEST_BYTES or len(body.definition) != DIGEST_BYTES:
        return _refused("bad_record", "generation whose root or definition is not a digest")
    if len(body.parent) not in (0, DIGEST_BYTES):
        return _refused("bad_record", "generation whose parent is not a digest")
    if len(body.message) > MESSAGE_MAX or len(body.author) > AUTHOR_MAX:
        return _refused("record_too_large", "generation with an over-long message or author")
    if not (0 <= body.entries <= NUMBER_MAX and 0 <= body.size_bytes <= 1 << 63):
        return _refused("bad_record", "generation with impossible totals")
    return None


def _entitled(id_: Digest, body: GenerationBody, verdict: SignerVerdict, book: EpochBook) -> Refused | None:
    if not verdict.is_valid:
        return _refused(verdict.code or "bad_signature", verdict.reason or "the signature does not hold")
    if book.disputed == body.epoch:
        return _dispute(book)
    current = book.current
    if current is None or body.epoch > current.epoch:
        return _refused("unknown_epoch", f"no record of epoch {body.epoch} is known here", Retry.LATER)
    if body.epoch == current.epoch and verdict.signer != current.writer:
        return _refused(
            "not_the_writer",
            f"epoch {body.epoch} belongs to {current.writer}, but {verdict.signer} signed this generation",
            writer=current.writer,
            signer=verdict.signer,
        )
    if body.epoch < current.epoch and not _is_base(id_, body, verdict, book):
        return _refused(
            "old_epoch", f"epoch {body.epoch} is over, {current.writer} writes epoch {current.epoch}"
        )
    return None


def _is_base(id_: Digest, body: GenerationBody, verdict: SignerVerdict, book: EpochBook) -> bool:
    """True when the epoch's own record names this generation as its base: a node that was behind at a change of
    writer still gets it, and nothing else of the epoch before."""
    current, previous = book.current, book.previous
    if current is None or book.disputed is not None or not current.base or id_ != current.base:
        return False
    if current.is_promoted:
        return True  # The CA named this very generation; out of a dispute its signer is a rival.
    return previous is None or body.epoch != previous.epoch or verdict.signer == previous.writer


def _dispute(book: EpochBook) -> Refused:
    names = " and ".join(f"{c.writer} (record {c.id.hex()[:16]})" for c in book.rivals)
    return _refused(
        "epoch_conflict",
        f"epoch {book.disputed} was given to {names}; a higher epoch must resolve it",
        records=[c.id.hex() for c in book.rivals],
        writers=[c.writer for c in book.rivals],
    )


def judge_epoch(
    signed: SignedEpoch,
    verdict: SignerVerdict,
    line: LineId,
    book: EpochBook,
    configured_writer: NodeName | None,
) -> AcceptedEpoch | KnownRecord | OldRecord | Refused:
    """Whether this epoch record is valid, and the book with it. ``configured_writer`` is the writer that this
    node's own configuration names; it counts where ``word_of`` says so, and None where it does not."""
    if len(signed.raw) > RECORD_MAX_BYTES:
        return _refused("record_too_large", f"epoch record of {len(signed.raw)} bytes")
    try:
        body = signed.body()
    except PeerError as error:
        return _refused(error.error_code, error.reason)
    wrong = _wrong_epoch(body, line)
    if wrong is not None:
        return wrong
    claim = EpochClaim(body.epoch, signed.id, body.writer, body.writer_key, body.base, verdict.is_ca)
    known = (book.current, book.previous, *book.rivals)
    if any(one is not None and one.id == claim.id for one in known):
        return KnownRecord()
    highest = book.disputed or (book.current.epoch if book.current else 0)
    if body.epoch < highest:
        return OldRecord((body.epoch, 0))
    why_not = _not_valid(body, verdict, book, configured_writer)
    if why_not is not None:
        return why_not
    if body.epoch == highest:
        return _rival(claim, body, book)
    return AcceptedEpoch(EpochBook(claim, book.current), body)


RIVALS_MAX = 4


def _rival(claim: EpochClaim, body: EpochBody, book: EpochBook) -> AcceptedEpoch | KnownRecord:
    rivals = book.rivals
    if not rivals:
        assert book.current is not None
        rivals = (book.current,)
    if len(rivals) >= RIVALS_MAX:
        return KnownRecord()
    return AcceptedEpoch(EpochBook(book.current, book.previous, (*rivals, claim)), body, is_disputed=True)


def _wrong_epoch(body: EpochBody, line: LineId) -> Refused | None:
    if body.version != RECORD_VERSION:
        return _refused("unknown_version", f"epoch record of version {body.version}")
    if body.line != line:
        return _refused("wrong_line", f"an epoch record of {body.line} was offered as one of {line}")
    if not 1 <= body.epoch <= NUMBER_MAX:
        return _refused("bad_record", f"epoch record with epoch {body.epoch}")
    if len(body.base) not in (0, DIGEST_BYTES) or len(body.writer_key) > 1024:
        return _refused("bad_record", "epoch record with malformed fields")
    return None


def word_of(configured_writer: NodeName, book: EpochBook, *, overrules: bool) -> NodeName | None:
    """The node that the configuration makes the writer by its own word. A file that still names a writer that an
    accepted record replaced counts for nothing: the replaced writer could sign itself back with it. ``overrules``: an
    operator wrote another name than the newest record's after that had been settled."""
    if book.current is None or book.current.writer == configured_writer or overrules:
        return configured_writer
    return None


def is_left_behind(head: HeadRef, book: EpochBook) -> bool:
    """Whether a later epoch goes on without this generation: it is not begun to apply any more."""
    current = book.current
    if current is None or book.disputed is not None:
        return False
    return head.epoch < current.epoch and head.id != current.base


def _not_valid(
    body: EpochBody, verdict: SignerVerdict, book: EpochBook, configured_writer: NodeName | None
) -> Refused | None:
    if not verdict.is_valid:
        return _refused(verdict.code or "bad_signature", verdict.reason or "the signature does not hold")
    current = book.current
    if verdict.is_ca:
        return None
    is_next = current is None or body.epoch <= current.epoch + 1
    if body.writer == configured_writer and verdict.signer == body.writer and is_next:
        # By its own signature a writer takes the next epoch, never one so high that no node could go above it.
        return None
    if current is None and body.epoch == FIRST_EPOCH and verdict.signer == body.writer == body.line.origin:
        return None
    if _is_second_handover(body, verdict, book):
        return None
    if current is not None and verdict.signer == current.writer:
        # A handover: only from the writer of the epoch right before, and never out of a dispute.
        if book.disputed is None and body.epoch == current.epoch + 1:
            return None
        if body.epoch > current.epoch + 1:
            return _refused(
                "epoch_gap", f"epoch {body.epoch} came before epoch {current.epoch + 1}", Retry.LATER
            )
    return _refused(
        "not_entitled",
        f"{verdict.signer} may not give epoch {body.epoch} of {body.line} to {body.writer}: it is neither "
        f"the writer before, nor the cluster's CA, nor the writer that this node's configuration names",
        signer=verdict.signer,
        writer=body.writer,
    )


def _is_second_handover(body: EpochBody, verdict: SignerVerdict, book: EpochBook) -> bool:
    """The writer before gave the current epoch to another node as well: valid, and therefore a rival."""
    current, previous = book.current, book.previous
    if current is None or previous is None or body.epoch != current.epoch:
        return False
    return previous.epoch + 1 == body.epoch and verdict.signer == previous.writer
