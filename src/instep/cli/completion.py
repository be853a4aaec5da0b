"""``completion``: the script that a shell sources to complete commands, options and choices."""

from __future__ import annotations

import click

from instep.cli.session import command

__all__ = ["completion"]


@command("completion", example="instep completion bash > /etc/bash_completion.d/instep")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script for a shell."""
    from click.shell_completion import get_completion_class

    from instep.cli.main import cli

    found = get_completion_class(shell)
    assert found is not None
    click.echo(found(cli, {}, "instep", "_INSTEP_COMPLETE").source())
