"""Preflight of ``pki/``: wrong modes, missing and stray files, certificates that run out or are not valid yet."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from instep.errors import ConfigError, InstepError
from instep.net.trust.authority import end_of
from instep.net.trust.certs import NODE_LIFE_S, Purpose, facts_of
from instep.net.trust.pki import SECRET, Pki
from instep.net.trust.shown import USE_ANOTHER, Shown
from instep.net.trust.validity import minute_at

_FILES = frozenset(
    {"ca.crt", "ca.key", "node.crt", "node.key", "sign.crt", "sign.key", "crl.pem", "state.json", ".lock"}
    | {"shown.pem", "presented.pem"}
)
_DIRECTORIES = frozenset({"trusted", "issued"})
_HINT = "compare date -u with the partners; when the clock here is right: instep pki renew"


@dataclass(frozen=True, slots=True)
class PkiProblem:
    """For ``check``: ``what`` is ``stray``, ``mode``, ``missing``, ``damaged``, ``expiry`` or ``early``."""

    path: Path
    what: str
    detail: str
    hint: str


def problems_of(pki: Pki, now_ms: int) -> list[PkiProblem]:
    """Wrong modes, missing and damaged files, stray key material (K19), certificates that run out."""
    found = list(_stray(pki))
    for name in sorted(SECRET):
        path = pki.directory / name
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            mode = format(stat.S_IMODE(path.stat().st_mode), "04o")
            found.append(PkiProblem(path, "mode", f"a key with mode {mode}", f"chmod 600 {path}"))
    needed = {"ca.crt", "crl.pem", "node.crt", "node.key", "sign.crt", "sign.key"}
    for name in sorted(needed):
        if not (pki.directory / name).exists():
            hint = "restore it from a backup, or join again with a new token"
            found.append(PkiProblem((pki.directory / name), "missing", "is not there", hint))
    for purpose in Purpose:
        with contextlib.suppress(ConfigError):
            facts = facts_of(pki.certificate(purpose))
            path = pki.directory / ("node.crt" if purpose is Purpose.TLS else "sign.crt")
            clock, hint = f"the clock here shows {minute_at(now_ms)}", _HINT
            if now_ms > facts.not_after_ms:
                detail = f"expired on {minute_at(facts.not_after_ms)}; {clock}"
                found.append(PkiProblem(path, "expiry", detail, hint))
            elif now_ms < facts.not_before_ms:
                detail = f"is not valid before {minute_at(facts.not_before_ms)}; {clock}"
                found.append(PkiProblem(path, "early", detail, hint))
    found += _of_shown(pki, now_ms)
    for path, error in pki.pins.damaged().items():
        detail = f"cannot be used, and no node is trusted by it: {error.reason}"
        found.append(PkiProblem(path, "damaged", detail, str(error.hint)))
    with contextlib.suppress(ConfigError):
        found += _end_of_ca(pki, now_ms)
    return found


def _of_shown(pki: Pki, now_ms: int) -> Iterator[PkiProblem]:
    """A certificate of another CA: while it is not current or cannot be used, this node shows its own."""
    shown = Shown(pki)
    try:
        chain = shown.chain()
        if chain is None:
            return
        facts = facts_of(chain.leaf)
        if chain.is_current(now_ms) and shown.current(now_ms) is None:
            detail = "cannot be used, and this node shows its own certificate: key and certificate do not fit together"
            yield PkiProblem(shown.path, "damaged", detail, USE_ANOTHER)
    except InstepError as error:
        detail = f"cannot be used, and this node shows its own certificate: {error.reason}"
        yield PkiProblem(shown.path, "damaged", detail, USE_ANOTHER)
        return
    begin, end, clock = minute_at(facts.not_before_ms), minute_at(facts.not_after_ms), minute_at(now_ms)
    if now_ms > facts.not_after_ms:
        detail = f"expired on {end}, and this node shows its own certificate; the clock here shows {clock}"
        yield PkiProblem(shown.path, "expiry", detail, USE_ANOTHER)
    elif now_ms < facts.not_before_ms:
        detail = f"is not valid before {begin}, and this node shows its own certificate; the clock here shows {clock}"
        yield PkiProblem(shown.path, "early", detail, _HINT.replace("instep pki renew", USE_ANOTHER))
    elif chain.is_ending(now_ms):
        detail = f"ends on {end}; then partners are shown this node's own certificate"
        yield PkiProblem(shown.path, "expiry", detail, USE_ANOTHER)


def _end_of_ca(pki: Pki, now_ms: int) -> Iterator[PkiProblem]:
    end_ms = min(end_of(one) for one in pki.authorities())
    if now_ms < end_ms - NODE_LIFE_S * 1000:
        return
    hint = "instep pki renew"
    if not pki.is_ca:
        hint = f"on the node that holds the CA's key: {hint}; then here: {hint}"
    what = "ended" if now_ms > end_ms else "ends"
    detail = f"{what} on {minute_at(end_ms)}, and no certificate holds longer; the clock here shows {minute_at(now_ms)}"
    yield PkiProblem(pki.directory / "ca.crt", "expiry", detail, hint)


def _stray(pki: Pki) -> Iterator[PkiProblem]:
    strays = [p for p in pki.directory.iterdir() if p.name not in (_DIRECTORIES if p.is_dir() else _FILES)]
    for folder, suffixes in (("trusted", (".crt", ".sign", ".introduced")), ("issued", (".json",))):
        if (pki.directory / folder).is_dir():
            strays += [path for path in (pki.directory / folder).iterdir() if path.suffix not in suffixes]
    for path in sorted(strays):
        if not path.name.startswith(".writing-"):
            yield PkiProblem(path, "stray", "is not one of instep's files", f"move {path} elsewhere")
