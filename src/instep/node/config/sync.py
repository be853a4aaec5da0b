"""Sync profiles in ``instep.toml``: two filesets with different homes, and which way the paths of each kind go."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from datetime import tzinfo
from types import MappingProxyType
from typing import Any

from instep.core.cluster.schedule import BadCronLine, Schedule, schedule_of
from instep.core.sync.merge.formats import MergeFormat
from instep.core.sync.table import Direction, KindRules, Side
from instep.errors import UsageError
from instep.model.ids import FilesetName, NodeName, fileset_name
from instep.model.ids import node_name as parse_node_name
from instep.node.config.definitions import gate_texts
from instep.node.config.hooks import HookSettings, check_heard, read_hook, read_slot
from instep.node.config.keys import NO_DEFAULT, key, section, sections_of
from instep.node.config.kinds import BadValue, ValueKind, enum_of, kind, string
from instep.node.config.shared_parts.jobs import time_zone
from instep.node.config.table_reader import Table
from instep.node.config.values import node_names, patterns

OFF = "off"
PROFILES_MAX = 64
KINDS_MAX = 64
_NOT_OF_KINDS = frozenset(("tree", "user", "paths", "writes"))


@dataclass(frozen=True, slots=True)
class SideSettings:
    """One side of a profile: a fileset and the node that is its home."""

    fileset: FilesetName
    home: NodeName

    def __str__(self) -> str:
        return f"{self.fileset}@{self.home}"


@kind(str)
def side_of(raw: object) -> SideSettings:
    """``FILESET@NODE``."""
    fileset, at, home = string(raw).partition("@")
    if not at:
        raise BadValue("is not FILESET@NODE such as site@s1")
    try:
        return SideSettings(fileset_name(fileset), parse_node_name(home))
    except UsageError as error:
        raise BadValue(f"is not FILESET@NODE such as site@s1: {error.reason}") from None


class LockEnforcement(enum.Enum):
    """When a change of a locked path is put back."""

    NEXT_RUN = "next_run"
    REVERT = "revert"


_sides = enum_of(Side)
_formats = enum_of(MergeFormat)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncKindSettings:
    """Paths of one kind, and which way they go."""

    name: str
    paths: tuple[str, ...] = key(NO_DEFAULT, patterns)
    """Patterns as in `.gitignore`; of several kinds that match a path, the first counts."""
    direction: Direction = key("both", enum_of(Direction))
    """`up` is left to right, `down` right to left, or `both`."""
    locked: Side | None = key(None, ValueKind(_sides.read, _sides.write, words=_sides.words))
    """The side, `left` or `right`, where no change of these paths counts: the other side's comes back over it."""
    lock_enforce: LockEnforcement = key("next_run", enum_of(LockEnforcement))
    """When a change on the locked side is put back: at the `next_run`, or `revert` at once."""
    merge: MergeFormat | None = key(None, ValueKind(_formats.read, _formats.write, words=_formats.words))
    """The format by which files that both sides changed are merged: `xml`, `json`, `properties` or `lines`."""
    validate: HookSettings | None = section(HookSettings, None)
    gates: tuple[str, ...] = key([], gate_texts)
    """Gates that must hold on every server of the side that gets changes of these paths, beside the profile's."""

    @property
    def rules(self) -> KindRules:
        return KindRules(self.direction, self.locked)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncHooksSettings:
    """What hears of the runs of a profile."""

    on_collision: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)
    on_sync_failed: tuple[HookSettings, ...] = section(HookSettings, (), is_listed=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncSettings:
    """Two filesets with different homes that runs bring together."""

    name: str
    left: SideSettings = key(NO_DEFAULT, side_of)
    """The fileset and its home on the left, `FILESET@NODE`: staging."""
    right: SideSettings = key(NO_DEFAULT, side_of)
    """The fileset and its home on the right, `FILESET@NODE`: production."""
    direction: Direction = key("both", enum_of(Direction))
    """Which way paths of no kind go: `up` is left to right, `down` right to left, or `both`."""
    initiators: tuple[NodeName, ...] = key([], node_names)
    """The nodes that may start a run; the home of the left alone when none is named."""
    cron: str = key(OFF, string, name="schedule")
    """When runs start by themselves: a cron line of five fields, or of six with the second first; or `off`."""
    zone: tzinfo = key("UTC", time_zone)
    """The time zone of the schedule, such as `Europe/Berlin`."""
    gates: tuple[str, ...] = key([], gate_texts)
    """Gates that must hold on every server of the side that gets changes, such as `instep` or `build_mode`."""
    kinds: Any = section(SyncKindSettings, dict, is_named=True)
    hooks: SyncHooksSettings = section(SyncHooksSettings, SyncHooksSettings())

    def side(self, side: Side) -> SideSettings:
        return self.left if side is Side.LEFT else self.right

    @property
    def schedule(self) -> Schedule | None:
        return None if self.cron == OFF else Schedule(self.cron, self.zone)

    @property
    def may_start(self) -> frozenset[NodeName]:
        return frozenset(self.initiators or (self.left.home,))

    @property
    def carrier(self) -> NodeName:
        """The home that carries out the runs: the left one, else the right one, that may start them."""
        return self.right.home if self.left.home not in self.may_start else self.left.home


def read_sync(top: Table) -> dict[str, SyncSettings]:
    found = {}
    for name, table in top.named_below("sync", PROFILES_MAX):
        before = len(top.reading.problems)
        row = table.read(SyncSettings)
        kinds = {kind: _kind(kind, below) for kind, below in table.named_below("kinds", KINDS_MAX)}
        if len(top.reading.problems) == before:
            hooks = _hooks(table.below("hooks"))
            profile = SyncSettings(name=name, kinds=MappingProxyType(kinds), hooks=hooks, **row)
            _check(table, profile)
            found[name] = profile
    return found


def _hooks(table: Table) -> SyncHooksSettings:
    table.read(SyncHooksSettings)
    slots = [slot.name for slot in sections_of(SyncHooksSettings) if slot.name in table.raw]
    found = {slot: read_slot(table, slot, None) for slot in slots}
    for slot, hooks in found.items():
        check_heard(table, slot, hooks, "profile")
    return SyncHooksSettings(**found)


def _kind(name: str, table: Table) -> SyncKindSettings:
    row = table.read(SyncKindSettings)
    if "validate" in table.raw:
        row["validate"] = read_hook(
            table.reading, (*table.path, "validate"), table.raw["validate"], "validate"
        )
        for word in sorted(_NOT_OF_KINDS & table.below("validate").raw.keys()):
            table.wrong(f"validate.{word}", "does not go with merged files: the hook sees one at a time")
        if row["merge"] is None:
            table.wrong("validate", "goes with merge: it looks at merged files")
    return SyncKindSettings(name=name, **row)


def _check(table: Table, profile: SyncSettings) -> None:
    homes = {profile.left.home, profile.right.home}
    if len(homes) == 1:
        table.wrong("right", "has the home of the left", str(profile.right))
    if not homes & profile.may_start:
        table.wrong(
            "initiators",
            f"names neither {profile.left.home} nor {profile.right.home}: a home carries runs out",
        )
    if profile.cron != OFF:
        try:
            schedule_of(profile.cron, profile.zone)
        except BadCronLine as error:
            table.wrong("schedule", str(error))
    for name, each in profile.kinds.items():
        against = Direction.DOWN if each.locked is Side.RIGHT else Direction.UP
        if each.locked is not None and each.direction is against:
            table.wrong(f"kinds.{name}.direction", f"is {against}, and the {each.locked} is locked")
        if each.locked is None and each.lock_enforce is LockEnforcement.REVERT:
            table.wrong(f"kinds.{name}.lock_enforce", "goes with locked: no side is locked")
        if each.merge is not None and (each.direction is not Direction.BOTH or each.locked is not None):
            table.wrong(f"kinds.{name}.merge", "goes with both directions: else one side's file is taken")
