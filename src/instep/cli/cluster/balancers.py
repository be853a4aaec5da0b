"""Balancers in front of the nodes: ``balancer render`` and ``balancer reload``."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import click

from instep.api import balancers as api
from instep.api.command import as_json
from instep.cli.output import printable, say
from instep.cli.session import Session, command, group, timeout_option
from instep.errors import UnavailableError
from instep.fleet.balancers.file import Program, check_file, keep_file, read_kept

KINDS = ("haproxy", "nginx", "proxy-map")

balancer = group("balancer", "Files for the balancer in front of the nodes.")


@command(
    "render", parent=balancer, example="instep balancer render haproxy --check > /etc/haproxy/haproxy.cfg"
)
@click.argument("kind", type=click.Choice(KINDS))
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--only", type=click.Choice(["backend"]), help="Without the parts that are yours.")
@click.option(
    "--output", type=click.Path(dir_okay=False, path_type=Path), help="Write it there, in one step."
)
@click.option("--stdout", "to_stdout", is_flag=True, help="Print it; the default without --output.")
@click.option(
    "--check", "is_checked", is_flag=True, help="Refuse a file that the balancer's own parser refuses."
)
@click.option("--replace", is_flag=True, help="With --output: also a file that was not rendered.")
def render(
    session: Session,
    kind: str,
    names: tuple[str, ...],
    only: str | None,
    output: Path | None,
    to_stdout: bool,
    is_checked: bool,
    replace: bool,
) -> None:
    """Print the file for a balancer, from [balancers] and the nodes that are known now.

    With --output it is written there; the parser reads it first where there is one on this machine.
    """
    program = Program(kind)
    before = read_kept(output) if output is not None and program is Program.PROXY_MAP else None
    found = session.call(api.BalancerRenderCommand(kind, names, only, before), 30.0)
    text, document = found.text, as_json(found)
    for warning in found.warnings:
        say(f"warning: {printable(warning)}")
    if is_checked or output is not None:
        document["checked_by"] = _checked(program, text, only, is_required=is_checked)
    if output is not None:
        is_shared = program is Program.PROXY_MAP
        document["changed"] = keep_file(output, text, may_replace=replace, is_shared=is_shared)
        document["output"] = str(output)
    if not session.gave_json(document):
        if output is not None:
            say(f"{output} is {'written' if document['changed'] else 'as it was'}")
        if output is None or to_stdout:
            sys.stdout.flush()
            sys.stdout.buffer.write(text.encode("utf-8", "surrogateescape"))
            sys.stdout.buffer.flush()


def _checked(program: Any, text: str, only: str | None, *, is_required: bool) -> list[str] | None:
    """The parser's command line; None where there is none and it need not be."""
    try:
        verdict = asyncio.run(check_file(program, text, is_whole=only is None))
    except UnavailableError as error:
        if is_required or error.error_code != "no_parser":
            raise
        say(f"not checked: {error.reason}")
        return None
    return list(verdict.command) if verdict.command is not None else None


@command("reload", parent=balancer, example="instep balancer reload maps")
@click.argument("names", nargs=-1, metavar="[NAME...]")
@click.option("--replace", is_flag=True, help="Also a file that was not rendered; it stays as .previous.")
@timeout_option("2m")
def reload(session: Session, names: tuple[str, ...], replace: bool, timeout_ms: int) -> None:
    """Render, check, put in place and reload every file that [balancers] names.

    A file that the balancer's parser refuses changes nothing. A reload that fails is retried until it goes well.
    """
    document = session.call(api.BalancerReloadCommand(names, replace=replace), timeout_ms / 1000)
    if not session.gave_json(document):
        for file in document.files:
            changed = "written" if file.changed else "unchanged"
            reloaded = "reloaded" if file.reloaded else "no reload is set"
            print(f"{file.file}  {changed}, {reloaded}")
            for warning in file.warnings:
                say(f"warning: {printable(warning)}")
