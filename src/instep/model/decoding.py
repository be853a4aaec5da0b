"""The exceptions that decoding hostile bytes can raise, in one place, so that no decoder forgets one of them."""

from __future__ import annotations

import msgspec

DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""``RecursionError``: msgspec skips unknown trailing items recursively, so deep nesting ends there."""
