"""A program of the operator's own, which dumps or loads a database, or freezes or thaws an application."""

from __future__ import annotations

import subprocess

from instep.fleet.hooks.run import MINIMAL_ENVIRONMENT

PROGRAM_TIMEOUT_S = 24 * 3600.0


def failure_of(words: tuple[str, ...], source: int, output: int) -> str | None:
    """Run it to its end, within a day, between these two files; how it failed, or None. Its errors go to those of this
    command."""
    try:
        done = subprocess.run(
            words, env=dict(MINIMAL_ENVIRONMENT), stdin=source, stdout=output, cwd="/", check=False,
            timeout=PROGRAM_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return f"exited with {done.returncode}" if done.returncode != 0 else None
