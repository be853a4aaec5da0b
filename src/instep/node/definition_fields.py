"""What travels, from the values that were read from ``instep.toml``: the definition and its rollout policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from instep.model.definition import Definition, FilesetClass, Mode, Preserve
from instep.model.ids import NodeName
from instep.model.rollout import Absent, OnFailure, RolloutPolicy, Strategy, why_not_policy

__all__ = ["definition_of", "policy_of"]


def definition_of(row: Mapping[str, Any], policy: RolloutPolicy) -> Definition:
    return Definition(
        mode=Mode(row["mode"]),
        fileset_class=FilesetClass(row["class"]),
        ignore=row["ignore"],
        include=row["include"],
        preserve=tuple(Preserve(item) for item in row["preserve"]),
        packages=tuple(row["packages"]),
        gates=tuple(row["gates"]),
        rollout=policy.encoded(),
    )


def policy_of(row: Mapping[str, Any], wrong: Callable[[str, str], None]) -> RolloutPolicy:
    """How generations go through the partners. ``wrong`` is told each key whose value cannot travel, and why."""
    if row["quorum"] != int(row["quorum"]):
        wrong("quorum", "is not a whole percentage such as 80%")
    policy = RolloutPolicy(
        strategy=Strategy(row["strategy"]),
        batch=row["batch"],
        order=tuple(NodeName(name) for name in row["order"]),
        quorum_percent=int(row["quorum"]),
        absent=Absent(row["absent"]),
        on_failure=OnFailure(row["on_failure"]),
        confirm_within_ms=row["confirm_within"],
        finish_within_ms=row["finish_within"],
        canary_for_ms=row["canary_for"],
    )
    # One key at a time against the defaults, so that every problem is told at once.
    for field in policy.__struct_fields__:
        why = why_not_policy(msgspec.structs.replace(RolloutPolicy(), **{field: getattr(policy, field)}))
        if why is not None:
            key = field.removesuffix("_ms").removesuffix("_percent")
            wrong(key, why.partition(", ")[2] or why.removeprefix(f"{key} "))
    return policy
