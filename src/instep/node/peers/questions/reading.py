"""How long a node may take to look for contents: it has to read all of them."""

from __future__ import annotations

from collections.abc import Sequence

from instep.net.messages import messages as m

HAS_S = 120.0
"""The partner may have to read every file of a path that the archive has in several versions."""
PARTS_S = 60.0
READ_BYTES = 32 << 20
"""A partner hashes what it looks for: so much in a second, on a slow disk, is added to the deadlines of contents."""


def reading_s(wants: Sequence[m.Wanted]) -> float:
    """How long a partner with a slow disk reads these contents, each once."""
    return sum({want.digest: want.size for want in wants}.values()) / READ_BYTES
