"""A browser's request for a page as views see it: its caller, its form, and commands given for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from instep.api.catalog import COMMANDS
from instep.api.command import Command, Document, as_json
from instep.errors import UsageError
from instep.node.access.caller import Caller
from instep.node.access.door import CommandDoor, Silent
from instep.panel.exchange import PanelExchange
from instep.panel.feed import NodeFeed
from instep.panel.pages.words import segment

PAGE = 200
"""Rows of a list that are drawn at once."""
Given = TypeVar("Given", bound=Document)
Row = TypeVar("Row")


@dataclass(frozen=True, slots=True)
class Page:
    """What a template needs. ``same`` are commands that do the same; a live page has rows that a stream keeps."""

    template: str
    title: str
    context: Mapping[str, Any]
    status: int = 200
    same: tuple[str, ...] = ()
    is_live: bool = False


@dataclass(frozen=True, slots=True)
class Visit:
    """One request for a page. ``found`` are the parts of its path."""

    exchange: PanelExchange
    caller: Caller
    door: CommandDoor
    feed: NodeFeed
    node: str
    found: Mapping[str, str]
    form: Mapping[str, list[str]] = field(default_factory=dict)

    async def ask(self, command: Command[Given]) -> Given:
        """The result of a command, with the rights of the caller."""
        told: Any = await self.door.run(command.command, as_json(command), self.caller, Silent())
        return told  # type: ignore[no-any-return]

    @property
    def base(self) -> str:
        """The path of the fileset that this page is about."""
        return f"/filesets/{segment(self.found['fileset'])}"

    @property
    def may(self) -> Mapping[str, str]:
        """By command why the caller may not give it; empty where it may."""
        role = self.caller.role
        return {
            name: "" if role.includes(kind.role) else f"asks for the role {kind.role.value}"
            for name, kind in COMMANDS.items()
        }

    def number(self, name: str) -> int | None:
        """A number of the form or of the query; None where it is empty. ``UsageError`` where it is none."""
        raw = self.field(name) or self.query(name)
        if not raw:
            return None
        if not (raw.isascii() and raw.isdecimal() and len(raw) < 13):
            raise UsageError(f"{name} is not a number", code="bad_parameter")
        return int(raw)

    def page_of(self, rows: Sequence[Row]) -> tuple[int, Sequence[Row]]:
        """The first row of the page that is asked for, and its rows: lists are cut here and not in the browser."""
        first = self.number("from") or 0
        return first, rows[first : first + PAGE]

    def query(self, name: str, otherwise: str = "") -> str:
        return self.exchange.request.query.get(name, otherwise)

    def field(self, name: str) -> str:
        """A field of the form, without blanks around it."""
        return self.form.get(name, [""])[-1].strip()

    def has(self, name: str) -> bool:
        """Whether a box is ticked."""
        return name in self.form
