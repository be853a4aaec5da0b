"""Jobs and requests: commands that one node of the cluster runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo

from instep.core.cluster.schedule import BadCronLine, CatchUp, Schedule, schedule_of
from instep.node.config.hooks import NO_TIME, user_name
from instep.node.config.keys import NO_DEFAULT, key
from instep.node.config.kinds import BadValue, choice, enum_of, kind, string, whole_number
from instep.node.config.shared_parts.named_tables import named_tables, read_named
from instep.node.config.table_reader import Table
from instep.node.config.values import duration_ms, program


def zone_of(name: str) -> tzinfo:
    """The zone of a name, as it is in force on this machine; UTC also where the machine knows none."""
    return UTC if name == "UTC" else ZoneInfo(name)


@kind(str)
def time_zone(raw: object) -> tzinfo:
    """A zone by its name."""
    name = string(raw)
    try:
        return zone_of(name)
    except (KeyError, ValueError, OSError):
        raise BadValue(
            "is not a time zone that this machine knows, such as Europe/Berlin; the package tzdata has them"
        ) from None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSettings:
    """A command that one node of the cluster runs at each tick of a cron line."""

    name: str
    cron: str = key(NO_DEFAULT, string)
    """A cron line of five fields, or of six with the second first."""
    zone: tzinfo = key("UTC", time_zone)
    """The time zone of the cron line, such as `Europe/Berlin`."""
    run: tuple[str, ...] = key(NO_DEFAULT, program)
    """A program and its arguments; no shell. It must be there on every node that has this job."""
    user: str | None = key(None, user_name)
    """The user that it runs as, with that user's groups only; the daemon must be root."""
    timeout_ms: int = key("10m", duration_ms)
    """When a run that has not ended is stopped, with everything that it started."""
    on_lost: str = key("leave", choice("leave", "rerun"))
    """When the node that runs it is lost: `leave` the run as lost, or let another node `rerun` that tick once more."""
    catch_up: CatchUp = key("latest", enum_of(CatchUp))
    """Ticks that no node could start: the `latest` is started late, or `none` is."""

    @property
    def schedule(self) -> Schedule:
        return Schedule(self.cron, self.zone)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestSettings:
    """A command that one node of the cluster runs for each request of a kind. The payload is its input."""

    name: str
    run: tuple[str, ...] = key(NO_DEFAULT, program)
    """A program and its arguments; no shell. It reads the request's payload from its standard input."""
    user: str | None = key(None, user_name)
    """The user that it runs as, with that user's groups only; the daemon must be root."""
    timeout_ms: int = key("10m", duration_ms)
    """When a run that has not ended is stopped, with everything that it started."""
    on_lost: str = key("leave", choice("leave", "rerun"))
    """When the node that runs it is lost: `leave` the request as lost, or let another node `rerun` it."""
    at_once: int = key(1, whole_number(1, 64, "is not a whole number from 1 to 64"))
    """How many requests of this kind this node runs at a time."""


def read_jobs(top: Table) -> dict[str, JobSettings]:
    found = {}
    for name, table in named_tables(top, "jobs"):
        before = len(top.reading.problems)
        job = JobSettings(name=name, **table.read(JobSettings))
        if len(top.reading.problems) > before:
            continue
        try:
            schedule_of(job.cron, job.zone)
        except BadCronLine as error:
            table.wrong("cron", str(error))
        if job.timeout_ms < 1:
            table.wrong("timeout", NO_TIME)
        found[name] = job
    return found


def read_requests(top: Table) -> dict[str, RequestSettings]:
    return read_named(top, "requests", RequestSettings, _check_request)


def _check_request(table: Table, row: dict[str, Any]) -> None:
    if row["timeout_ms"] < 1:
        table.wrong("timeout", NO_TIME)
