"""Receivers of notices about events: ``[notify.NAME]``."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from instep.api.event_kinds import NOTES, WARNINGS
from instep.core.notices import NoticeRules
from instep.model.ids import FilesetName, fileset_name
from instep.node.config.hooks import HookSettings, read_hook
from instep.node.config.keys import key, section
from instep.node.config.kinds import BadValue, kind, list_of, named, off_or, strings
from instep.node.config.table_reader import Table
from instep.node.config.values import duration_ms

TARGETS_MAX = 16
_NOT_TOLD = frozenset(("notice_failed",))
_PAIR = frozenset(("trouble", "in_step"))


_fileset_names = list_of(named(fileset_name, "is not the name of a fileset"))


@kind(is_list=True)
def event_kinds(raw: object) -> tuple[str, ...]:
    """Kinds of events, each once."""
    found = tuple(dict.fromkeys(strings(raw)))
    wrong = [item for item in found if item not in WARNINGS and item not in NOTES]
    if wrong:
        raise BadValue(f"names {', '.join(wrong)}, which is no kind of event such as trouble or hook_failed")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class NotifySettings:
    """One receiver of notices."""

    name: str
    kinds: tuple[str, ...] = key([], event_kinds, name="on")
    """Kinds of [events](events.md); every warning when none is named. With `trouble` comes its end, too."""
    filesets: tuple[FilesetName, ...] = key([], _fileset_names)
    """Events of these filesets only; of all, and of the node itself, when none is named."""
    after_ms: int = key("5m", duration_ms)
    """How long a line stands badly before a notice reports it. Other events are reported at once."""
    group_ms: int = key("30s", duration_ms)
    """Events that are due within this time go out together."""
    again_ms: int | None = key("4h", off_or(duration_ms))
    """When trouble that stays, or an event like one before, is reported again; `off`: never."""
    send: HookSettings | None = section(HookSettings, None)

    @property
    def rules(self) -> NoticeRules:
        return NoticeRules(self.after_ms, self.group_ms, self.again_ms)

    def wants(self, what: str, fileset: str) -> bool:
        if what in _NOT_TOLD or (self.filesets and fileset not in self.filesets):
            return False
        if not self.kinds:
            return what in WARNINGS or what in _PAIR
        return what in self.kinds or (what in _PAIR and "trouble" in self.kinds)


def read_notify(top: Table) -> MappingProxyType[str, NotifySettings]:
    found = {}
    for name, table in top.named_below("notify", TARGETS_MAX):
        target = _target(name, table)
        if target is not None:
            found[name] = target
    return MappingProxyType(found)


def _target(name: str, table: Table) -> NotifySettings | None:
    before = len(table.reading.problems)
    row: dict[str, Any] = table.read(NotifySettings)
    if "send" not in table.raw:
        table.wrong("send", "is needed: run or http, the receiver of the notices")
    else:
        hook = read_hook(table.reading, (*table.path, "send"), table.raw["send"], "notify")
        if hook is not None and not (hook.run or hook.http):
            table.wrong("send", "needs run or http: nothing else can take a notice")
        if hook is not None and (hook.paths or hook.writes):
            table.wrong("send", "has no paths and no writes: it receives events")
        row["send"] = hook
    return None if len(table.reading.problems) > before else NotifySettings(name=name, **row)
