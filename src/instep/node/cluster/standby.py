"""Keeping the other nodes from a standby service, before it starts on this one.

Roles are taken and given in one transaction with the check of the lease, whose row it locks. So a node that was paused
and wakes up late cannot give itself its role again: its lease is another node's by then.
"""

from __future__ import annotations

import asyncio
import os

from instep.errors import ConfigError, NotAllowedError, RefusedError, UnavailableError
from instep.fleet.hooks.run import MINIMAL_ENVIRONMENT, run_program
from instep.fleet.hooks.spec import quoted
from instep.model.lease import LeaseFence
from instep.node.cluster.service import ClusterService
from instep.node.config.shared_parts.standby import StandbySettings
from instep.store.cluster.leases import check_lease
from instep.store.cluster.port import Transaction

LOOKS_MAX = 100
LOOK_S = 0.1
"""Sessions of the others are ended, and looked for again, until none is left."""


async def keep_others_away(
    service: ClusterService, lease: str, session: str, fence: LeaseFence, settings: StandbySettings
) -> tuple[str, ...]:
    """The roles that cannot log in any more. ``ContentionError`` ``fenced`` when the lease is lost meanwhile."""
    own = settings.roles.get(service.runtime.name)
    others = tuple(role for role in settings.roles.values() if role != own)
    if settings.roles:
        if service.state.shown.startswith("sqlite:"):
            raise ConfigError(
                f"standby {settings.name} has roles, and the cluster's database is a file, which has none",
                code="standby_roles",
                hint="name a PostgreSQL server in the cluster_file, or use fence in place of roles",
            )
        for look in range(LOOKS_MAX):
            async with service.transaction() as (transaction, era):
                await check_lease(transaction, era, lease, session, fence)
                if look == 0:
                    await _set_roles(transaction, settings, own, others)
                left = sum([await _end_sessions(transaction, role) for role in others])
            if look > 0 and not left:
                break
            await asyncio.sleep(LOOK_S)
        else:
            raise UnavailableError(
                f"sessions of {', '.join(others)} do not end",
                code="standby_sessions",
                hint="look at pg_stat_activity of the server",
            )
    if settings.fence is not None:
        await _run_fence(service, settings)
    return others


async def _set_roles(
    transaction: Transaction, settings: StandbySettings, own: str | None, others: tuple[str, ...]
) -> None:
    """Names are of letters, digits and underscores only, so that quoting them is enough."""
    for role in settings.roles.values():
        if await transaction.row("SELECT 1 FROM pg_roles WHERE rolname = $1", role) is None:
            raise RefusedError(
                f"the server of the cluster's database has no role {role}",
                code="standby_role_missing",
                hint=f"make it there: CREATE ROLE {role} NOLOGIN",
                role=role,
            )
    try:
        for role in others:
            await transaction.change(f'ALTER ROLE "{role}" NOLOGIN')
        if own is not None:
            await transaction.change(f'ALTER ROLE "{own}" LOGIN')
    except NotAllowedError as error:
        raise NotAllowedError(
            f"the user of the cluster's database may not change the roles of standby {settings.name}: {error.reason}",
            code="standby_rights",
            hint="as a superuser there: ALTER ROLE USER CREATEROLE, and GRANT each role TO USER WITH ADMIN OPTION",
        ) from error


async def _end_sessions(transaction: Transaction, role: str) -> int:
    row = await transaction.row(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1", role
    )
    return 0 if row is None else int(row[0])


async def _run_fence(service: ClusterService, settings: StandbySettings) -> None:
    assert settings.fence is not None
    environment = {
        **MINIMAL_ENVIRONMENT, "INSTEP_STANDBY": settings.name, "INSTEP_NODE": service.runtime.name
    }  # fmt: skip
    with open(os.devnull, "rb") as nothing:
        attempt = await run_program(settings.fence, nothing.fileno(), environment, settings.fence_timeout_ms)
    if not attempt.ok:
        raise RefusedError(
            f"the fence of standby {settings.name} failed, so it is not started: {attempt.reason}"
            f"{quoted(attempt.output)}",
            code="standby_fence_failed",
            hint=f"mend {settings.fence[0]}; the service is then started at the next attempt",
        )
