"""``completion``: the script that a shell sources to complete commands, options and choices; and the settings that
``fileset set`` completes."""

from __future__ import annotations

from collections.abc import Iterator

import click

from instep.cli.session import Session, command


@command("completion", example="instep completion bash > /etc/bash_completion.d/instep")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(_session: Session, shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import get_completion_class

    from instep.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "instep", "_INSTEP_COMPLETE").source())


def complete_setting(_context: click.Context, _parameter: click.Parameter, incomplete: str) -> list[str]:
    """``KEY=`` of a fileset, with dots into its tables; after the sign the words that the key knows."""
    from instep.node.config.filesets import FilesetSettings
    from instep.node.config.keys import key_at

    name, sign, _ = incomplete.partition("=")
    if not sign:
        found = list(_names(FilesetSettings))
    else:
        key = key_at(FilesetSettings, name.split("."))
        found = [f"{name}={word}" for word in (key.kind.words if key is not None else ())]
    return [one for one in found if one.startswith(incomplete)]


def _names(table: type, before: str = "") -> Iterator[str]:
    """Every key of a table and of the tables below it, but for tables that an operator names."""
    from instep.node.config.keys import keys_of, sections_of

    for key in keys_of(table):
        yield f"{before}{key.name}="
    for section in sections_of(table):
        if not section.is_named:
            yield from _names(section.table, f"{before}{section.name}.")
