"""The rules of a profile for a path: those of the first kind whose patterns match it, else the profile's own."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping

from instep.core.sync.merge.formats import MergeFormat
from instep.core.sync.reconcile import IgnoredBy
from instep.core.sync.table import KindRules, Side
from instep.model.definition import Definition
from instep.node.config.sync import SyncKindSettings, SyncSettings
from instep.tree.scan.rules import Rules

_CACHED = 1 << 16


def kinds_of(profile: SyncSettings) -> Callable[[bytes], SyncKindSettings | None]:
    """The kind of a path. The patterns mean what they mean in ``ignore``, a directory as a path without a slash."""
    compiled = [(Rules(Definition(ignore=each.paths)), each) for each in profile.kinds.values()]

    @functools.lru_cache(_CACHED)
    def kind_of(path: bytes) -> SyncKindSettings | None:
        return next(
            (each for rules, each in compiled if rules.ignored(path, False) or rules.ignored(path, True)),
            None,
        )

    return kind_of


def rules_of(profile: SyncSettings) -> Callable[[bytes], KindRules]:
    kind_of, own = kinds_of(profile), KindRules(profile.direction)

    def rules(path: bytes) -> KindRules:
        found = kind_of(path)
        return found.rules if found is not None else own

    return rules


def ignored_by(definitions: Mapping[Side, Definition]) -> IgnoredBy:
    """Which side's home ignores a path, by the definitions of both sides."""
    compiled = [(side, rules) for side in Side if (rules := Rules(definitions[side])).has_patterns]

    def by(path: bytes, is_dir: bool) -> Side | None:
        return next((side for side, rules in compiled if rules.ignored(path, is_dir)), None)

    return by


def gates_of(profile: SyncSettings) -> Callable[[bytes], tuple[str, ...]]:
    """The gates that a change of a path needs."""
    kind_of = kinds_of(profile)

    def gates(path: bytes) -> tuple[str, ...]:
        found = kind_of(path)
        return profile.gates + (found.gates if found is not None else ())

    return gates


def format_of(profile: SyncSettings) -> Callable[[bytes], MergeFormat | None]:
    kind_of = kinds_of(profile)

    def form(path: bytes) -> MergeFormat | None:
        found = kind_of(path)
        return found.merge if found is not None else None

    return form
