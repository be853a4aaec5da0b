"""The nouns of hooks: the program or request to run, its input, its outcome."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from instep.model.ids import FilesetName, HeadRef
from instep.model.paths import shown

OUTPUT_KEPT = 64 << 10
"""Bytes of a hook's output that are kept: the last ones."""
QUOTED_MAX = 300
"""Characters of an output that a reason quotes."""


class TlsMode(enum.Enum):
    """How an ``http`` hook treats the other side's certificate. Status shows all but ``VERIFY``."""

    VERIFY = "strict"
    NOVERIFY = "noverify"
    NONE = "none"
    """Plain ``http`` to other machines, credentials too."""


@dataclass(frozen=True, slots=True)
class HookSpec:
    """One hook as ``instep.toml`` has it; exactly one of ``run`` (arguments), ``http`` (method, URL), ``signal`` (with
    ``pid_file``), ``touch`` and ``systemd`` (verb, unit) is set. ``user`` is the user that ``run`` runs as.

    ``timeout_ms`` is the deadline of one attempt, ``retries`` the further attempts after a failure.
    ``expect_status`` None means any 2xx.
    """

    run: tuple[str, ...] = ()
    http: tuple[str, str] | None = None
    signal: str | None = None
    pid_file: Path | None = None
    touch: Path | None = None
    systemd: tuple[str, str] | None = None
    user: str | None = None
    timeout_ms: int = 30_000
    retries: int = 0
    auth_file: Path | None = None
    headers_file: Path | None = None
    body: str | None = None
    expect_status: int | None = None
    expect_body: str | None = None
    tls: TlsMode = TlsMode.VERIFY

    def __post_init__(self) -> None:
        kinds = (self.run or None, self.http, self.signal, self.touch, self.systemd)
        assert sum(kind is not None for kind in kinds) == 1, "a hook is of one kind"
        assert (self.signal is None) == (self.pid_file is None)
        assert self.timeout_ms > 0, "every wait has a deadline"
        assert self.retries >= 0


@dataclass(frozen=True, slots=True)
class HookCall:
    """The input of a hook. ``changed`` is gone through once; ``extra`` adds variables, as the staging path.

    ``generation`` is None at the writer, whose hooks run before its next generation is made.
    """

    hook: str
    fileset: FilesetName
    generation: HeadRef | None
    previous: HeadRef | None
    changed: Iterable[bytes] = ()
    extra: Mapping[str, str] = field(default_factory=dict)
    code: str | None = None
    reason: str | None = None
    """The reason of the failure, for ``on_failure``."""

    def environment(self) -> dict[str, str]:
        """All but ``INSTEP_CHANGED``, which is a file that lives as long as the call."""
        return {
            "INSTEP_HOOK": self.hook,
            "INSTEP_FILESET": self.fileset,
            "INSTEP_GENERATION": "" if self.generation is None else str(self.generation.number),
            "INSTEP_PREVIOUS": "" if self.previous is None else str(self.previous.number),
            **({} if self.code is None else {"INSTEP_CODE": self.code}),
            **({} if self.reason is None else {"INSTEP_REASON": self.reason.replace("\0", "")}),
            **self.extra,
        }


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try. ``reason`` is a sentence's end, as in "reload: exited with 3"; empty when it went well. ``status`` is a
    program's own: negative for the signal that ended it, None where it was not waited for."""

    reason: str
    output: bytes = b""
    status: int | None = None

    @property
    def ok(self) -> bool:
        return not self.reason


@dataclass(frozen=True, slots=True)
class HookOutcome:
    """The outcome of a hook after all attempts. ``output_tail`` is the last attempt's, at most ``OUTPUT_KEPT``
    bytes, as text of the program's own: escape it before a terminal sees it. No secret is in any of it."""

    ok: bool
    reason: str
    output_tail: str
    attempts: int
    duration_ms: int
    is_unverified: bool = False
    """Another machine was believed, or sent a secret, without a verified certificate."""
    quote: str = ""
    """The output as ``quoted`` shows it, of a failure only."""

    @property
    def explained(self) -> str:
        """The reason and what the program or server said of it."""
        return self.reason + self.quote


def quoted(output: bytes, *, is_answer: bool = False) -> str:
    """The end of a program's output, or the beginning of an answer, to follow a reason: one line of at most
    ``QUOTED_MAX`` characters, with control bytes escaped. Empty when there is no output."""
    text = shown(b" ".join(output.split()))
    if not text:
        return ""
    if len(text) > QUOTED_MAX:
        text = f"{text[:QUOTED_MAX]}..." if is_answer else f"...{text[-QUOTED_MAX:]}"
    return f'; {"it answered" if is_answer else "its output"}: "{text}"'
