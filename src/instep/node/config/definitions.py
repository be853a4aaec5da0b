"""The travelling keys of a fileset in ``instep.toml``: the keys of its definition and of its rollout."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from instep.core.follow.gates import GATES_MAX, BadGate, parse_gate
from instep.model.definition import FilesetClass, Mode, Preserve
from instep.model.ids import NodeName
from instep.model.rollout import Absent, Approval, OnFailure, RolloutPolicy, Strategy, why_not_policy
from instep.node.config.keys import key, keys_of, section
from instep.node.config.kinds import BadValue, ValueKind, enum_of, kind, off_or, some_of, strings
from instep.node.config.table_reader import Table
from instep.node.config.values import count, duration_ms, node_names, patterns, percent


@kind(is_list=True)
def gate_texts(raw: object) -> tuple[str, ...]:
    texts = strings(raw)
    if len(texts) > GATES_MAX:
        raise BadValue(f"has {len(texts)} gates, the limit is {GATES_MAX}")
    for text in texts:
        try:
            parse_gate(text)
        except BadGate as error:
            raise BadValue(f"holds {text!r}, which {error}") from None
    return tuple(dict.fromkeys(texts))


@kind(is_list=True)
def package_patterns(raw: object) -> tuple[str, ...]:
    """``patterns`` of files of the fileset; a leading slash stands for its root, as in ``ignore``."""
    found = patterns(raw)
    for pattern in found:
        if ".." in pattern.split("/"):
            raise BadValue(f"holds {pattern!r}, which leaves the fileset by .. and matches nothing in it")
    return found


_preserved = some_of(*(item.value for item in Preserve))
_preserve = ValueKind(lambda raw: tuple(map(Preserve, _preserved(raw))), words=_preserved.words, is_list=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutKeys:
    """The keys of ``RolloutPolicy``, under the names of its fields."""

    travels: ClassVar[bool] = True
    strategy: Strategy = key("auto", enum_of(Strategy))
    """`auto`: partners with a reload hook one at a time, the others when ready; `together`: all at once when all are
    staged; `rolling`: in waves, each drained; `canary`: the first wave is watched before the next."""
    batch: int = key(1, count)
    """How many partners a wave holds."""
    order: tuple[NodeName, ...] = key([], node_names)
    """Partners that go first, in this order; the others follow by name."""
    quorum_percent: float = key("100%", percent)
    """Share of the reachable partners that must be staged first."""
    absent: Absent = key("skip", enum_of(Absent))
    """`skip`: unreachable partners come later; `wait`: the rollout waits for them."""
    on_failure: OnFailure = key("put_back", enum_of(OnFailure))
    """`put_back`: when a partner fails, all that switched return to the generation before; `stop`: no more switch."""
    confirm_within_ms: int | None = key("off", off_or(duration_ms))
    """Without `instep rollout confirm` within this time every node returns to the generation before."""
    finish_within_ms: int = key("5m", duration_ms)
    """A partner that began is live or back within this time."""
    canary_for_ms: int = key("10s", duration_ms)
    """How long the first wave of a canary is watched."""
    approve: Approval = key("off", enum_of(Approval))
    """`one`: no partner switches before `instep rollout approve`; `other_than_author`: by another person than the
    generation's author. Not with the strategy `auto`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TravellingKeys:
    """The keys of ``Definition``, under the names of its fields."""

    travels: ClassVar[bool] = True
    mode: Mode = key("mirror", enum_of(Mode, later=(Mode.SHARED,)))
    """`mirror`: one writer, partners follow; `replicate`: every node that has it writes its own files in it."""
    fileset_class: FilesetClass = key("metadata", enum_of(FilesetClass), name="class")
    """`metadata`; `data`, which goes only where `data = true`; or `secret`, for keys: to the partners in `to`, never
    over a hub; without rights of group and others where it is followed; at most one old version in the archive."""
    ignore: tuple[str, ...] = key([], patterns)
    """Gitignore patterns of paths that are never carried or touched."""
    include: tuple[str, ...] = key([], patterns)
    """When not empty, only these patterns are carried."""
    preserve: tuple[Preserve, ...] = key([], _preserve)
    """Kept beyond modes, times and symlinks: owner, xattr, acl, hardlinks, sparse."""
    packages: tuple[str, ...] = key([], package_patterns)
    """Gitignore patterns of documents that name others: they go live behind those, and wait for a withheld one."""
    gates: tuple[str, ...] = key([], gate_texts)
    """Facts that must agree before a generation is applied: `NAME`, `NAME >=`, `NAME contains`, or with a value."""
    rollout: RolloutPolicy = section(RolloutKeys, RolloutPolicy, is_whole=True)


def read_rollout(table: Table) -> RolloutPolicy:
    """How generations go through the partners; the defaults where a value cannot be used."""
    before = len(table.reading.problems)
    row = table.read(RolloutKeys)
    if len(table.reading.problems) > before:
        return RolloutPolicy()
    if row["quorum_percent"] != int(row["quorum_percent"]):
        table.wrong("quorum", "is not a whole percentage such as 80%")
    policy = RolloutPolicy(**{**row, "quorum_percent": int(row["quorum_percent"])})
    # One key at a time against the defaults, so that every problem is named at once.
    for one in keys_of(RolloutKeys):
        others = {"strategy": policy.strategy} if one.field == "approve" else {}
        why = why_not_policy(RolloutPolicy(**{one.field: getattr(policy, one.field), **others}))
        if why is not None:
            table.wrong(one.name, why.partition(", ")[2] or why.removeprefix(f"{one.name} "))
    return policy
