"""Generated pages are current, every command shows an example, and start-up imports little."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

from docs.generator.pages import ROOT, pages, walk
from instep.cli.main import cli
from instep.cli.session import InstepCommand

HEAVY = ("aiohttp", "cryptography", "tomlkit", "rich", "blake3", "asyncio", "http.client", "email", "ssl")


def test_generated_pages_are_current() -> None:
    stale = [
        name
        for name, text in pages().items()
        if not (ROOT / name).exists() or (ROOT / name).read_text() != text
    ]
    assert stale == [], "run: ./run docs"


def test_every_command_has_help_and_an_example() -> None:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        top = cli.get_command(context, name)
        assert top is not None
        for path, command in walk(f"instep {name}", top):
            assert command.help, path
            if isinstance(command, InstepCommand):
                assert command.example, path


@pytest.mark.parametrize(("words", "found"), [("status", []), ("sync run site", ["blake3"])])
def test_the_way_to_a_running_daemon_imports_nothing_heavy(words: str, found: list[str]) -> None:
    program = (
        f"import sys; from instep.cli.main import run; run(['--dir', '/nowhere', *{words.split()!r}]); "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={"PYTHONPATH": str(ROOT / "src")},
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == repr(found)
