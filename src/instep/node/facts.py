"""Facts of a node: built-in ones, and those that ``[facts]`` names. Secrets appear as slow fingerprints only.

See docs/decisions/fact-fingerprints.md. A fact that cannot be had says why in angle brackets; no gate agrees to that.
"""

from __future__ import annotations

import functools
import grp
import hashlib
import os
import platform
import pwd
import re
from collections.abc import Iterable
from pathlib import Path

from blake3 import blake3

from instep import __version__
from instep.net.messages import VERSIONS
from instep.node.fact_program import output_of
from instep.node.settings import FactSettings, FilesetSettings, Settings

__all__ = ["facts_for", "facts_of", "mount_of"]

TEXT_MAX = 64 << 10
VALUE_MAX = 4_096
RUN_S = 10.0
LIST_MAX = 1_000


def facts_of(settings: Settings) -> dict[str, str]:
    """All facts of this node that belong to no fileset."""
    return _built_in() | {name: _told(name, fact) for name, fact in settings.facts.items()}


def facts_for(settings: Settings, fileset: FilesetSettings, names: Iterable[str]) -> dict[str, str]:
    """The built-in facts for this fileset, and those of ``[facts]`` that are named. May run programs: call it in a
    thread."""
    found = _built_in()
    found["path"] = os.path.realpath(fileset.path)
    found["mount"] = mount_of(fileset.path)
    for name in names:
        fact = settings.facts.get(name)
        if fact is not None:
            found[name] = _told(name, fact)
    return found


def _built_in() -> dict[str, str]:
    libc = "-".join(part for part in platform.libc_ver()[:1] if part) or "unknown"
    return {
        "instep": __version__,
        "protocol": str(VERSIONS),
        "platform": f"{platform.system().lower()}-{platform.machine()}-{libc}",
        "user": f"{_user(os.geteuid())}:{_group(os.getegid())}",
    }


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


def mount_of(path: Path) -> str:
    """The kind of file system that holds ``path`` and its options: ``nfs4 rw,vers=4.2``."""
    real = os.path.realpath(path)
    best, found = -1, "<not mounted>"
    for line in Path("/proc/self/mountinfo").read_text(errors="replace").splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        at = re.sub(r"\\([0-7]{3})", lambda m: chr(int(m[1], 8)), fields[4])
        if len(at) >= best and (real == at or real.startswith(at.rstrip("/") + "/")):
            best, found = len(at), f"{after.split()[0]} {fields[5]}"
    return found


def _told(name: str, fact: FactSettings) -> str:
    try:
        value = _value(name, fact)
    except OSError as error:
        return f"<cannot be read: {error.strerror}>"
    if len(value) > VALUE_MAX:
        return f"<longer than {VALUE_MAX} characters>"
    return value


def _value(name: str, fact: FactSettings) -> str:
    if fact.value is not None:
        return fact.value
    if fact.file is not None:
        return _matched(_text(fact.file), fact.match)
    if fact.run is not None:
        return _printed(fact.run, fact.match)
    if fact.list is not None:
        names = sorted(os.listdir(fact.list))
        if len(names) > LIST_MAX:
            return f"<more than {LIST_MAX} names>"
        return "\n".join(names)
    if fact.digest_of is not None:
        hasher = blake3()
        with fact.digest_of.open("rb") as file:
            while piece := file.read(1 << 20):
                hasher.update(piece)
        return hasher.hexdigest()
    assert fact.fingerprint_of is not None
    with fact.fingerprint_of.open("rb") as file:
        return _fingerprint(name, file.read(TEXT_MAX))


@functools.lru_cache(maxsize=64)
def _fingerprint(name: str, secret: bytes) -> str:
    salt = b"instep.fact.fingerprint.2\0" + name.encode()
    return hashlib.scrypt(secret, salt=salt, n=1 << 14, r=8, p=1, dklen=16).hex()


def _printed(words: tuple[str, ...], pattern: str | None) -> str:
    output = output_of(words, RUN_S)
    return output if output.startswith("<") and output.endswith(">") else _matched(output, pattern)


def _text(path: Path) -> str:
    with path.open("rb") as file:
        return file.read(TEXT_MAX).decode("utf-8", "replace")


def _matched(text: str, pattern: str | None) -> str:
    if pattern is None:
        return text.strip()
    found = re.search(pattern, text, re.MULTILINE)
    if found is None:
        return "<does not match>"
    return (found.group(1) if found.groups() else found.group(0)) or ""
