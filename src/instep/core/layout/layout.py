"""A layout: where an application keeps its files in each of its forms, and where each goes when it is moved."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from instep.model.paths import is_below, shown

DEST_MARK = "{{dest}}"
"""Stands for the destination in the value of a property."""


class ItemVerb(enum.Enum):
    """``MOVE``: the original may be deleted after the move. ``COPY``: it always stays."""

    MOVE = "move"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class LayoutItem:
    """One file or directory of an application. ``to`` is a path in the destination, empty for all of it."""

    verb: ItemVerb
    source: bytes
    to: bytes
    is_optional: bool = False

    def covers(self, path: bytes) -> bool:
        return path == self.source or is_below(path, self.source)

    def target_of(self, path: bytes) -> bytes:
        """Where ``path``, which this item covers, goes."""
        rest = path[len(self.source) :].lstrip(b"/")
        return b"/".join(part for part in (self.to, rest) if part)


@dataclass(frozen=True, slots=True)
class PropertySetting:
    """A key of a properties file in the source, which names the destination after the move."""

    file: bytes
    key: str
    value: str

    def value_for(self, dest: str) -> str:
        return self.value.replace(DEST_MARK, dest)


@dataclass(frozen=True, slots=True)
class LayoutForm:
    """One way in which the files of the application lie: it ``has`` all of these paths and ``lacks`` all of those, and
    at least one of its items is there."""

    name: str
    about: str
    has: tuple[bytes, ...]
    lacks: tuple[bytes, ...]
    items: tuple[LayoutItem, ...]
    setting: PropertySetting | None = None

    def item_of(self, path: bytes) -> LayoutItem:
        """The narrowest item that covers ``path``."""
        return max((item for item in self.items if item.covers(path)), key=lambda item: len(item.source))

    def fits(self, is_there: Callable[[bytes], bool]) -> bool:
        return (
            all(map(is_there, self.has))
            and not any(map(is_there, self.lacks))
            and any(is_there(item.source) for item in self.items)
        )

    def problems(self) -> Iterator[str]:
        """Why this form cannot be moved, whatever lies in the source."""
        for at, item in enumerate(self.items):
            for other in self.items[:at]:
                if item.source == other.source:
                    yield f"names {shown(item.source)} twice"
                elif item.to == other.to:
                    yield f"moves {shown(other.source)} and {shown(item.source)} to one place"
        if self.setting is not None:
            holder = next((item for item in self.items if item.covers(self.setting.file)), None)
            if holder is not None and self.item_of(self.setting.file).verb is ItemVerb.MOVE:
                yield f"sets a key in {shown(self.setting.file)}, which it moves with {shown(holder.source)}"


@dataclass(frozen=True, slots=True)
class Application:
    """How the moved application is stopped and started. Programs are paths in the source, then their arguments."""

    pid_file: bytes | None = None
    stop: tuple[str, ...] = ()
    start: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Layout:
    """One layout file that was read and is right."""

    name: str
    about: str
    note: str
    forms: tuple[LayoutForm, ...]
    application: Application = field(default_factory=Application)

    def form_of(self, is_there: Callable[[bytes], bool]) -> LayoutForm | None:
        """The first form that fits what lies in a source."""
        return next((form for form in self.forms if form.fits(is_there)), None)
