"""Whatever bytes a peer sends, every decoder answers with a value or with its own error, never with another's."""

from __future__ import annotations

import base64
from collections.abc import Callable

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from pathspec.patterns.gitignore.spec import GitIgnoreSpecPattern

from instep.errors import DamagedError, InstepError, NotAllowedError, PeerError, UsageError
from instep.model.change import ChangeAnswer, Fence, OutcomeKind, PathOutcome
from instep.model.definition import Definition, decode_definition
from instep.model.generation import (
    UNSIGNED,
    EpochBody,
    GenerationBody,
    Signature,
    SignedEpoch,
    SignedGeneration,
)
from instep.model.ids import Digest, HeadRef, LineId, fileset_name, node_name
from instep.model.lock import (
    LockAnswer,
    LockDenied,
    LockEnd,
    LockEnded,
    LockGone,
    LockGranted,
    LockOutdated,
    LockOwner,
    LockRefused,
    LockView,
)
from instep.model.manifest.chunklist import Chunk, ChunkRun, decode_chunks, decode_runs
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.manifest.pages import (
    Child,
    decode_inner,
    decode_leaf,
    digest_of,
    encode_page,
    verify_page,
)
from instep.model.standing import Standing, StandingRecord
from instep.net.messages import messages as m
from instep.net.messages.faults import error_of_reply
from instep.net.messages.syncing import DifferenceReply, DifferenceRequest
from instep.net.transfer import AnswerStatus, FrameHeader, FrameReader, TransferAnswer, frames, parse_records
from instep.net.trust.authority import make_ca
from instep.net.trust.certs import (
    CA_LIFE_S,
    Purpose,
    check_request,
    der_of,
    facts_of,
    issue,
    make_crl,
    make_key,
    make_request,
    name_of,
    was_issued_by,
)
from instep.net.trust.decoding import certificate_of_der
from instep.net.trust.revocation import issued_s, name_extensions, union_of_pem
from instep.net.trust.tokens import Invitation, parse_token, token_text
from instep.tree.journal.journal import EndRecord, Op, Step, decode_record, encode_record
from instep.tree.scan.rules import Rules

DIGEST = Digest(bytes(range(32)))
LINE = LineId(fileset_name("data"), node_name("main"))
HEAD = HeadRef(1, 2, DIGEST, DIGEST)
SIGNATURE = Signature(node_name("main"), b"k" * 32, b"v" * 64, (b"der",))
GENERATION = GenerationBody(1, LINE.fileset, LINE.origin, 1, 2, DIGEST, DIGEST, DIGEST, "a", "m", 3, 4, 5)
EPOCH = EpochBody(1, LINE.fileset, LINE.origin, 1, node_name("main"), b"k" * 32, DIGEST)
SIGNED = SignedGeneration(GENERATION.encoded(), SIGNATURE)
ENTRIES = [
    Entry(
        b"a",
        Kind.FILE,
        0o644,
        1,
        5,
        DIGEST,
        1,
        Extra(owner="o", xattrs=((b"user.x", b"v"),), link_group=b"a"),
    ),
    Entry(b"d", Kind.DIR, 0o755, 0, 5, Digest(b""), 1),
    Entry(b"d/l", Kind.SYMLINK, 0o777, 3, 5, DIGEST, 1),
    Entry(b"large", Kind.FILE, 0o644, 2 << 20, 5, DIGEST, 1, Extra(chunks=DIGEST, sparse=True)),
]
ERROR = m.ErrorReply("code", "reason", msgspec.Raw(msgspec.msgpack.encode({"a": [1, {"b": None}], "c": 1.5})))
FENCE = Fence(1, 2, b"l" * 16)
OWNER = LockOwner(node_name("s1"), "ana", "word")
LOCK_ANSWERS: list[LockAnswer] = [
    LockGranted(FENCE, 1, 1, ENTRIES[0]),
    LockDenied(OWNER, 1, 2, "why"),
    LockOutdated(ENTRIES[2], HEAD),
    LockGone(LockEnd.LAPSED, "ana", "why"),
    LockEnded(b"a", LockEnd.RELEASED),
    LockRefused("too_many", "why", "hint"),
]
STREAM: list[m.StreamMessage] = [
    m.Hello(m.VERSIONS, node_name("s1"), b"s", (m.KnownLine(LINE, HEAD, HEAD),)),
    m.Welcome(1, node_name("main"), b"s", 1, (m.KnownLine(LINE, HEAD, None),)),
    m.Offer(LINE, node_name("main"), "mirror", "data", 1, 2, HEAD, Definition().encoded()),
    m.OfferReply(LINE, True, "/x"),
    m.Head(
        LINE,
        SIGNED,
        (SignedEpoch(EPOCH.encoded(), SIGNATURE),),
        b"d",
        m.Bundle((b"p",), ((DIGEST, b"c"),)),
        HEAD,
    ),
    m.Report(
        LINE, node_name("s1"), HEAD, None, StandingRecord(Standing.BLOCKED, 1, "r", "c", ("n",)), DIGEST, 1
    ),
    m.Members((m.Member(node_name("s1"), "h:1", "00"),)),
    m.FactsRequest(LINE, 1),
    m.FactsReply((("java", "17"),), 1, 2, ERROR),
    m.VerifyReply(1, LINE, HEAD, DIGEST, 1, (m.VerifyDifference(b"p", "w"),), 2, ERROR),
    m.PagesRequest(LINE, DIGEST, (DIGEST,), 1),
    m.PagesReply((b"p",), 1, ERROR),
    m.LockNotice(LINE, b"a", FENCE, LockEnd.STOLEN, "ben@s2", "at lunch"),
    ERROR,
]
CHUNKS = [Chunk(4_000, DIGEST), Chunk(5_000, Digest(b"x" * 32))]
TOKEN = token_text(
    Invitation(b"i" * 12, b"s" * 24, node_name("s1"), node_name("main"), ("h:1",), b"f" * 32, 1)
)

NASTY = st.sampled_from(
    [b"\x91" * 2_000, b"\xc1", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
     b"\xd9\x02\xff\xfe", b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xcb\x7f\xf8" + bytes(6),
     b"\xc7\x01\x05x", b"\xd6\xff" + b"\xff" * 4]
)  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, samples: list[bytes]) -> bytes:
    """A valid encoding with a few bytes changed, cut, doubled or replaced by something nasty."""
    raw = bytearray(draw(st.sampled_from(samples)))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(raw)))
        match draw(st.integers(0, 4)):
            case 0 if at < len(raw):
                raw[at] = draw(st.integers(0, 255))
            case 1:
                del raw[at : at + draw(st.integers(1, 8))]
            case 2:
                raw[at:at] = draw(NASTY)
            case 3:
                raw[at:at] = raw[: draw(st.integers(0, 40))]
            case _:
                del raw[at:]
    return bytes(raw)


def survives(decode: Callable[[bytes], object], raw: bytes, *kinds: type[InstepError]) -> None:
    """Nothing but these errors comes out."""
    try:
        decode(raw)
    except kinds:
        return


PAGES = [
    encode_page(0, ENTRIES),
    encode_page(0, []),
    encode_page(1, [Child(b"a", DIGEST, 1, 1), Child(b"b", DIGEST, 2, 2)]),
    encode_page(32, CHUNKS),
    encode_page(33, [ChunkRun(DIGEST, 1, 2)]),
]


@given(mutated(PAGES))
@example(b"\x92\x00" + b"\x91" * 100_000)
@example(b"\x92\x20" + b"\x91" * 100_000)
@settings(max_examples=400)
def test_pages(raw: bytes) -> None:
    for decode in (decode_leaf, decode_inner, decode_chunks, digest_of):
        survives(decode, raw, PeerError)
    survives(lambda each: decode_runs(each, 1), raw, PeerError)
    survives(lambda each: verify_page(DIGEST, each), raw, PeerError)


@given(mutated([m.encode(each) for each in STREAM]))
@example(b"\x91" * 100_000)
@example(b"\x94\xa5error\xa1c\xa1r" + b"\x91" * 100_000)
@settings(max_examples=500)
def test_messages_of_the_stream(raw: bytes) -> None:
    try:
        message = m.decode_stream(raw)
    except PeerError:
        return
    m.encode(message)
    match message:
        case m.ErrorReply():
            msgspec.json.encode(error_of_reply(message, "s1").as_json())
        case m.Head():
            survives(lambda _: message.generation.ref(), raw, PeerError)
            for epoch in message.epochs:
                survives(lambda _, epoch=epoch: epoch.body(), raw, PeerError)  # type: ignore[misc]


REQUESTS: list[msgspec.Struct] = [
    m.JoinRequest(m.VERSIONS, node_name("s1"), b"i", b"s", b"c", b"c"),
    m.HeadsRequest((m.KnownLine(LINE, HEAD, HEAD),)),
    m.HeadsReply((m.Head(LINE, SIGNED),), ((LINE, ERROR),)),
    m.ChunkPagesRequest(LINE, DIGEST, DIGEST, 1, (DIGEST,)),
    m.ContentsRequest(LINE, DIGEST, (m.PageWant(DIGEST, (1, 2)),)),
    m.RangesRequest(LINE, DIGEST, DIGEST, 1, ((0, 1),)),
    m.HoldingsRequest(LINE, (DIGEST,)),
    m.FactsRequest(LINE),
    m.FactsReply((("java", "17"),), 1),
    m.LockRequest(LINE, b"a/b", "ana", "word", DIGEST, 60_000, "a typo", FENCE),
    m.UnlockRequest(LINE, b"a/b", FENCE),
    m.BreakRequest(LINE, b"a/b", "ben", "at lunch", steals=True),
    m.LocksReply((LockView(b"a/b", OWNER, FENCE, 1, 2, 3),), False),
    *(m.LockReply(answer) for answer in LOCK_ANSWERS),
    m.SubmitHave(LINE, ((DIGEST, 1),)),
    m.SubmitHaveReply((0,)),
    DifferenceRequest(LINE, DIGEST, DIGEST),
    DifferenceReply(tuple(ENTRIES), (b"gone",)),
    m.SubmitRequest(LINE, b"x", ((DIGEST, 1),), True),
    m.SubmitReply(ChangeAnswer(DIGEST, (PathOutcome(b"a", OutcomeKind.OUTDATED, ENTRIES[0]),), HEAD)),
]


@given(st.sampled_from(REQUESTS).flatmap(lambda r: st.tuples(st.just(type(r)), mutated([m.encode(r)]))))
@settings(max_examples=300)
def test_requests_and_replies(case: tuple[type[msgspec.Struct], bytes]) -> None:
    kind, raw = case
    survives(lambda each: m.decode(each, kind), raw, PeerError)


@given(mutated([GENERATION.encoded(), EPOCH.encoded(), Definition(ignore=("a",), rollout=b"x").encoded()]))
@example(b"\x91" * 100_000)
@settings(max_examples=300)
def test_records_and_definitions(raw: bytes) -> None:
    survives(lambda each: SignedGeneration(each, UNSIGNED).body(), raw, PeerError)
    survives(lambda each: SignedEpoch(each, UNSIGNED).body(), raw, PeerError)
    survives(decode_definition, raw, PeerError)


@given(
    mutated(
        [
            b"".join(bytes(part) for part in frame)
            for frame in frames([TransferAnswer(0, AnswerStatus.WHOLE, 0, b"abc" * 300)])
        ]
    )
)
@settings(max_examples=300)
def test_frames(raw: bytes) -> None:
    def whole(each: bytes) -> None:
        if len(each) >= 9:
            header = FrameHeader.parse(each[:9])
            FrameReader(1, [(0, 900)]).take(header, each[9:])
        parse_records(each, 1)

    survives(whole, raw, PeerError)


@given(st.text(max_size=300) | mutated([TOKEN.encode()]).map(lambda raw: raw.decode("utf-8", "replace")))
@settings(max_examples=200)
def test_tokens(text: str) -> None:
    survives(lambda _: parse_token(text), b"", UsageError)


def _authority() -> tuple[x509.Certificate, bytes, bytes]:
    """A certificate, a request and a revocation list, DER."""
    key, name = make_key(Purpose.TLS), node_name("s1")
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    ca, now_ms = make_ca("c", key, 1_900_000_000_000, CA_LIFE_S), 1_900_000_000_000
    crl = make_crl(ca, key, (7, 8), now_ms, None, name_extensions({"s2": 1}, {"s3": 2}))
    made = issue(ca, key, key.public_key(), name, Purpose.TLS, now_ms)
    return made, make_request(key, name, Purpose.TLS), crl.public_bytes(Encoding.DER)


CERTIFICATE, REQUEST, REVOCATIONS = _authority()


@given(mutated([der_of(CERTIFICATE), REQUEST, REVOCATIONS]))
@settings(max_examples=300)
def test_certificates_and_requests(raw: bytes) -> None:
    """Also where the library reads a part only once it is needed."""

    def used(each: bytes) -> None:
        certificate = certificate_of_der(each)
        facts_of(certificate)
        was_issued_by(certificate, [certificate, CERTIFICATE])
        was_issued_by(CERTIFICATE, [certificate])
        issued_s(certificate)
        name_of(certificate, Purpose.TLS)

    def listed(each: bytes) -> None:
        pem = b"-----BEGIN X509 CRL-----\n" + base64.encodebytes(each) + b"-----END X509 CRL-----\n"
        found = union_of_pem(pem)
        found.is_signed_by([CERTIFICATE])
        found.covers(CERTIFICATE)

    survives(used, raw, PeerError, NotAllowedError)
    survives(listed, raw, PeerError)
    survives(lambda each: check_request(each, node_name("s1"), Purpose.TLS), raw, PeerError)


@given(
    mutated([encode_record(Step(Op.NEW, b"a", b"k", 1, ENTRIES[0], ENTRIES[3])), encode_record(EndRecord(1))])
)
@settings(max_examples=200)
def test_journal_records(raw: bytes) -> None:
    survives(decode_record, raw, DamagedError)


def test_patterns_do_not_backtrack() -> None:
    """A pattern from a peer's definition is matched in a time that its length bounds."""
    rules = Rules(Definition(ignore=("*a" * 60 + "b", "**/x/**/y/**/z", "[ab]*[ab]*[ab]*[ab]*c")))
    assert not rules.ignored(b"a" * 250, False)
    assert not rules.ignored(b"/".join([b"x/y"] * 200), False)
    assert rules.ignored(b"a" * 60 + b"b", False)
    assert rules.ignored(b"abaabbc", False)
    assert not rules.ignored(b"a/" * 2_000 + b"a", False)


COMPONENTS = st.one_of(st.just("**"), st.text("ab*?", min_size=1, max_size=5), st.just("[ab]*b"))


@given(
    st.lists(COMPONENTS, min_size=1, max_size=5).map("/".join),
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=6).map("/".join),
    st.booleans(),
)
@settings(max_examples=300)
def test_quick_patterns_match_what_the_slow_ones_match(pattern: str, path: str, is_dir: bool) -> None:
    assume(not pattern.endswith("**"))  # there our rules differ on purpose: git takes what is below only
    slow = GitIgnoreSpecPattern(pattern).regex
    assert slow is not None
    expected = slow.match(path + "/" * is_dir) is not None
    assert Rules(Definition(ignore=(pattern,))).ignored(path.encode(), is_dir) == expected
