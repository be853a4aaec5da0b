"""The cluster's database and its leases as results show them."""

from __future__ import annotations

from instep.api.shared_parts.leases import DatabaseDocument, LeaseDocument
from instep.node.cluster.service import ClusterState
from instep.node.lines.snapshot import moment
from instep.store.cluster.leases import LeaseRow


def database_document(state: ClusterState) -> DatabaseDocument:
    """How this node stands to the database; nothing of it where nothing here has needed it yet."""
    trouble, era = state.trouble, state.era
    is_quiet = era is not None and era.is_quiet and trouble is None
    return DatabaseDocument(
        database=state.shown or None,
        reached=bool(state.shown) and trouble is None,
        code=trouble.code if trouble is not None else None,
        reason=trouble.reason if trouble is not None else None,
        since=moment(state.since_ms) if state.shown else None,
        era=era.era if era is not None else None,
        quiet_until=moment(era.quiet_until_ms) if is_quiet and era is not None else None,
        next=(trouble.hint,) if trouble is not None and trouble.hint else (),
    )


def lease_document(row: LeaseRow) -> LeaseDocument:
    state = "broken" if row.is_broken else "held" if row.is_held else "free"
    return LeaseDocument(
        name=row.name,
        state=state,
        holder=row.holder if row.is_held else None,
        fence=str(row.fence),
        since=moment(row.taken_at_ms) if row.is_held else None,
        until=moment(row.expires_at_ms) if row.is_held else None,
        reason=row.reason or None,
    )
