"""A run as people see it: the document of the work, and of the paths to look at."""

from __future__ import annotations

from blake3 import blake3
from msgspec import UNSET
from msgspec.structs import replace

from instep.api.changes import sync as api
from instep.api.parts import generation
from instep.core.sync.plan import Listed, SyncStep
from instep.core.sync.table import Side
from instep.core.sync.work import SyncWork
from instep.errors import InstepError
from instep.model.change import PathOutcome
from instep.model.ids import NodeName
from instep.model.manifest.entry import Kind
from instep.model.paths import path_fields, shown
from instep.node.config.sync import SideSettings, SyncSettings
from instep.node.lines.snapshot import external_documents, moment


def run_document(
    profile: SyncSettings, work: SyncWork, initiator: NodeName, me: NodeName
) -> api.SyncRunDocument:
    """The run as it is now."""
    changes = [each for step in work.steps for each in _changes(step)]
    return api.SyncRunDocument(
        profile=profile.name,
        run=work.number,
        initiator=initiator,
        node=me,
        phase=work.phase.value,
        percent=work.percent,
        dry_run=work.is_dry_run,
        started_at=moment(work.began_at_ms),
        ended_at=moment(work.ended_at_ms),
        rounds=work.rounds,
        left=_side(profile.left, Side.LEFT, work),
        right=_side(profile.right, Side.RIGHT, work),
        changes=tuple(changes[: api.CHANGES_SHOWN]),
        changes_total=len(changes),
        listed=tuple(map(listed_document, work.listed)),
        undone=tuple(_undone(side, outcome) for side, outcome in work.undone),
        listed_total=len(work.listed),
        undone_total=len(work.undone),
        gates=tuple(
            api.SyncGateDocument(
                gate=row.gate,
                side=row.side.value,
                node=row.node,
                value=row.value,
                wanted=row.wanted,
                reason=row.reason,
                is_away=row.is_away,
            )
            for row in work.gates
        ),
        left_out=tuple(
            api.SyncLeftOutDocument(side=each.by.value, **path_fields(each.path))
            for each in work.left_out[: api.CHANGES_SHOWN]
        ),
        left_out_total=len(work.left_out),
        error=_error(work.error),
    )


def listed_document(listed: Listed) -> api.SyncListedDocument:
    """Its id comes from path, reason and copy, so the same finding of a later run is the same."""
    text = b"\0".join((listed.path, listed.why.value.encode(), listed.copy or b""))
    return api.SyncListedDocument(
        id=blake3(text).hexdigest()[:12],
        why=listed.why.value,
        loser=listed.loser.value if listed.loser is not None else None,
        copy=shown(listed.copy) if listed.copy is not None else None,
        renamed_to=shown(listed.renamed_to) if listed.renamed_to is not None else None,
        reason=listed.reason,
        path=path_fields(listed.path)["path"],
        path_b64=path_fields(listed.path).get("path_b64", UNSET),
    )


def open_listings(
    before: tuple[api.SyncListedDocument, ...], found: tuple[api.SyncListedDocument, ...]
) -> tuple[api.SyncListedDocument, ...]:
    """The listings with those of another run added: one that was reviewed and is found again counts anew."""
    known = {each.id: each for each in before}
    known |= {each.id: each for each in found}
    return tuple(known.values())


def reviewed(
    listed: tuple[api.SyncListedDocument, ...], which: str
) -> tuple[api.SyncListedDocument, ...] | None:
    """The listings with one marked; None when there is no such one."""
    if which not in {each.id for each in listed}:
        return None
    return tuple(replace(each, reviewed=True) if each.id == which else each for each in listed)


def _changes(step: SyncStep) -> list[api.SyncChangeDocument]:
    return [
        api.SyncChangeDocument(side=side.value, change=_change(step, side), **path_fields(step.path))
        for side, differs in ((Side.RIGHT, step.changes_right), (Side.LEFT, step.changes_left))
        if differs
    ]


def _change(step: SyncStep, side: Side) -> str:
    if step.is_merged:
        return "merged"
    old, new = (step.left, step.to_left) if side is Side.LEFT else (step.right, step.to_right)
    if old is None:
        return "added"
    return "removed" if new is None else "changed"


def _side(settings: SideSettings, side: Side, work: SyncWork) -> api.SyncSideDocument:
    steps = [step for step in work.steps if (step.changes_left if side is Side.LEFT else step.changes_right)]
    kinds = [_change(step, side) for step in steps]
    wanted = [step.to_left if side is Side.LEFT else step.to_right for step in steps]
    return api.SyncSideDocument(
        fileset=settings.fileset,
        node=settings.home,
        generation=generation(work.heads.get(side)),
        added=kinds.count("added"),
        changed=kinds.count("changed"),
        merged=kinds.count("merged"),
        removed=kinds.count("removed"),
        bytes=sum(new.size for new in wanted if new is not None and new.kind is Kind.FILE),
        made=work.made[side],
        external=external_documents(work.external.get(side, ())),
        ignore=work.ignores.get(side, ()),
    )


def _undone(side: Side, outcome: PathOutcome) -> api.SyncUndoneDocument:
    return api.SyncUndoneDocument(
        side=side.value,
        why=outcome.kind.value,
        code=outcome.code,
        reason=outcome.reason,
        owner=outcome.owner,
        **path_fields(outcome.path),
    )


def _error(error: InstepError | None) -> api.SyncErrorDocument | None:
    if error is None:
        return None
    told_by = error.facts.get("told_by")
    return api.SyncErrorDocument(
        code=error.error_code,
        exit_code=error.exit_code,
        reason=error.reason,
        hint=error.hint,
        told_by=told_by if isinstance(told_by, str) else None,
    )
