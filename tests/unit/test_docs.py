"""The documents are true: links resolve, commands parse, every code of a standing is explained."""

from __future__ import annotations

import ast
import functools
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from docs.generator.pages import ROOT
from instep.cli.main import cli
from instep.model.standing import Standing

PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
WRITTEN = [page for page in PAGES if "reference" not in page.parts and "spec" not in page.parts]
MADE = {"../../bench/RESULTS.md"}
"""Written by ./run bench."""
LINK = re.compile(r"\]\(([^)#\s]+)(#[^)]*)?\)")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
STANDINGS = ROOT / "docs/guide/standings.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_resolves(page: Path) -> None:
    targets = [target for target, _ in LINK.findall(FENCE.sub("", page.read_text()))]
    lost = [t for t in targets if "://" not in t and t not in MADE and not (page.parent / t).exists()]
    assert not lost


def _commands(text: str) -> Iterator[list[str]]:
    """The words after ``instep`` of every command line in shell blocks and in inline code."""
    found = [
        line
        for language, block in FENCE.findall(text)
        if language in ("sh", "")
        for line in block.split("\n")
    ]
    found += [code for code in re.findall(r"`([^`\n]+)`", FENCE.sub("", text)) if code.startswith("instep ")]
    for line in found:
        line = re.sub(r"\s#.*$|\s\|.*$", "", line.strip().removeprefix("$ ").removeprefix("sudo "))
        line = re.sub(r"^\w+=\$\((.*)\)$", r"\1", line)
        if line.startswith("instep ") and not re.match(r"instep: |instep\.|instep \d", line):
            yield shlex.split(line)[1:]


def _parse(words: list[str]) -> None:
    """Go down the tree of commands; ``UsageError`` where a command or option is not there."""
    command: click.Command = cli
    context = click.Context(cli, info_name="instep")
    words = words[: words.index("--")] if "--" in words else words
    while words and isinstance(command, click.Group):
        while words[0] == "--dir":
            words = words[2:]
        if words[0].startswith("--") or words[0].isupper():
            return  # the group itself, or a word that stands for any command
        found = command.get_command(context, words[0])
        if found is None:
            raise click.UsageError(f"no command {words[0]}")
        context = click.Context(found, info_name=words[0], parent=context)
        command, words = found, words[1:]
    given = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
    unknown = given - known - {"--dir", "--json", "--help"}
    if unknown:
        raise click.UsageError(f"{command.name} has no {', '.join(sorted(unknown))}")


@pytest.mark.parametrize("page", WRITTEN, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_exists_with_its_options(page: Path) -> None:
    wrong = []
    for words in _commands(page.read_text()):
        try:
            _parse(words)
        except click.UsageError as error:
            wrong.append(f"instep {' '.join(words)}: {error.message}")
    assert not wrong


@functools.cache
def _sources() -> tuple[tuple[str, tuple[ast.AST, ...]], ...]:
    """Every node of every source that is not of the simulator."""
    paths = (path for path in sorted((ROOT / "src/instep").rglob("*.py")) if "testing" not in path.parts)
    return tuple((path.name, tuple(ast.walk(ast.parse(path.read_text())))) for path in paths)


def test_every_next_step_in_the_sources_names_a_command_that_exists() -> None:
    """Goal: no hint names a command that is not there. Method: the constant parts of texts that begin like one."""
    context = click.Context(cli)
    named = {
        (name, found[1])
        for name, nodes in _sources()
        for node in nodes
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        for found in re.finditer(r"(?:^|[:;`] ?)instep ([a-z]{3,})(?= *$| [-A-Z])", node.value)
    }
    assert len(named) > 20
    assert not sorted(each for each in named if cli.get_command(context, each[1]) is None)


def _standing_codes() -> Iterator[str]:
    """Codes that the sources give to a standing or a trouble as a constant."""
    position = {"Trouble": 0, "Stand": 1, "Report": 1, "StandingRecord": 3}
    for _, nodes in _sources():
        for call in nodes:
            if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Name):
                continue
            at = position.get(call.func.id)
            if at is None or len(call.args) <= at:
                continue
            for node in ast.walk(call.args[at]):
                if (
                    isinstance(node, ast.Constant)
                    and isinstance(node.value, str)
                    and node.value[:1].isalpha()
                ):
                    yield node.value


def test_every_standing_and_its_codes_are_explained() -> None:
    text = STANDINGS.read_text()
    words = {standing.value for standing in Standing} | set(_standing_codes())
    assert len(words) >= 25
    assert not sorted(word for word in words if f"`{word}`" not in text)
