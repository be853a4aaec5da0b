"""How an example is run: its options, its directory, its end, and its report."""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from examples.fleet import Fleet
from examples.servers import Servers
from examples.waiting import Failed

__all__ = ["Play", "narrated", "play"]


class Play(Protocol):
    """An example: ``play`` returns what it measured, with ``failures`` in it."""

    servers: Servers
    fleet: Fleet

    def play(self) -> dict[str, Any]: ...


def narrated(given: argparse.Namespace) -> Callable[[str], None]:
    """Prints what happens, unless one JSON document is wanted."""

    def tell(text: str) -> None:
        if not given.json:
            print(text, flush=True)

    return tell


def play(
    about: str | None,
    make: Callable[[Path, argparse.Namespace], Play],
    *,
    rollouts: int = 0,
    documents: int = 0,
) -> int:
    """Run it in a directory of its own and end all that it started. Exit 0: it showed what it promises, and no request
    failed. Its size is an option: the good changes, or the documents of each node."""
    parser = argparse.ArgumentParser(description=about)
    if rollouts:
        parser.add_argument("--rollouts", type=int, default=rollouts, help=f"good changes ({rollouts})")
    if documents:
        parser.add_argument(
            "--documents", type=int, default=documents, help=f"documents of each node ({documents})"
        )
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--keep", action="store_true", help="leave directories and logs")
    given = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    top = Path(tempfile.mkdtemp(prefix="instep-example-"))
    example = make(top, given)
    try:
        report = example.play()
    except Failed as error:
        print(f"example: {error}", file=sys.stderr)
        return 1
    finally:
        example.servers.close()
        example.fleet.close()
        if given.keep:
            print(f"everything is left in {top}", file=sys.stderr)
        else:
            shutil.rmtree(top, ignore_errors=True)
    if given.json:
        print(json.dumps(report))
    else:
        for key, value in report.items():
            print(f"{key.replace('_', ' '):20} {value}")
    return 1 if report["failures"] else 0
