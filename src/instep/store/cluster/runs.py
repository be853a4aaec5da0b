"""Runs in the cluster's database: the ticks of jobs, each started once, and requests, each claimed by one node.

A run belongs to the node and session that started or claimed it, as long as it is renewed. After a failover the new
server may lack the last starts of the old one. So a tick that was due before the era began is not started in it, no
waiting run is claimed in the quiet time, and a node that still works on a run brings its row back.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import NamedTuple

from instep.store.cluster.eras import Era
from instep.store.cluster.port import Transaction

ATTEMPTS_MAX = 3
"""How often a lost run is begun, in all."""
RUNS_KEPT = 2_000
"""Ended runs that are kept of each job and each kind of request."""
WAITING, RUNNING, LOST = "waiting", "running", "lost"
_COLUMNS = (
    "subject, key, attempt, state, due_at_ms, payload, asked_by, on_lost, node, session, started_at_ms, expires_at_ms,"
    " ended_at_ms, exit_code, reason, tail"
)
_VALUES = "$1, $2, $3, $4, $5, $6, $7, $8, $9, $10"
_KEY = "subject = $1 AND key = $2 AND attempt = $3"


class Runner(NamedTuple):
    """The node that runs, and the start of its daemon."""

    node: str
    session: str


class ClusterRun(NamedTuple):
    """A row. Times are the database's; 0 where it has not come to that."""

    subject: str
    key: str
    attempt: int
    state: str
    due_at_ms: int
    payload: str
    asked_by: str
    on_lost: str
    node: str
    session: str
    started_at_ms: int
    expires_at_ms: int
    ended_at_ms: int
    exit_code: int | None
    reason: str
    tail: str


class Outcome(NamedTuple):
    """How a run ended; ``reason`` is empty where it went well."""

    state: str
    exit_code: int | None
    reason: str
    tail: str


class NotStarted(NamedTuple):
    """``early_ms`` until the tick is due by the database's clock; 0 where another node has it, or may have had it."""

    early_ms: int = 0


def tick_key(tick_s: int) -> str:
    """The key of a tick: its UTC second."""
    return datetime.fromtimestamp(tick_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


async def start_tick(
    transaction: Transaction, era: Era, subject: str, tick_s: int, on_lost: str, runner: Runner, ttl_ms: int
) -> ClusterRun | NotStarted:
    """Begin a job's run of a tick, unless any node has begun it before."""
    due_at_ms = tick_s * 1000
    if due_at_ms > era.now_ms:
        return NotStarted(due_at_ms - era.now_ms)
    if due_at_ms <= era.began_at_ms:
        return NotStarted()
    row = await transaction.row(
        f"INSERT INTO instep_run VALUES ({_VALUES}, instep_now_ms(), instep_now_ms() + CAST($11 AS bigint), 0, NULL,"
        f" '', '') ON CONFLICT (subject, key, attempt) DO NOTHING RETURNING {_COLUMNS}",
        subject, tick_key(tick_s), 1, RUNNING, due_at_ms, "", "", on_lost, *runner, ttl_ms,
    )  # fmt: skip
    return NotStarted() if row is None else ClusterRun(*row)


async def add_waiting(
    transaction: Transaction, subject: str, key: str, payload: str, asked_by: str, on_lost: str
) -> bool:
    """Put up a run for any node to claim. False where there is one of this key."""
    changed = await transaction.change(
        "INSERT INTO instep_run VALUES ($1, $2, 1, $3, instep_now_ms(), $4, $5, $6, '', '', 0, 0, 0, NULL, '', '')"
        " ON CONFLICT (subject, key, attempt) DO NOTHING",
        subject, key, WAITING, payload, asked_by, on_lost,
    )  # fmt: skip
    await transaction.announce("run")
    return changed > 0


async def claim(
    transaction: Transaction, era: Era, subject: str, runner: Runner, ttl_ms: int
) -> ClusterRun | None:
    """Take the waiting run that was due first."""
    if era.is_quiet:
        return None
    row = await transaction.row(
        "UPDATE instep_run SET state = $2, node = $3, session = $4, started_at_ms = instep_now_ms(),"
        " expires_at_ms = instep_now_ms() + CAST($5 AS bigint) WHERE subject = $1 AND state = $6 AND (key, attempt) ="
        " (SELECT key, attempt FROM instep_run WHERE subject = $1 AND state = $6 ORDER BY due_at_ms, key LIMIT 1)"
        f" RETURNING {_COLUMNS}",
        subject, RUNNING, *runner, ttl_ms, WAITING,
    )  # fmt: skip
    return None if row is None else ClusterRun(*row)


async def renew_run(transaction: Transaction, run: ClusterRun, ttl_ms: int) -> bool:
    """Whether the run is still its node's, which it is then for another ``ttl_ms``."""
    if await transaction.change(
        f"UPDATE instep_run SET expires_at_ms = instep_now_ms() + CAST($4 AS bigint)"
        f" WHERE {_KEY} AND session = $5 AND state = $6",
        run.subject, run.key, run.attempt, ttl_ms, run.session, RUNNING,
    ):  # fmt: skip
        return True
    return await _bring_back(transaction, run, RUNNING, ttl_ms)


async def _bring_back(transaction: Transaction, run: ClusterRun, state: str, ttl_ms: int) -> bool:
    """Write a row that a failover has lost, or that it made a waiting one again."""
    row = await transaction.row(
        f"INSERT INTO instep_run VALUES ({_VALUES}, $11, instep_now_ms() + CAST($12 AS bigint), 0, NULL, '', '')"
        " ON CONFLICT (subject, key, attempt) DO UPDATE SET state = excluded.state, node = excluded.node,"
        " session = excluded.session, started_at_ms = excluded.started_at_ms, expires_at_ms = excluded.expires_at_ms"
        " WHERE instep_run.state = $13 RETURNING key",
        *run[:3], state, *run[4:10], run.started_at_ms, ttl_ms, WAITING,
    )  # fmt: skip
    return row is not None


async def end_run(transaction: Transaction, run: ClusterRun, outcome: Outcome) -> bool:
    """Record how a run ended. False where it had been given up as lost and another attempt may have begun."""
    values = (run.subject, run.key, run.attempt, *outcome, run.session)
    sql = (
        "UPDATE instep_run SET state = $4, exit_code = $5, reason = $6, tail = $7, ended_at_ms = instep_now_ms()"
        f" WHERE {_KEY} AND session = $8 AND (state = '{RUNNING}' OR (state = '{LOST}' AND on_lost = 'leave'))"
    )
    if await transaction.change(sql, *values):
        await transaction.announce("run")
        return True
    if not await _bring_back(transaction, run, RUNNING, 0):
        return False
    return await transaction.change(sql, *values) > 0


async def give_up_lost(transaction: Transaction, era: Era) -> list[ClusterRun]:
    """Mark as lost what its nodes did not renew, and put up another attempt where the job asks for one."""
    if era.is_quiet:
        return []
    rows = await transaction.rows(
        "UPDATE instep_run SET state = $1, ended_at_ms = instep_now_ms(), reason = 'its node was lost'"
        f" WHERE state = $2 AND expires_at_ms <= instep_now_ms() RETURNING {_COLUMNS}",
        LOST, RUNNING,
    )  # fmt: skip
    found = [ClusterRun(*row) for row in rows]
    for run in found:
        if run.on_lost == "rerun" and run.attempt < ATTEMPTS_MAX:
            await transaction.change(
                "INSERT INTO instep_run VALUES ($1, $2, $3, $4, $5, $6, $7, $8, '', '', 0, 0, 0, NULL, '', '')"
                " ON CONFLICT (subject, key, attempt) DO NOTHING",
                run.subject, run.key, run.attempt + 1, WAITING, *run[4:8],
            )  # fmt: skip
            await transaction.announce("run")
    return found


async def let_go(transaction: Transaction, run: ClusterRun) -> None:
    """The node stops and ends the run: at the next look it counts as lost, and another attempt may begin."""
    await transaction.change(
        f"UPDATE instep_run SET expires_at_ms = 0 WHERE {_KEY} AND session = $4 AND state = $5",
        run.subject, run.key, run.attempt, run.session, RUNNING,
    )  # fmt: skip
    await transaction.announce("run")


async def last_due_ms(transaction: Transaction, subject: str) -> int:
    """When the newest run of a job was due; 0 where there is none."""
    row = await transaction.row("SELECT max(due_at_ms) FROM instep_run WHERE subject = $1", subject)
    return 0 if row is None or row[0] is None else int(row[0])


async def newest_runs(transaction: Transaction, subject: str, most: int) -> list[ClusterRun]:
    """Newest first."""
    rows = await transaction.rows(
        f"SELECT {_COLUMNS} FROM instep_run WHERE subject = $1 ORDER BY due_at_ms DESC, key DESC, attempt DESC"
        " LIMIT CAST($2 AS bigint)",
        subject, most,
    )  # fmt: skip
    return [ClusterRun(*row) for row in rows]


async def newest_of_all(transaction: Transaction, prefix: str, most: int) -> list[ClusterRun]:
    """The newest runs of all subjects that begin so, newest first."""
    rows = await transaction.rows(
        f"SELECT {_COLUMNS} FROM instep_run WHERE subject LIKE $1 ORDER BY due_at_ms DESC, key DESC, attempt DESC"
        " LIMIT CAST($2 AS bigint)",
        f"{prefix}%", most,
    )  # fmt: skip
    return [ClusterRun(*row) for row in rows]


async def last_attempt(transaction: Transaction, subject: str, key: str) -> ClusterRun | None:
    row = await transaction.row(
        f"SELECT {_COLUMNS} FROM instep_run WHERE subject = $1 AND key = $2 ORDER BY attempt DESC LIMIT 1",
        subject, key,
    )  # fmt: skip
    return None if row is None else ClusterRun(*row)


async def open_runs(transaction: Transaction, subject_prefix: str) -> list[ClusterRun]:
    """What waits or runs, the oldest first."""
    rows = await transaction.rows(
        f"SELECT {_COLUMNS} FROM instep_run WHERE state IN ($1, $2) AND subject LIKE $3 ORDER BY due_at_ms, key",
        WAITING, RUNNING, f"{subject_prefix}%",
    )  # fmt: skip
    return [ClusterRun(*row) for row in rows]


async def prune_runs(transaction: Transaction, subject: str, kept: int = RUNS_KEPT) -> int:
    """Forget the oldest ended runs of a job or of a kind of request."""
    return await transaction.change(
        "DELETE FROM instep_run WHERE subject = $1 AND state NOT IN ($2, $3) AND due_at_ms <"
        " (SELECT min(due_at_ms) FROM (SELECT due_at_ms FROM instep_run WHERE subject = $1"
        " ORDER BY due_at_ms DESC LIMIT CAST($4 AS bigint)) AS kept)",
        subject, WAITING, RUNNING, kept,
    )  # fmt: skip
