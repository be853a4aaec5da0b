"""Facts of a node: built-in ones, and the ones that ``[facts]`` names, each as a call that may block.

A fact that cannot be had says why in angle brackets; no gate agrees to that. Secrets appear as keyed fingerprints only,
see docs/decisions/fact-fingerprints.md.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import platform
import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial

from instep import __version__
from instep.net.messages.messages import VERSIONS
from instep.node.config.facts import FactSettings
from instep.node.config.filesets import FilesetSettings
from instep.node.config.settings import Settings
from instep.node.facts.files import digest_of, names_in, secret_of, text_of
from instep.node.facts.mounts import mount_at
from instep.node.facts.people import access_of, run_as, service_of
from instep.node.facts.program import output_of

VALUE_MAX = 4_096
FACT_S = 10.0
"""The deadline of one fact."""


class Fingerprint(bytes):
    """A slow digest of a secret. It never leaves this node: a peer that asks gets its HMAC under the key of the
    question."""


Value = str | Fingerprint
Calls = dict[str, Callable[[], Value]]


def calls_of(settings: Settings) -> Calls:
    """All facts of this node that belong to no fileset."""
    return _built_in() | {name: partial(_fact, name, fact) for name, fact in settings.facts.items()}


def calls_for(settings: Settings, fileset: FilesetSettings, names: Iterable[str]) -> Calls:
    """The built-in facts for this fileset, and the named ones of ``[facts]`` and of the tried facts."""
    found = _built_in()
    found["path"] = partial(os.path.realpath, fileset.path)
    found["mount"] = lambda: str(mount_at(fileset.path) or "<not mounted>")
    if fileset.service is not None:
        found["service"] = partial(service_of, fileset.service, FACT_S)
    for name in names:
        fact = settings.facts.get(name)
        if name == "access":
            found[name] = partial(access_of, fileset.path, fileset.service, FACT_S)
        elif fact is not None:
            found[name] = partial(_fact, name, fact)
    return found


def told(found: Mapping[str, Value], key: bytes) -> dict[str, str]:
    """The facts as they are sent to a peer that asked with ``key``: the same secret is the same only under the same
    key."""
    return {
        name: _keyed(value, key) if isinstance(value, Fingerprint) else value for name, value in found.items()
    }


def _keyed(fingerprint: Fingerprint, key: bytes) -> str:
    if len(key) < 16:
        return "<asked without a key: upgrade the node that asks>"
    return hmac.digest(key, b"instep.fact.fingerprint.3\0" + fingerprint, "sha256")[:16].hex()


def _built_in() -> Calls:
    libc = "-".join(part for part in platform.libc_ver()[:1] if part) or "unknown"
    built_on = f"{platform.system().lower()}-{platform.machine()}-{libc}"
    return {
        "instep": lambda: __version__,
        "protocol": lambda: str(VERSIONS),
        "platform": lambda: built_on,
        "run_as": run_as,
        "user": run_as,
    }


def _fact(name: str, fact: FactSettings) -> Value:
    try:
        value = _value(name, fact)
    except OSError as error:
        return f"<cannot be read: {error.strerror}>"
    if not isinstance(value, Fingerprint) and len(value) > VALUE_MAX:
        return f"<longer than {VALUE_MAX} characters>"
    return value


def _value(name: str, fact: FactSettings) -> Value:
    if fact.value is not None:
        return fact.value
    if fact.file is not None:
        return _matched(text_of(fact.file), fact.match)
    if fact.run is not None:
        return _matched(output_of(fact.run, FACT_S), fact.match)
    if fact.list is not None:
        return names_in(fact.list)
    if fact.digest_of is not None:
        return digest_of(fact.digest_of)
    assert fact.fingerprint_of is not None
    secret = secret_of(fact.fingerprint_of)
    return secret if isinstance(secret, str) else _fingerprint(name, secret)


@functools.lru_cache(maxsize=64)
def _fingerprint(name: str, secret: bytes) -> Fingerprint:
    salt = b"instep.fact.fingerprint.3\0" + name.encode()
    return Fingerprint(hashlib.scrypt(secret, salt=salt, n=1 << 14, r=8, p=1, dklen=32))


def _matched(text: str, pattern: str | None) -> str:
    if text.startswith("<") and text.endswith(">"):
        return text  # why there is none
    if pattern is None:
        return text.strip()
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        return "<does not match>"
    return (found.group(1) if found.groups() else found.group(0)) or ""
