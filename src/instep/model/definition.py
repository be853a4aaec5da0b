"""The rules that travel with a line. Implements the section "Definitions" of ``docs/spec/manifest.md``."""

from __future__ import annotations

import enum

import msgspec
from blake3 import blake3

from instep.errors import PeerError
from instep.model.decoding import DECODE_ERRORS
from instep.model.ids import Digest
from instep.model.paths import shown

PATTERNS_MAX = 1_000
PATTERN_MAX = 1_024
DOUBLE_STARS_MAX = 3


class Mode(enum.Enum):
    MIRROR = "mirror"
    REPLICATE = "replicate"
    SHARED = "shared"


class FilesetClass(enum.Enum):
    METADATA = "metadata"
    DATA = "data"
    SECRET = "secret"
    """Keys and certificates: for the partners that the writer names, without the rights of other users."""


class Preserve(enum.Enum):
    """The metadata that a definition can ask to keep beyond modes, times and symlinks."""

    OWNER = "owner"
    XATTR = "xattr"
    ACL = "acl"
    HARDLINKS = "hardlinks"
    SPARSE = "sparse"


class Definition(msgspec.Struct, frozen=True, array_like=True):
    """Set where a fileset is written; at a partner these keys are errors. ``rollout`` is the encoded
    rollout section or empty: carried, not interpreted here."""

    version: int = 1
    mode: Mode = Mode.MIRROR
    fileset_class: FilesetClass = FilesetClass.METADATA
    ignore: tuple[str, ...] = ()
    include: tuple[str, ...] = ()
    preserve: tuple[Preserve, ...] = ()
    packages: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    rollout: bytes = b""

    def encoded(self) -> bytes:
        return msgspec.msgpack.encode(self)

    @property
    def is_secret(self) -> bool:
        return self.fileset_class is FilesetClass.SECRET

    @property
    def digest(self) -> Digest:
        return Digest(blake3(self.encoded()).digest())


def decode_definition(raw: bytes) -> Definition:
    """The definition, or ``PeerError`` when it is malformed or not canonical."""
    try:
        definition = msgspec.msgpack.decode(raw, type=Definition)
    except DECODE_ERRORS as error:
        raise PeerError(f"definition cannot be decoded: {error}", code="bad_definition") from error
    if definition.encoded() != raw:
        raise PeerError("definition is not in canonical form", code="bad_definition")
    if definition.version != 1:
        raise PeerError(
            f"definition of version {definition.version}, this node knows 1", code="unknown_version"
        )
    patterns = (*definition.ignore, *definition.include, *definition.packages)
    if len(patterns) > PATTERNS_MAX:
        raise PeerError(f"definition with {len(patterns)} patterns", code="bad_definition")
    for pattern in patterns:
        why = why_not_pattern(pattern)
        if why is not None:
            raise PeerError(f"the pattern {shown(pattern.encode()[:200])} {why}", code="bad_definition")
    return definition


def why_not_pattern(pattern: str) -> str | None:
    """Why an ignore or include pattern cannot travel; None when it can. Bounds what matching one path costs."""
    if len(pattern) > PATTERN_MAX:
        return f"is {len(pattern)} characters long, the limit is {PATTERN_MAX}"
    if any(c in pattern for c in "\0\n\r"):
        return "holds a control character"
    if pattern.count("**") > DOUBLE_STARS_MAX:
        return f"has more than {DOUBLE_STARS_MAX} times **"
    return None
