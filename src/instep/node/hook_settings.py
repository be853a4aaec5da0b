"""One hook of ``instep.toml`` as a frozen value, wherever in the file it stands."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

__all__ = ["HookSettings"]


@dataclass(frozen=True, slots=True)
class HookSettings:
    """One thing to do. Exactly one of ``run``, ``http``, ``signal``, ``touch`` and ``systemd`` is set."""

    run: tuple[str, ...] = ()
    http: tuple[str, str] | None = None
    """Method and URL."""
    signal: str | None = None
    pid_file: Path | None = None
    touch: Path | None = None
    systemd: tuple[str, str] | None = None
    """Verb and unit."""
    user: str | None = None
    """Who ``run`` runs as; None: as the daemon."""
    paths: tuple[str, ...] = ()
    """Gitignore patterns: it runs when a changed path matches; empty: always."""
    tree: bool = False
    """A ``validate`` that looks at the whole tree as it will be."""
    tls: str = "strict"
    timeout_ms: int = 30_000
    retries: int = 0
    auth_file: Path | None = None
    headers_file: Path | None = None
    body: str | None = None
    expect_status: int | None = None
    """None means any status from 200 to 299."""
    expect_body: str | None = None
    """A text that the answer must contain."""
