"""What a profile needs before a run, looked at from the home that carries the runs out: one row for each condition."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from instep.core.sync.bases import common_base
from instep.core.sync.table import Side
from instep.errors import InstepError
from instep.model.counts import counted
from instep.model.external import mark_steps, unmarked, why_unmarked
from instep.model.ids import NodeName
from instep.node.config.sync import SyncSettings
from instep.node.syncing.former_bases import FormerBases
from instep.node.syncing.sides import FarHome, NearHome
from instep.node.syncing.sync_runs import HomeLook

VERSION = "instep"
"""The fact of that name."""


class ProfileRow(NamedTuple):
    name: str
    is_ok: bool
    ours: str
    theirs: str
    hint: str | None
    node: NodeName


class ProfileCheck:
    """``looks`` are what both homes answered."""

    def __init__(self, profile: SyncSettings, looks: Mapping[Side, HomeLook], key: bytes) -> None:
        self._profile = profile
        self._looks = looks
        self._key = key

    def of_looks(self) -> Iterator[ProfileRow]:
        """Both homes: whether they write their sides and take part; edits of locked kinds; databases."""
        profile = self._profile
        locked = {each.locked for each in profile.kinds.values()}
        for side, look in self._looks.items():
            where, home = str(profile.side(side)), profile.side(side).home
            said = look.error.reason if look.error is not None else "answers, and takes changes of runs"
            hint = look.error.hint if look.error is not None else None
            yield self._row(f"{where} of", look.error is None, said, hint or f"on {home}: instep check", home)
            if look.reply is None:
                continue
            edits, state = look.reply.total, look.reply.state
            if side in locked:
                said = f"{counted(edits, 'path')} changed where the kind is locked" if edits else "no edits"
                hint = f"see them: instep sync show {profile.name}; the next run puts back what is locked"
                yield self._row(f"locked kinds of {where} in", not edits, said, hint, home)
            if state is not None:
                why, open_ = why_unmarked(state.external), unmarked(state.external)
                steps = mark_steps(profile.side(side).fileset, open_)
                hint = f"on {home}: {'; or: '.join(steps[:2])}"
                known = f"{counted(len(state.external), 'part')} marked" if state.external else "none named"
                yield self._row(f"databases of {where} in", why is None, why or known, hint, home)

    async def of_homes(self, near: NearHome, far: FarHome, former: FormerBases) -> Iterator[ProfileRow]:
        """What the other home shows this one: its contents, its marks of the bases, its version."""
        profile, name = self._profile, self._profile.name
        where = f"{far.line.fileset}@{far.node}"
        rows: list[ProfileRow] = []
        for look in self._looks.values():
            if look.reply is None:
                return iter(rows)
        far_side = Side.LEFT if profile.left.home == far.node else Side.RIGHT
        reply = self._looks[far_side].reply
        assert reply is not None
        far.take_line(reply)
        try:
            await far.require_readable()
            rows.append(self._row(f"contents of {where} in", True, "may be read here", None, far.node))
        except InstepError as error:
            rows.append(self._row(f"contents of {where} in", False, error.reason, error.hint, far.node))
        try:
            kept, marks, *_ = await former.known()
            base = common_base(kept, marks)
            here, there = (f"run {each[-1].run}" if each else "none" for each in (kept, marks))
            hint = f"which side is right: instep sync run {name} --initial left (or right)"
            row = self._row("base of", base is not None, there, hint, far.node)
            rows.append(row._replace(ours=here))
            ours, theirs = await near.facts(self._key, [VERSION]), await far.facts(self._key, [VERSION])
        except InstepError as error:
            rows.append(self._row("base of", False, error.reason, error.hint, far.node))
            return iter(rows)
        versions = {
            node: facts.get(VERSION, "unknown")
            for node, facts in (*ours.facts.items(), *theirs.facts.items())
        }
        is_one = len(set(versions.values())) == 1
        said = ", ".join(f"{node} {versions[node]}" for node in sorted(versions))
        newest = max(versions.values())
        older = [node for node in sorted(versions) if versions[node] != newest]
        hint = f"upgrade {', '.join(older)}; on each: instep --version"
        rows.append(self._row("versions of", is_one, said, hint, far.node)._replace(ours=versions[near.node]))
        return iter(rows)

    def _row(self, what: str, is_ok: bool, theirs: str, hint: str | None, node: NodeName) -> ProfileRow:
        return ProfileRow(
            f"{what} sync {self._profile.name}", is_ok, self._profile.carrier, theirs, hint, node
        )
