"""Facts of a node: built-in ones, and those that ``[facts]`` names. Secrets appear as keyed fingerprints only."""

from __future__ import annotations

import hashlib
import hmac
import os
import platform
import re
from pathlib import Path

from blake3 import blake3

from instep import __version__
from instep.node.settings import FactSettings, Settings

__all__ = ["facts_of"]

TEXT_MAX = 64 << 10
_KEY = b"instep fact fingerprint 1"


def facts_of(settings: Settings) -> dict[str, str]:
    """All facts of this node; one that cannot be read says why, in angle brackets."""
    found = {
        "instep": __version__,
        "platform": f"{platform.system().lower()}-{platform.machine()}",
        "kernel": platform.release(),
        "user": str(os.geteuid()),
    }
    for name, fact in settings.facts.items():
        try:
            found[name] = _value(fact)
        except OSError as error:
            found[name] = f"<cannot be read: {error.strerror}>"
    return found


def _value(fact: FactSettings) -> str:
    if fact.value is not None:
        return fact.value
    if fact.file is not None:
        return _matched(_text(fact.file), fact.match)
    if fact.digest_of is not None:
        hasher = blake3()
        with fact.digest_of.open("rb") as file:
            while piece := file.read(1 << 20):
                hasher.update(piece)
        return hasher.hexdigest()
    assert fact.fingerprint_of is not None
    secret = fact.fingerprint_of.read_bytes()[:TEXT_MAX]
    return hmac.new(_KEY, secret, hashlib.sha256).hexdigest()[:32]


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(TEXT_MAX).decode("utf-8", "replace")


def _matched(text: str, pattern: str | None) -> str:
    if pattern is None:
        return text.strip()
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        return "<does not match>"
    return found.group(1) if found.groups() else found.group(0)
