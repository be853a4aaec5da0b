"""The names that a shell offers for an argument: of filesets, nodes and generations of this node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import click

from instep.api.looking import LogCommand
from instep.cli.control import Control
from instep.node.config.settings import Settings

ANSWER_S = 2.0
"""A person waits for a completion at the prompt."""


def known_names(
    settings: Settings, control: Control, context: click.Context, parameter: click.Parameter
) -> Iterable[str]:
    """What the argument may name, by its own name and that of its group."""
    group = context.parent.info_name if context.parent is not None else None
    kind = f"{group} {parameter.name}" if parameter.name == "name" else str(parameter.name)
    if kind == "words" and "PATH" in parameter.make_metavar(context):
        kind = "fileset"
    match kind:
        case "fileset" | "fileset name":
            return settings.filesets
        case "node" | "node name":
            return (settings.name, *settings.partners)
        case "partner name" | "pki name":
            return settings.partners
        case "words":
            return _with_generations(settings, control, context.params.get("words") or ())
        case _:
            return ()


def _with_generations(settings: Settings, control: Control, before: Sequence[str]) -> Iterable[str]:
    """Filesets first, then the generations of the one that was named, or of the only one."""
    names = () if before else tuple(settings.filesets)
    chosen = next((word for word in before if word in settings.filesets), None)
    if chosen is None and len(settings.filesets) != 1:
        return names
    log = control.ask(LogCommand(chosen), timeout_s=ANSWER_S)
    return (*names, *(str(row.number) for row in log.generations))
