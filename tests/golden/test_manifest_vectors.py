"""The published test vectors hold for our code, and for a second implementation made from the page alone."""

from __future__ import annotations

import json
import zlib
from typing import Any

import pytest
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.support import reference, vectors


def published(name: str) -> Any:
    return json.loads((vectors.VECTORS / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", vectors.MAKERS)
def test_our_code_still_makes_what_was_published(name: str) -> None:
    assert json.loads(json.dumps(vectors.MAKERS[name]())) == published(name)


def test_the_reference_makes_the_same_small_manifest() -> None:
    vector = published("manifest.json")
    tree = reference.manifest([_entry(fields) for fields in vector["all_kinds"]["entries"]])
    assert tree.root.hex() == vector["all_kinds"]["root"]
    assert tree.pages[tree.root].hex() == vector["all_kinds"]["page"]
    assert reference.manifest([]).root.hex() == vector["empty"]["root"]


def test_the_reference_makes_the_same_generated_manifest() -> None:
    entries: list[list[Any]] = [[b"d%03d" % n, 1, 0o755, 0, n, b"", 7, None] for n in range(10)]
    for n in range(1000):
        name = blake3(b"file %d" % n).digest()
        path = b"d%03d/file-%06d" % (n // 100, n)
        entries.append([path, 0, 0o644, n, 1_700_000_000_000_000_000 + n, name, 7, None])
    tree = reference.manifest(entries)
    vector = next(t for t in published("manifest.json")["generated"] if t["files"] == 1000)
    assert (tree.root.hex(), len(tree.pages)) == (vector["root"], vector["pages"])


def test_crc32_is_the_common_one() -> None:
    for vector in published("manifest.json")["cut"]:
        assert zlib.crc32(bytes.fromhex(vector["path"])) == vector["crc32"]
    assert zlib.crc32(b"123456789") == 0xCBF43926


def test_the_reference_cuts_and_lists_the_same_chunks() -> None:
    vector = published("chunks.json")
    gear = [int(word, 16) for word in vector["gear"]]
    small = vector["parameters"][0]
    data = vectors.content(vector["cut"]["name"], vector["cut"]["size"])
    lengths = reference.fastcdc(
        data, small["average"], small["minimum"], small["maximum"], gear,
        int(small["mask_s"], 16), int(small["mask_l"], 16),
    )  # fmt: skip
    assert lengths == [length for length, _ in vector["cut"]["chunks"]]
    start = 0
    for length, name in vector["cut"]["chunks"]:
        assert blake3(data[start : start + length]).hexdigest() == name
        start += length
    for generated in vector["generated"]:
        chunks = [(2048 + n, blake3(b"chunk %d" % n).digest()) for n in range(generated["chunks"])]
        tree = reference.chunk_list(chunks)
        assert (tree.root.hex(), len(tree.pages)) == (generated["root"], generated["pages"])


def test_records_are_tagged_hashed_and_signed_as_the_page_says() -> None:
    vector = published("records.json")
    key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(vector["public_key"]))
    for kind, domain in (("generation", b"instep generation 1\0"), ("epoch", b"instep epoch 1\0")):
        record = vector[kind]
        assert blake3(domain + bytes.fromhex(record["raw"])).hexdigest() == record["id"]
        key.verify(bytes.fromhex(record["signature"]), bytes.fromhex(record["id"]))
    definition = ["mirror", "data", ["*.tmp", "/gwc/"], [], ["owner", "xattr"], [], [], b""]
    assert reference.pack([1, *definition]).hex() == vector["definition"]["raw"]
    assert blake3(bytes.fromhex(vector["definition"]["raw"])).hexdigest() == vector["definition"]["digest"]


def test_the_reference_makes_the_same_change_set() -> None:
    vector = published("changes.json")
    version, fileset, origin, nonce, author, message, at, changes, token, whole = vector["fields"]
    raw = reference.pack([
        version, fileset, origin, bytes.fromhex(nonce), author, message, at,
        [[bytes.fromhex(path), base and _entry(base), new and _entry(new)] for path, base, new in changes],
        [token[0], token[1], bytes.fromhex(token[2])], whole,
    ])  # fmt: skip
    assert raw.hex() == vector["raw"]
    assert blake3(b"instep change set 1\0" + raw).hexdigest() == vector["id"]
    assert vector["token"] == f"{token[0]}.{token[1]}.{token[2]}"


def _entry(fields: list[Any]) -> list[Any]:
    path, kind, mode, size, mtime, digest, born, extra = fields
    if extra is not None:
        owner, group, xattrs, large, link_group, sparse, chunks = extra
        extra = [
            owner,
            group,
            [[bytes.fromhex(name), bytes.fromhex(value)] for name, value in xattrs],
            [[bytes.fromhex(name), bytes.fromhex(value), size_] for name, value, size_ in large],
            link_group and bytes.fromhex(link_group),
            sparse,
            chunks and bytes.fromhex(chunks),
        ]
    return [bytes.fromhex(path), kind, mode, size, mtime, bytes.fromhex(digest), born, extra]
