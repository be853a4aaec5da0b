"""Makes the test vectors of ``docs/spec``: ``python -m tests.support.vectors`` writes them.

They are published for other implementations. Change them only together with the version of the
specification: every manifest that was ever signed depends on them.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import msgspec
from blake3 import blake3
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from instep.errors import PeerError
from instep.model.change import ChangeSet, Fence, PathChange, wanted_contents
from instep.model.definition import Definition, FilesetClass, Mode, Preserve
from instep.model.generation import EpochBody, GenerationBody, Signature, SignedEpoch, SignedGeneration
from instep.model.ids import EMPTY_DIGEST, Digest, FilesetName, NodeName
from instep.model.manifest import chunklist, manifest, pages
from instep.model.manifest.entry import Entry, Extra, Kind
from instep.model.paths import sort_key, validated
from tests.support.union_vectors import union_vectors

VECTORS = Path(__file__).parents[2] / "docs" / "spec" / "vectors"
SIGNING_KEY = bytes(range(32))
CONTENT_BYTES = 300_000


def content(name: str, size: int) -> bytes:
    """Bytes that every implementation can make again: BLAKE3 of the name, extended to ``size`` bytes."""
    return blake3(name.encode()).digest(length=size)


def digest(name: str) -> Digest:
    return Digest(blake3(name.encode()).digest())


def generated_entries(count: int) -> list[Entry]:
    """The entries of the generated trees, in order."""
    entries = [Entry(b"d%03d" % n, Kind.DIR, 0o755, 0, n, EMPTY_DIGEST, 7) for n in range(-(-count // 100))]
    for n in range(count):
        path = b"d%03d/file-%06d" % (n // 100, n)
        entries.append(
            Entry(path, Kind.FILE, 0o644, n, 1_700_000_000_000_000_000 + n, digest(f"file {n}"), 7)
        )
    return sorted(entries, key=lambda entry: sort_key(entry.path))


def all_kinds() -> list[Entry]:
    """One entry of every sort, with every field in use somewhere."""
    large = (1 << 20) + 1
    return [
        Entry(b"a", Kind.DIR, 0o2755, 0, -1, EMPTY_DIGEST, 0),
        Entry(b"a/empty", Kind.FILE, 0o644, 0, 0, digest(""), 1_700_000_000_000),
        Entry(b"a/link", Kind.SYMLINK, 0o777, 5, 1, digest("empty"), 1),
        Entry(b"a-b", Kind.FILE, 0o4755, 127, 1_700_000_000_123_456_789, digest("a-b"), 2),
        Entry(
            b"caf\xe9\n",
            Kind.FILE,
            0o600,
            65536,
            1,
            digest("latin 1"),
            3,
            Extra(
                owner="www-data",
                group="gis",
                xattrs=((b"security.capability", b"\x01\0\0\x02"), (b"user.note", b"")),
                large_xattrs=((b"user.thumbnail", digest("thumbnail"), 5000),),
                link_group=b"caf\xe9\n",
                sparse=True,
            ),
        ),
        Entry(
            b"large",
            Kind.FILE,
            0o644,
            large,
            4,
            digest("large"),
            4,
            Extra(chunks=digest("chunks")),
        ),
    ]


def manifest_vectors() -> dict[str, Any]:
    pages_by: dict[Digest, bytes] = {}
    small = manifest.build(all_kinds(), pages_by.__setitem__)
    trees = []
    for count in (1, 1_000, 200_000):
        put: dict[Digest, bytes] = {}
        root = manifest.build(generated_entries(count), put.__setitem__)
        totals = manifest.totals(root, put.__getitem__)
        trees.append(
            {
                "files": count,
                "entries": totals.entries,
                "size_bytes": totals.size_bytes,
                "pages": len(put),
                "root_level": pages.level_of(put[root]),
                "root": root.hex(),
            }
        )
    return {
        "empty": {"page": pages.encode_page(0, []).hex(), "root": manifest.EMPTY_ROOT.hex()},
        "all_kinds": {
            "entries": [msgspec.to_builtins(_hexed(entry)) for entry in all_kinds()],
            "page": pages_by[small].hex(),
            "root": small.hex(),
        },
        "generated": trees,
        "cut": [{"path": p.hex(), "crc32": zlib.crc32(p)} for p in (b"a", b"d000/file-000000", b"caf\xe9\n")],
    }


def _hexed(value: Any) -> Any:
    if isinstance(value, msgspec.Struct):
        return [_hexed(getattr(value, name)) for name in value.__struct_fields__]
    if isinstance(value, tuple):
        return [_hexed(item) for item in value]
    return value.hex() if isinstance(value, bytes) else value


def path_vectors() -> dict[str, Any]:
    candidates = [
        b"", b"/", b"a/", b"/a", b"a//b", b".", b"..", b"a/../b", b"a/.", b"...", b"a\0b", b"a\nb", b"\xff",
        b".instep", b".INSTEP-x", b".insteps", b"a/.instep", b".inste", b"x" * 255, b"x" * 256,
        b"/".join([b"y" * 255] * 16), b"/".join([b"y" * 255] * 16) + b"/z",
    ]  # fmt: skip
    order = sorted([b"a", b"a/b", b"a-b", b"a/b/c", b"a.b", b"ab", b"a\x01", b"B", b"\xff"], key=sort_key)
    return {
        "valid": [path.hex() for path in candidates if _is_valid(path)],
        "invalid": [path.hex() for path in candidates if not _is_valid(path)],
        "in_order": [path.hex() for path in order],
    }


def _is_valid(path: bytes) -> bool:
    try:
        validated(path)
    except PeerError:
        return False
    return True


def chunk_vectors() -> dict[str, Any]:
    from pyfastcdc import FastCDC
    from pyfastcdc.py.constants import GEAR, MASKS

    params = chunklist.chunk_params(CONTENT_BYTES)
    cutter = FastCDC(
        params.average,
        min_size=params.minimum,
        max_size=params.maximum,
        normalized_chunking=params.normalization,
    )
    data = content("instep chunks", CONTENT_BYTES)
    cut = [(len(c.data), Digest(blake3(c.data).digest())) for c in cutter.cut_buf(data)]
    lists = []
    for count in (1, 100, 20_000):
        put: dict[Digest, bytes] = {}
        chunks = [(2048 + n, digest(f"chunk {n}")) for n in range(count)]
        root = chunklist.build_chunks(chunks, put.__setitem__)
        lists.append({"chunks": count, "pages": len(put), "root": root.hex()})
    return {
        "gear": [f"{value:016x}" for value in GEAR],
        "parameters": [
            {
                "files_to": limit,
                **chunklist.chunk_params(limit or 1 << 50)._asdict(),
                "mask_s": f"{MASKS[chunklist.chunk_params(limit or 1 << 50).average.bit_length()]:016x}",
                "mask_l": f"{MASKS[chunklist.chunk_params(limit or 1 << 50).average.bit_length() - 2]:016x}",
            }
            for limit in (4 << 30, 64 << 30, None)
        ],
        "cut": {"name": "instep chunks", "size": CONTENT_BYTES, "chunks": [[n, d.hex()] for n, d in cut]},
        "generated": lists,
    }


def record_vectors() -> dict[str, Any]:
    key = Ed25519PrivateKey.from_private_bytes(SIGNING_KEY)
    public = key.public_key().public_bytes_raw()
    alpha, fileset = NodeName("alpha.example.org"), FilesetName("geoserver-data")
    definition = Definition(
        mode=Mode.MIRROR,
        fileset_class=FilesetClass.DATA,
        ignore=("*.tmp", "/gwc/"),
        preserve=(Preserve.OWNER, Preserve.XATTR),
    )
    epoch = EpochBody(1, fileset, alpha, 1, alpha, public, EMPTY_DIGEST)
    generation = GenerationBody(
        version=1,
        fileset=fileset,
        origin=alpha,
        epoch=1,
        number=42,
        parent=digest("generation 41"),
        root=manifest.EMPTY_ROOT,
        definition=definition.digest,
        author="ada",
        message="Émpty for now",
        time_ms=1_700_000_000_000,
        entries=0,
        size_bytes=0,
    )
    unsigned = Signature(alpha, public, b"")
    epoch_id = SignedEpoch(epoch.encoded(), unsigned).id
    generation_id = SignedGeneration(generation.encoded(), unsigned).id
    return {
        "definition": {"raw": definition.encoded().hex(), "digest": definition.digest.hex()},
        "signing_key": SIGNING_KEY.hex(),
        "public_key": public.hex(),
        "epoch": {
            "raw": epoch.encoded().hex(),
            "id": epoch_id.hex(),
            "signature": key.sign(epoch_id).hex(),
        },
        "generation": {
            "raw": generation.encoded().hex(),
            "id": generation_id.hex(),
            "signature": key.sign(generation_id).hex(),
        },
    }


def sample_change_set() -> ChangeSet:
    """A change, an addition and a removal, under a token."""
    kinds = {entry.path: entry for entry in all_kinds()}
    old = kinds[b"large"]
    new = msgspec.structs.replace(old, size=5, digest=digest("new"), mtime_ns=5, extra=None)
    link = Entry(b"link", Kind.SYMLINK, 0o777, 5, 6, digest("target"), 0)
    gone = kinds[b"caf\xe9\n"]
    changes = (
        PathChange(gone.path, gone, None),
        PathChange(b"large", old, new),
        PathChange(b"link", None, link),
    )
    return ChangeSet(
        1, FilesetName("geoserver-data"), NodeName("alpha.example.org"), bytes(range(16)), "ada", "Émile's map",
        1_700_000_000_000, changes, Fence(2, 300, bytes(range(16, 32))), whole=True,
    )  # fmt: skip


def change_vectors() -> dict[str, Any]:
    change_set = sample_change_set()
    return {
        "fields": msgspec.to_builtins(_hexed(change_set)),
        "raw": change_set.encoded().hex(),
        "id": change_set.id.hex(),
        "token": str(change_set.token),
        "contents": [[name.hex(), size] for name, size in wanted_contents(change_set)],
    }


MAKERS = {
    "changes.json": change_vectors,
    "paths.json": path_vectors,
    "manifest.json": manifest_vectors,
    "chunks.json": chunk_vectors,
    "records.json": record_vectors,
    "union.json": union_vectors,
}


if __name__ == "__main__":
    VECTORS.mkdir(parents=True, exist_ok=True)
    for name, make in MAKERS.items():
        text = json.dumps(make(), indent=1, ensure_ascii=True) + "\n"
        (VECTORS / name).write_text(text, encoding="utf-8")
