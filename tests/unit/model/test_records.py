"""Generations, epoch records and definitions: round trips, and refusals of hostile bytes."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from instep.errors import PeerError
from instep.model.definition import Definition, Preserve, decode_definition
from instep.model.generation import EpochBody, GenerationBody, Signature, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, HeadRef, LineId, NodeName

ALPHA, DATA = NodeName("alpha"), FilesetName("data")
D = Digest(b"d" * 32)
UNSIGNED = Signature(ALPHA, b"", b"")
GENERATION = GenerationBody(1, DATA, ALPHA, 2, 41, D, D, D, "ada", "héllo", 5, 3, 1000)
EPOCH = EpochBody(1, DATA, ALPHA, 2, ALPHA, b"key", EMPTY_DIGEST)
DEFINITION = Definition(ignore=("*.tmp",), preserve=(Preserve.ACL,))

Decode = Callable[[bytes], object]
DECODERS: list[tuple[Decode, bytes]] = [
    (lambda raw: SignedGeneration(raw, UNSIGNED).body(), GENERATION.encoded()),
    (lambda raw: SignedEpoch(raw, UNSIGNED).body(), EPOCH.encoded()),
    (decode_definition, DEFINITION.encoded()),
]
each_decoder = pytest.mark.parametrize(("decode", "raw"), DECODERS, ids=["generation", "epoch", "definition"])


def test_round_trips() -> None:
    signed = SignedGeneration(GENERATION.encoded(), UNSIGNED)
    assert signed.body() == GENERATION
    assert signed.ref() == HeadRef(2, 41, signed.id, D)
    assert GENERATION.line == EPOCH.line == LineId(DATA, ALPHA)
    assert SignedEpoch(EPOCH.encoded(), UNSIGNED).body() == EPOCH
    assert decode_definition(DEFINITION.encoded()) == DEFINITION


def test_ids_differ_by_kind_and_by_every_byte() -> None:
    raw = GENERATION.encoded()
    ids = {SignedGeneration(raw, UNSIGNED).id, SignedEpoch(raw, UNSIGNED).id}
    ids |= {SignedGeneration(raw[:-1] + bytes([raw[-1] ^ 1]), UNSIGNED).id}
    assert len(ids) == 3


def test_the_id_does_not_depend_on_the_signature() -> None:
    other = Signature(NodeName("beta"), b"k", b"v", (b"chain",))
    assert SignedGeneration(b"x", UNSIGNED).id == SignedGeneration(b"x", other).id


@each_decoder
def test_a_second_encoding_of_the_same_is_refused(decode: Decode, raw: bytes) -> None:
    assert raw[1] == 1
    appended = msgspec.msgpack.encode([*msgspec.msgpack.decode(raw), 1])
    shortened = msgspec.msgpack.encode(msgspec.msgpack.decode(raw)[:-1])
    for second in (raw[:1] + b"\xcc\x01" + raw[2:], raw + b"\0", appended, shortened, raw[:-1]):
        with pytest.raises(PeerError) as refused:
            decode(second)
        assert refused.value.error_code in ("bad_record", "bad_definition")


@each_decoder
def test_deep_nesting_and_huge_lengths_are_refused(decode: Decode, raw: bytes) -> None:
    deep = b"\x91" * 100_000 + b"\xc0"
    longer = bytes([raw[0] + 1]) + raw[1:] + deep
    for hostile in (deep, longer, b"\xdd\xff\xff\xff\xff", raw[:2] + b"\xdb\xff\xff\xff\xff", b""):
        with pytest.raises(PeerError):
            decode(hostile)


@given(st.sampled_from(range(len(DECODERS))), st.binary(max_size=100), st.integers(0, 200))
def test_any_bytes_decode_or_are_refused(which: int, noise: bytes, at: int) -> None:
    decode, raw = DECODERS[which]
    for hostile in (noise, raw[:at] + noise + raw[at + len(noise) :]):
        try:
            decoded = decode(hostile)
        except PeerError:
            continue
        assert decoded.encoded() == hostile  # type: ignore[attr-defined]
