"""A browser's request for a page as views see it: its caller, its form, and commands given for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from instep.api.command import Command, Document, as_json
from instep.node.access.caller import Caller
from instep.node.access.door import CommandDoor, Silent
from instep.panel.exchange import PanelExchange
from instep.panel.feed import NodeFeed

Given = TypeVar("Given", bound=Document)


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

    def query(self, name: str, otherwise: str = "") -> str:
        return self.exchange.request.query.get(name, otherwise)

    def field(self, name: str) -> str:
        """A field of the form, without blanks around it."""
        return self.form.get(name, [""])[-1].strip()

    def has(self, name: str) -> bool:
        """Whether a box is ticked."""
        return name in self.form
