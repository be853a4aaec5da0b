"""Which format a file is merged by, and the one door to all of them."""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import assert_never

from instep.core.sync.merge import json_text, properties_text, xml_text
from instep.core.sync.merge.document import Container, UncleanMergeError, merged
from instep.core.sync.merge.line_text import merge_lines

SIZE_MAX = 8 << 20
"""Bytes of each version: a larger file is a collision like any other."""


class MergeFormat(enum.StrEnum):
    XML = "xml"
    JSON = "json"
    PROPERTIES = "properties"
    LINES = "lines"


def merge_file(form: MergeFormat, base: bytes, left: bytes, right: bytes) -> bytes:
    """The file with both changes, in the left's writing. ``UncleanMergeError`` where they do not fit together, for
    bytes that are not of the format, and for more than ``SIZE_MAX``.

    Merged again with either side's version it is the same: a run may end when only one side has it."""
    if max(map(len, (base, left, right))) > SIZE_MAX:
        raise UncleanMergeError(f"it is larger than {SIZE_MAX} bytes")
    found = _merged_once(form, base, left, right)
    if any(_merged_once(form, base, *sides) != found for sides in ((left, found), (found, right))):
        raise UncleanMergeError("merged again, it comes out otherwise")
    return found


def _merged_once(form: MergeFormat, base: bytes, left: bytes, right: bytes) -> bytes:
    match form:
        case MergeFormat.XML:
            return _merge(xml_text.read, base, left, right)
        case MergeFormat.JSON:
            return _merge(json_text.read, base, left, right)
        case MergeFormat.PROPERTIES:
            return _merge(properties_text.read, base, left, right)
        case MergeFormat.LINES:
            return merge_lines(base, left, right)
        case _:
            assert_never(form)


def _merge(read: Callable[[bytes], Container], base: bytes, left: bytes, right: bytes) -> bytes:
    result = merged(read(base), read(left), read(right))
    raw = result.written()
    if read(raw).meaning != result.meaning:
        raise UncleanMergeError("read again, the merged file means something else")
    return raw
