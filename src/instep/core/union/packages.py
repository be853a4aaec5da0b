"""Packages: documents that name others. One that names a withheld file waits for it.

Implements the section "Packages" of ``docs/spec/replication.md``.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

PACKAGE_BYTES_MAX = 1 << 20
"""A larger package is not read: it waits for every file that is withheld."""
STEM_MIN = 4
LOOKS_MAX = 1 << 27
"""Bytes of a package times withheld files: with more it waits unread, or a peer could keep a node busy for seconds."""


def names_any(contents: bytes, paths: Collection[bytes]) -> bool:
    """Whether a package names one of these files: by path, by name, or by its name without the extension."""
    if len(contents) > PACKAGE_BYTES_MAX or len(contents) * len(paths) > LOOKS_MAX:
        return bool(paths)
    words = b"|".join(re.escape(word) for path in paths for word in _words(path) if word in contents)
    if not words:
        return False
    return re.search(rb"(?<![\w.-])(?:" + words + rb")(?![\w-]|\.\w)", contents) is not None


def _words(path: bytes) -> Iterator[bytes]:
    name = path.rpartition(b"/")[2]
    yield path
    yield name
    stem = name.rpartition(b".")[0]
    if len(stem) >= STEM_MIN:
        yield stem
