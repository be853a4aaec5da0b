"""Identifiers: node and fileset names, digests, lines and positions in a line.

Implements the identifier rules of ``docs/spec/manifest.md``.
"""

from __future__ import annotations

import re
from typing import Annotated, NewType

import msgspec

from instep.errors import UsageError

NodeName = NewType("NodeName", str)
FilesetName = NewType("FilesetName", str)
Digest = NewType("Digest", bytes)
"""A BLAKE3-256 digest, 32 bytes."""

DIGEST_BYTES = 32
EMPTY_DIGEST = Digest(b"")
"""Stands where there is none: the digest of a directory, the parent of a first generation."""

_NODE = re.compile(r"[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?")
_FILESET = re.compile(r"[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?")


def node_name(text: str) -> NodeName:
    """A node name: a lower-case DNS name of at most 63 characters, because certificates carry it."""
    if not _NODE.fullmatch(text) or ".." in text:
        raise UsageError(
            f"{text!r} is not a node name",
            hint="use 1 to 63 of a-z, 0-9, '-' and '.', starting and ending with a letter or digit",
            code="bad_node_name",
            name=text,
        )
    return NodeName(text)


def fileset_name(text: str) -> FilesetName:
    """A fileset name: 1 to 63 of ``a-z 0-9 . _ -``; it becomes part of a directory name."""
    if not _FILESET.fullmatch(text) or ".." in text:
        raise UsageError(
            f"{text!r} is not a fileset name",
            hint="use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting and ending with a letter or digit",
            code="bad_fileset_name",
            name=text,
        )
    return FilesetName(text)


def shared_name(text: str) -> str:
    """The name of a job, a pool or a kind of request: of the form of a fileset's."""
    if not _FILESET.fullmatch(text) or ".." in text:
        raise UsageError(
            f"{text!r} is not the name of a job, pool or kind of request",
            hint="use 1 to 63 of a-z, 0-9, '.', '_' and '-', starting and ending with a letter or digit",
            code="bad_shared_name",
            name=text,
        )
    return text


class LineId(msgspec.Struct, frozen=True, array_like=True, order=True):
    """(fileset, origin): the origin is the node that began the line and never changes."""

    fileset: FilesetName
    origin: NodeName

    def __str__(self) -> str:
        return f"{self.fileset}@{self.origin}"


COUNT_MAX = (1 << 63) - 1
Count = Annotated[int, msgspec.Meta(ge=0, le=COUNT_MAX)]
"""A number that travels: it fits where it is stored."""


class HeadRef(msgspec.Struct, frozen=True, array_like=True):
    """A point in a line. Heads move by ``(epoch, number)``, lexicographically, upwards only (P4)."""

    epoch: Count
    number: Count
    id: Digest
    root: Digest

    @property
    def position(self) -> tuple[int, int]:
        """The part that orders heads."""
        return (self.epoch, self.number)
