"""The messages between peers, as msgpack. Implements the section "Messages" of ``docs/spec/wire.md``.

Every message is a tagged array: ``[tag, field, field, ...]``. Fields are only ever appended, with defaults,
so that a version and its predecessor understand each other. Decoding is bounded and typed, and every fault
of the bytes becomes one ``PeerError`` with code ``bad_message``.

Over 400 lines: it is one table, the wire of the specification, and most kinds refer to others.
"""

from __future__ import annotations

import functools
import json
import operator
from typing import Annotated, Any, TypeVar

import msgspec

from instep.errors import InstepError, PeerError
from instep.model.decoding import DECODE_ERRORS
from instep.model.generation import SignedEpoch, SignedGeneration
from instep.model.ids import HeadRef, LineId
from instep.model.rollout import SERIAL_MAX
from instep.model.rollout import Order as RolloutOrder
from instep.model.standing import StandingRecord
from instep.net.messages.changing import SUBMIT_BYTES_MAX as SUBMIT_BYTES_MAX
from instep.net.messages.changing import BreakRequest as BreakRequest
from instep.net.messages.changing import FlushReply as FlushReply
from instep.net.messages.changing import FlushRequest as FlushRequest
from instep.net.messages.changing import LockNotice as LockNotice
from instep.net.messages.changing import LockReply as LockReply
from instep.net.messages.changing import LockRequest as LockRequest
from instep.net.messages.changing import LocksReply as LocksReply
from instep.net.messages.changing import LocksRequest as LocksRequest
from instep.net.messages.changing import SubmitHave as SubmitHave
from instep.net.messages.changing import SubmitHaveReply as SubmitHaveReply
from instep.net.messages.changing import SubmitReply as SubmitReply
from instep.net.messages.changing import SubmitRequest as SubmitRequest
from instep.net.messages.changing import UnlockRequest as UnlockRequest
from instep.net.messages.changing import why_not_positions as why_not_positions
from instep.net.messages.freshness import Fresh as Fresh
from instep.net.messages.introducing import INTRODUCED_MAX as INTRODUCED_MAX
from instep.net.messages.introducing import Introductions as Introductions
from instep.net.messages.lending import HasReply as HasReply
from instep.net.messages.lending import HasRequest as HasRequest
from instep.net.messages.lending import Part as Part
from instep.net.messages.lending import PartsReply as PartsReply
from instep.net.messages.lending import PartsRequest as PartsRequest
from instep.net.messages.lending import PartWant as PartWant
from instep.net.messages.lending import Wanted as Wanted
from instep.net.messages.lending import Warrant as Warrant
from instep.net.messages.members import LINES_MAX as LINES_MAX
from instep.net.messages.members import ROWS_MAX as ROWS_MAX
from instep.net.messages.members import Member as Member
from instep.net.messages.members import Members as Members
from instep.net.messages.members import Rows as Rows
from instep.net.messages.members import Serving as Serving
from instep.net.messages.parts import Address, Count, Message, Name, RawDigest, Small, Takes, Text
from instep.net.messages.parts import StreamMessage as StreamMessage
from instep.net.messages.syncing import MarksReply as MarksReply
from instep.net.messages.syncing import MarksRequest as MarksRequest
from instep.net.messages.syncing import ProfileNotice as ProfileNotice
from instep.net.messages.syncing import ProfileReply as ProfileReply
from instep.net.messages.syncing import SideFactsReply as SideFactsReply
from instep.net.messages.syncing import SideFactsRequest as SideFactsRequest
from instep.net.messages.syncing import SyncReply as SyncReply
from instep.net.messages.syncing import SyncRequest as SyncRequest

REQUEST_BYTES_MAX = 4 << 20
"""Largest request body, encoded and decompressed."""
MESSAGE_BYTES_MAX = 4 << 20  # on the stream
BUNDLE_BYTES_MAX = 1 << 20
"""Pages and contents that a head may bring along, together."""
DEFINITION_BYTES_MAX = 256 << 10
FACTS_BYTES_MAX = 16 << 10
JOIN_BYTES_MAX = 128 << 10  # of a node that has no certificate yet
PAGES_REPLY_BYTES_MAX = 32 << 20
"""Decompressed size of a reply with pages. A sender that has more stops early; the asker asks again."""
STREAM_PAGES_BYTES_MAX = 2 << 20
"""The same for a reply on the stream, which must fit a message there."""
HEADS_REPLY_BYTES_MAX = 8 << 20
"""Decompressed size of a reply with heads. A sender that has more leaves bundles out, then heads."""
MEMBERS_BYTES_MAX = 3 << 20
"""Bound of all members' ``serving`` and ``rows`` together; of more, the last ones are sent without them."""
SERVING_BYTES_MAX = 16 << 10
"""Most that one member may say of how it serves."""
DRAIN_MS_MAX = 365 * 86_400_000
"""Longest drain with an end that a partner can ask for."""
TAKES = (
    "members", "drain", "test", "contents", "revocations", "warrant", "offers", "introductions", "hub_offers", "looks",
    "sync", "fresh", "secrets",
)  # fmt: skip
"""Messages of later additions that this node understands from a peer that would not have sent them before."""
DIGESTS_MAX = 256
REASON_MAX = 4_000
WANTS_MAX = RANGES_MAX = 65_536
EPOCHS_MAX = 1_024
DIFFERENCES_MAX = 1_000
TEST_ROWS_MAX = 256
PREFIX = "/peer/v1/"
ZSTD_HEADER = "Instep-Zstd"
"""Marks an answer whose body is compressed as a whole."""
ERROR_HEADER = "Instep-Error"
"""The same ``ErrorReply`` in base64 where a refused upgrade leaves the caller no body to read."""
VERSION_HEADER = "Instep-Versions"
"""Carries ``low-high`` on every request."""


class Versions(msgspec.Struct, frozen=True, array_like=True):
    """The range of protocol versions that a node speaks: its own, and at least the one before."""

    low: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
    high: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]

    def __str__(self) -> str:
        return f"{self.low}-{self.high}"


VERSIONS = Versions(1, 3)


def since(kind: type[msgspec.Struct]) -> int:
    """The protocol version that a sender's message on the stream needs: a node of an older one would cut the stream
    for a kind that it does not know, and never sends it."""
    if issubclass(kind, LockNotice):
        return 3
    return 2 if issubclass(kind, FactsRequest | OrderMessage) else 1


def versions_of_header(text: str | None) -> Versions:
    """The range in a ``Instep-Versions`` header, or ``PeerError``."""
    low, dash, high = (text or "").partition("-")
    if not dash or not (low.isdecimal() and high.isdecimal()) or len(low) > 6 or len(high) > 6:
        raise PeerError("the request names no versions", code="bad_version", header=(text or "")[:64])
    return Versions(int(low), int(high))


def agree(ours: Versions, theirs: Versions) -> int:
    """The highest version that both speak, or ``PeerError`` with code ``version`` and both ranges."""
    version = min(ours.high, theirs.high)
    if version < ours.low or version < theirs.low:
        older = "the other side" if theirs.high < ours.low else "this node"
        raise PeerError(
            f"no common protocol version: this node speaks {ours}, the other side {theirs}",
            code="version",
            hint=f"upgrade {older}",
            ours=str(ours),
            theirs=str(theirs),
        )
    return version


# On the stream ----------------------------------------------------------------------------------------------


class KnownLine(Message, frozen=True, array_like=True):
    """A line that the speaker follows or writes, and how far it knows it."""

    line: LineId
    head: HeadRef | None = None
    live: HeadRef | None = None


_Known = Annotated[tuple[KnownLine, ...], msgspec.Meta(max_length=LINES_MAX)]


class Hello(StreamMessage, tag="hello", frozen=True, array_like=True):
    """First message of the partner that dials. ``session`` is fresh at each start of the daemon; ``sign_key``
    is its raw Ed25519 key, for federation by pins; ``address`` is where it can be called, empty if nowhere."""

    versions: Versions
    name: Name
    session: Small
    lines: _Known = ()
    address: Address = ""
    sign_key: Small = b""
    members_digest: Small = b""
    takes: Takes = ()


class Welcome(StreamMessage, tag="welcome", frozen=True, array_like=True):
    """First answer. ``time_ms`` is the sender's wall clock; ``seen_at`` the IP address that the partner comes from."""

    version: Count
    name: Name
    session: Small
    time_ms: Count
    lines: _Known = ()
    sign_key: Small = b""
    poll_ms: Count = 30_000
    takes: Takes = ()
    seen_at: Address = ""


class Offer(StreamMessage, tag="offer", frozen=True, array_like=True):
    """A line that the sender would let the partner have; nothing is written until it was accepted there.
    ``definition`` is the encoded definition; ``is_withdrawn`` takes the offer back."""

    line: LineId
    writer: Name
    mode: Text
    fileset_class: Text
    entries: Count = 0
    size_bytes: Count = 0
    head: HeadRef | None = None
    definition: Annotated[bytes, msgspec.Meta(max_length=DEFINITION_BYTES_MAX)] = b""
    path: Text = ""
    is_withdrawn: bool = False


class OfferReply(StreamMessage, tag="offer_reply", frozen=True, array_like=True):
    """Whether the partner has accepted this line; sent when that changes and after each offer."""

    line: LineId
    is_accepted: bool
    path: Text = ""


class Bundle(Message, frozen=True, array_like=True):
    """New pages and small contents that travel with a head; at most ``BUNDLE_BYTES_MAX`` together."""

    pages: tuple[bytes, ...] = ()
    contents: tuple[tuple[RawDigest, bytes], ...] = ()

    def __post_init__(self) -> None:
        if self.size_bytes > BUNDLE_BYTES_MAX:
            raise ValueError("the bundle is too large")

    @property
    def size_bytes(self) -> int:
        return sum(map(len, self.pages)) + sum(32 + len(data) for _, data in self.contents)


class Head(StreamMessage, tag="head", frozen=True, array_like=True):
    """A line's newest generation, the epoch records up to it and, when it fits, all that is new in it. ``base``: the
    generation that the bundle was made against; ``beside``: the writer's other generation of the receiver's position.
    Also sent upwards, to a writer that lost its state."""

    line: LineId
    generation: SignedGeneration
    epochs: Annotated[tuple[SignedEpoch, ...], msgspec.Meta(max_length=EPOCHS_MAX)] = ()
    definition: Annotated[bytes, msgspec.Meta(max_length=DEFINITION_BYTES_MAX)] = b""
    bundle: Bundle | None = None
    base: HeadRef | None = None
    writer: Name | None = None
    beside: HeadRef | None = None


class Epochs(StreamMessage, tag="epochs", frozen=True, array_like=True):
    """The epoch records of a line whose writer changed, sent by either side to a peer that named the line itself:
    believed for their signatures, not for their sender."""

    line: LineId
    records: Annotated[tuple[SignedEpoch, ...], msgspec.Meta(max_length=EPOCHS_MAX)]


class TakeOverRequest(StreamMessage, tag="take_over", frozen=True, array_like=True):
    """The line's writer asks a partner whether it could go on with the line for these nodes. Nothing is changed."""

    number: Count
    line: LineId
    partners: Annotated[tuple[Name, ...], msgspec.Meta(max_length=LINES_MAX)] = ()


class Obstacle(Message, frozen=True, array_like=True):
    """One obstacle: its node (empty: the partner itself), the reason, and the command that helps."""

    about: Text
    reason: Text
    hint: Text


class TakeOverReply(StreamMessage, tag="take_over_reply", frozen=True, array_like=True):
    """Nothing stands against it when there is no obstacle and no error."""

    number: Count
    obstacles: Annotated[tuple[Obstacle, ...], msgspec.Meta(max_length=LINES_MAX)] = ()
    error: ErrorReply | None = None


class TestRequest(StreamMessage, tag="test", frozen=True, array_like=True):
    """The line's writer asks a partner to run its own probes and golden requests now. Nothing is changed, and the
    partner's own configuration names the probes and requests."""

    number: Count
    line: LineId


class TestAnswer(Message, frozen=True, array_like=True):
    """An application's answer; of the body only the digest, in hex."""

    status: Count
    sha256: Text
    size_bytes: Count
    problem: Text


class TestRow(Message, frozen=True, array_like=True):
    """One probe or golden request. ``reason`` is empty when it went well; ``asked`` is the same on two nodes that ask
    the same."""

    name: Text
    kind: Text
    reason: Text
    compare: Text = ""
    asked: Text = ""
    is_compared: bool = False
    before: TestAnswer | None = None
    now: TestAnswer | None = None
    largest_difference: Count | None = None
    share_percent: Annotated[float, msgspec.Meta(ge=0, le=100)] | None = None


class TestReply(StreamMessage, tag="test_reply", frozen=True, array_like=True):
    number: Count
    live: HeadRef | None = None
    rows: Annotated[tuple[TestRow, ...], msgspec.Meta(max_length=TEST_ROWS_MAX)] = ()
    error: ErrorReply | None = None


class HeadNotice(StreamMessage, tag="head_notice", frozen=True, array_like=True):
    """The speaker now knows this head: nothing of it needs to be sent back. From a hub: it may not serve it yet, and
    ``is_cut_off`` when none of its own sources is connected."""

    line: LineId
    head: HeadRef
    is_cut_off: bool = False


class Report(StreamMessage, tag="report", frozen=True, array_like=True):
    """How a line stands at ``node``. ``attested_root``: what its tree really had at ``at_ms``. ``via``: its
    own sender, when a hub passes reports on. ``done_bytes`` of ``total_bytes`` were fetched while it applies, else both
    are 0. ``staged`` passed its gates and ``validate``; ``replaced``: what live replaced; ``refused`` was put back;
    ``tree``: the tree's generation, live or not; ``order_serial``: of the newest order, else 0; ``spent_permit``: the
    highest permit for ``head`` that a refusal ended; ``refused_config``: why ``instep.toml`` is not in use;
    ``is_ended``: it does not follow the line any more; ``drift``: local changes archived or restored last, and when."""

    line: LineId
    node: Name
    live: HeadRef | None
    head: HeadRef | None
    standing: StandingRecord
    attested_root: Small = b""
    at_ms: Count = 0
    via: Text = ""
    done_bytes: Count = 0
    total_bytes: Count = 0
    staged: HeadRef | None = None
    replaced: HeadRef | None = None
    refused: HeadRef | None = None
    waits_for_permit: bool = False
    is_drained: bool = False
    drain_reason: Text = ""
    order_serial: Annotated[int, msgspec.Meta(ge=0, le=SERIAL_MAX)] = 0
    tree: HeadRef | None = None
    spent_permit: Annotated[int, msgspec.Meta(ge=0, le=SERIAL_MAX)] = 0
    refused_config: Text = ""
    is_ended: bool = False
    drift: tuple[Text, Count] = ("", 0)


class OrderMessage(StreamMessage, tag="order", frozen=True, array_like=True):
    """The whole present order of a rollout, from the line's writer or its hub. Level: to repeat it does no harm."""

    line: LineId
    order: RolloutOrder


class Revocations(StreamMessage, tag="revocations", frozen=True, array_like=True):
    """The CA's revocation lists, PEM, the newest first; believed for their signatures, not for their sender. A partner
    sends them, too, to a sender that takes ``revocations``."""

    crl: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]


class Nudge(StreamMessage, tag="nudge", frozen=True, array_like=True):
    """An operator's word to a node that may have no open port: ``retry`` or ``resend``."""

    line: LineId | None
    what: Text


class DrainRequest(StreamMessage, tag="drain", frozen=True, array_like=True):
    """An operator at the sender wants the partner drained, or its own drain taken back. Done only where the partner's
    ``allow_drain`` names the sender. ``for_ms`` 0: until it is taken back."""

    number: Count
    is_drained: bool
    reason: Annotated[str, msgspec.Meta(max_length=500)] = ""
    for_ms: Annotated[int, msgspec.Meta(ge=0, le=DRAIN_MS_MAX)] = 0


class DrainReply(StreamMessage, tag="drained", frozen=True, array_like=True):
    """Whether that changed anything, and how the partner stands now: it may be drained for another reason."""

    number: Count
    changed: bool = False
    is_drained: bool = False
    error: ErrorReply | None = None


class VerifyRequest(StreamMessage, tag="verify", frozen=True, array_like=True):
    """Compare the tree with the live generation and answer with the attested root; ``deep`` reads every byte."""

    number: Count
    line: LineId
    is_deep: bool = False


class VerifyDifference(Message, frozen=True, array_like=True):
    path: Annotated[bytes, msgspec.Meta(max_length=4096)]
    why: Text


class VerifyReply(StreamMessage, tag="verified", frozen=True, array_like=True):
    """``differs`` holds at most ``DIFFERENCES_MAX``; ``differing`` counts all of them."""

    number: Count
    line: LineId
    live: HeadRef | None
    attested_root: Small
    differing: Count = 0
    differs: Annotated[tuple[VerifyDifference, ...], msgspec.Meta(max_length=DIFFERENCES_MAX)] = ()
    read_bytes: Count = 0
    error: ErrorReply | None = None
    is_done: bool = True


class SupersededNotice(StreamMessage, tag="superseded", frozen=True, array_like=True):
    """Contents of this generation are no longer kept; ``head`` is what to take instead."""

    line: LineId
    head: HeadRef | None


class Ping(StreamMessage, tag="ping", frozen=True, array_like=True):
    number: Count


class Pong(StreamMessage, tag="pong", frozen=True, array_like=True):
    number: Count
    time_ms: Count = 0


class Goodbye(StreamMessage, tag="goodbye", frozen=True, array_like=True):
    """Last message before an orderly close: ``stopping``, ``unlinked``, ``revoked``, ``replaced``, ``config``."""

    reason: Text


class ErrorReply(StreamMessage, tag="error", frozen=True, array_like=True):
    """An error of the tree, in the shape that ``--json`` prints."""

    code: Annotated[str, msgspec.Meta(max_length=64)]
    reason: Text
    facts: msgspec.Raw = msgspec.Raw(b"\x80")
    """A map, left encoded until it is looked at: decoding anything at all would let 4 MiB become a hundred times
    as much."""
    hint: Text | None = None
    exit_code: Annotated[int, msgspec.Meta(ge=0, le=255)] = 1
    retry: Annotated[str, msgspec.Meta(max_length=16)] = "never"

    def known_facts(self) -> dict[str, Any]:
        """The facts as JSON values; none at all where they are too large or hold anything else."""
        raw = bytes(self.facts)
        if len(raw) > FACTS_BYTES_MAX:
            return {}
        try:
            facts: dict[str, Any] = msgspec.msgpack.decode(raw, type=dict[str, Any])
            json.dumps(facts, allow_nan=False)
        except (*DECODE_ERRORS, TypeError, ValueError):
            return {}
        return facts


# Requests with one answer -----------------------------------------------------------------------------------


class JoinRequest(Message, tag="join", frozen=True, array_like=True):
    """``secret`` is the token's; both signing requests are DER and prove possession of their keys."""

    versions: Versions
    name: Name
    token_id: Small
    secret: Small
    tls_csr: Small
    sign_csr: Small
    address: Address = ""


class JoinReply(Message, tag="joined", frozen=True, array_like=True):
    """Certificates are PEM. ``inviter`` is listed as partner by the new node, with zeros."""

    version: Count
    cluster: Text
    inviter: Name
    inviter_address: Address
    ca: Small
    tls_cert: Small
    sign_cert: Small
    crl: Annotated[bytes, msgspec.Meta(max_length=1 << 20)]
    members: Annotated[tuple[Member, ...], msgspec.Meta(max_length=LINES_MAX)] = ()
    offers: Annotated[tuple[Offer, ...], msgspec.Meta(max_length=LINES_MAX)] = ()


class FederateRequest(Message, tag="federate", frozen=True, array_like=True):
    """A node of another cluster uses a token: no certificate is made, each side trusts the other's keys. The signing
    requests prove possession of both; ``chain`` is the TLS certificate, DER, and its issuer."""

    name: Name
    token_id: Small
    secret: Small
    tls_csr: Small
    sign_csr: Small
    chain: Annotated[tuple[Small, ...], msgspec.Meta(min_length=1, max_length=8)]
    address: Address = ""


class FederateReply(Message, tag="federated", frozen=True, array_like=True):
    """``sign_key`` is the inviting node's; its TLS key was verified before anything was sent."""

    inviter: Name
    sign_key: Small
    offers: Annotated[tuple[Offer, ...], msgspec.Meta(max_length=LINES_MAX)] = ()


class RenewRequest(Message, tag="renew", frozen=True, array_like=True):
    tls_csr: Small
    sign_csr: Small


class RenewReply(Message, tag="renewed", frozen=True, array_like=True):
    tls_cert: Small
    sign_cert: Small
    ca: Small = b""


class HeadsRequest(Message, tag="heads", frozen=True, array_like=True):
    """A request for heads above those that the asker knows. ``holds``: its heads, also where it wants them again."""

    lines: _Known
    with_bundles: bool = True
    holds: _Known = ()


class HeadsReply(Message, tag="heads_reply", frozen=True, array_like=True):
    """Heads above the known ones; ``refused`` names lines that the link does not allow or this node does not have."""

    heads: Annotated[tuple[Head, ...], msgspec.Meta(max_length=LINES_MAX)]
    refused: Annotated[tuple[tuple[LineId, ErrorReply], ...], msgspec.Meta(max_length=LINES_MAX)] = ()
    superseded: Annotated[tuple[SupersededNotice, ...], msgspec.Meta(max_length=LINES_MAX)] = ()


class PagesRequest(StreamMessage, tag="pages", frozen=True, array_like=True):
    """Pages of a generation's manifest, by digest. ``number`` matters only on the stream."""

    line: LineId
    generation: RawDigest
    digests: Annotated[tuple[RawDigest, ...], msgspec.Meta(max_length=DIGESTS_MAX)]
    number: Count = 0


class PagesReply(StreamMessage, tag="pages_reply", frozen=True, array_like=True):
    """The first ``len(pages)`` of the pages that were asked for; fewer means: ask for the rest.
    ``error`` says why the next one cannot be had."""

    pages: Annotated[tuple[bytes, ...], msgspec.Meta(max_length=DIGESTS_MAX)]
    number: Count = 0
    error: ErrorReply | None = None


class ChunkPagesRequest(Message, tag="chunk_pages", frozen=True, array_like=True):
    """Pages of the chunk list of the file at (``page``, ``position``); answered by ``PagesReply``."""

    line: LineId
    generation: RawDigest
    page: RawDigest
    position: Annotated[int, msgspec.Meta(ge=0, lt=512)]
    digests: Annotated[tuple[RawDigest, ...], msgspec.Meta(max_length=DIGESTS_MAX)]


_Position = Annotated[int, msgspec.Meta(ge=0, lt=512)]


class PageWant(Message, frozen=True, array_like=True):
    """Entries of one leaf page whose contents are wanted."""

    page: RawDigest
    positions: Annotated[tuple[_Position, ...], msgspec.Meta(min_length=1, max_length=512)]


class ContentsRequest(Message, tag="contents", frozen=True, array_like=True):
    """Whole contents. Answers carry the want's index: positions counted through all of ``wants`` in order.
    ``may_compress`` is off where the asker knows the link to be faster than compression."""

    line: LineId
    generation: RawDigest
    wants: Annotated[tuple[PageWant, ...], msgspec.Meta(max_length=WANTS_MAX)]
    may_compress: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.count > WANTS_MAX:
            raise ValueError("too many contents in one request")

    @property
    def count(self) -> int:
        return sum(len(want.positions) for want in self.wants)


class RangesRequest(Message, tag="ranges", frozen=True, array_like=True):
    """Parts of one content as ``(offset, length)``; answers carry the range's index and absolute offsets."""

    line: LineId
    generation: RawDigest
    page: RawDigest
    position: _Position
    ranges: Annotated[tuple[tuple[Count, Count], ...], msgspec.Meta(max_length=RANGES_MAX)]
    may_compress: bool = True


class HoldingsRequest(Message, tag="holdings", frozen=True, array_like=True):
    """Whose contents does the asked node still have, whole? For ``log`` and for rollback without history."""

    line: LineId
    generations: Annotated[tuple[RawDigest, ...], msgspec.Meta(max_length=DIGESTS_MAX)]


class HoldingsReply(Message, tag="holdings_reply", frozen=True, array_like=True):
    is_whole: Annotated[tuple[bool, ...], msgspec.Meta(max_length=DIGESTS_MAX)]


class FactsRequest(StreamMessage, tag="facts", frozen=True, array_like=True):
    """The facts that the gates of this line are about, and the built-in ones, of the node that is asked. On the stream
    the line's writer asks its partner, with a ``number``, also for the facts that it ``names``. Fingerprints of secrets
    are answered under ``key``, which is the asker's own and random."""

    line: LineId
    number: Count = 0
    key: Small = b""
    names: Annotated[tuple[Text, ...], msgspec.Meta(max_length=128)] = ()


class FactsReply(StreamMessage, tag="facts_reply", frozen=True, array_like=True):
    """``time_ms`` is the sender's wall clock when the answer leaves, after the gathering."""

    facts: Annotated[tuple[tuple[Text, Text], ...], msgspec.Meta(max_length=128)]
    time_ms: Count = 0
    number: Count = 0
    error: ErrorReply | None = None


_encoder = msgspec.msgpack.Encoder()
_on_stream = functools.reduce(operator.or_, StreamMessage.__subclasses__())
_stream_decoder: msgspec.msgpack.Decoder[StreamMessage] = msgspec.msgpack.Decoder(_on_stream)
_decoders: dict[type, msgspec.msgpack.Decoder[Any]] = {}

_M = TypeVar("_M", bound=msgspec.Struct)


def encode(message: msgspec.Struct) -> bytes:
    return _encoder.encode(message)


def decode(raw: bytes | memoryview, kind: type[_M], *, limit: int = REQUEST_BYTES_MAX) -> _M:
    """The message of this kind, or ``PeerError`` with code ``bad_message`` (``too_large`` above ``limit``)."""
    decoder = _decoders.get(kind)
    if decoder is None:
        decoder = _decoders[kind] = msgspec.msgpack.Decoder(kind)
    message: _M = _decode(decoder, raw, kind.__name__, limit)
    return message


def decode_stream(raw: bytes) -> StreamMessage:
    """A message of the stream, or ``PeerError``."""
    message: StreamMessage = _decode(_stream_decoder, raw, "stream message", MESSAGE_BYTES_MAX)
    return message


def _decode(decoder: msgspec.msgpack.Decoder[Any], raw: bytes | memoryview, what: str, limit: int) -> Any:
    if len(raw) > limit:
        raise PeerError(
            f"{what} is {len(raw)} bytes long, the limit is {limit}", code="too_large", limit=limit
        )
    try:
        return decoder.decode(raw)
    except InstepError as error:
        raise PeerError(f"{what}: {error.reason}", code="bad_message") from error
    except (*DECODE_ERRORS, ValueError, OverflowError) as error:
        raise PeerError(f"{what} cannot be decoded: {error}", code="bad_message") from error
