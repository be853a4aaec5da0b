"""Jobs and requests: what one node of the cluster runs, and how it went."""

from __future__ import annotations

from typing import Annotated

import msgspec

from instep.api.command import Command, Document, Message, Role, command
from instep.errors import (
    ConfigError,
    ContentionError,
    DamagedError,
    NotAllowedError,
    RefusedError,
    ResourceError,
    UnavailableError,
)

WorkName = Annotated[str, msgspec.Meta(max_length=63)]
Payload = Annotated[str, msgspec.Meta(max_length=64 << 10)]
RunCount = Annotated[int, msgspec.Meta(ge=1, le=2_000)]
DATABASE_ERRORS = (
    ConfigError, RefusedError, NotAllowedError, ContentionError, UnavailableError, ResourceError, DamagedError,
)  # fmt: skip
"""What a command may end with that asks the cluster's database."""


class RunDocument(Document, frozen=True):
    """One run: ``waiting``, ``running``, ``done``, ``failed``, ``timed_out``, ``stopped`` or ``lost``. The key of a
    tick is its UTC second. ``output`` is the end of what the program printed."""

    key: str
    attempt: int
    state: str
    node: str | None
    due_at: str
    started_at: str | None
    ended_at: str | None
    exit_code: int | None
    reason: str | None
    output: str
    asked_by: str | None


class JobDocument(Document, frozen=True):
    """A job with the nodes that have it in their settings. ``differs_from`` names the node whose settings count where
    this node has others, and does not start it. Without ``run`` this node does not have it."""

    name: str
    cron: str
    zone: str
    run: tuple[str, ...]
    timeout_ms: int
    on_lost: str
    catch_up: str
    nodes: tuple[str, ...]
    differs_from: str | None
    next: str | None
    last: RunDocument | None


class JobsDocument(Document, frozen=True):
    """All jobs of the cluster, by name. ``resting`` says why this node starts nothing now."""

    jobs: tuple[JobDocument, ...]
    resting: str | None


@command("job_list", Role.VIEWER, *DATABASE_ERRORS)
class JobListCommand(Command[JobsDocument], frozen=True):
    """The jobs of the cluster, each with its last run and the next tick."""


class JobRunsDocument(Document, frozen=True):
    """A job with its newest runs, newest first; ``missed`` are the ticks between them that no node started."""

    job: JobDocument
    runs: tuple[RunDocument, ...]
    missed: tuple[str, ...]


@command("job_show", Role.VIEWER, *DATABASE_ERRORS)
class JobShowCommand(Command[JobRunsDocument], frozen=True):
    """The newest runs of a job, with their output."""

    name: WorkName
    last: RunCount = 20


class JobRunDocument(Document, frozen=True):
    """A run beside the ticks, as it stood when the answer was given."""

    name: str
    run: RunDocument


@command("job_run", Role.OPERATOR, *DATABASE_ERRORS)
class JobRunCommand(Command[JobRunDocument], frozen=True):
    """Let one node run a job now; with ``wait`` until it has ended."""

    name: WorkName
    by: str = ""
    wait: bool = False


class RequestDocument(Document, frozen=True):
    """A request and its newest attempt."""

    kind: str
    payload: str
    run: RunDocument


class RequestsDocument(Document, frozen=True):
    """Requests, newest first. ``takers`` are the kinds that this node runs."""

    requests: tuple[RequestDocument, ...]
    takers: tuple[str, ...]


@command("request_add", Role.OPERATOR, *DATABASE_ERRORS)
class RequestAddCommand(Command[RequestDocument], frozen=True):
    """Put up a request, which one node takes; with ``wait`` until it has ended. An ``id`` that is there already adds
    nothing."""

    kind: WorkName
    payload: Payload
    id: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    by: str = ""
    wait: bool = False


@command("request_list", Role.VIEWER, *DATABASE_ERRORS)
class RequestListCommand(Command[RequestsDocument], frozen=True):
    """The newest requests, of one kind or of all."""

    kind: WorkName | None = None
    last: RunCount = 50


class MaintenanceDocument(Document, frozen=True):
    """What maintenance holds back: this node, or all. ``in_flight`` is what had begun before and still runs here."""

    node: str
    changed: bool
    on: bool
    cluster: bool
    in_flight: tuple[str, ...]


@command("maintenance", Role.OPERATOR, *DATABASE_ERRORS)
class MaintenanceCommand(Command[MaintenanceDocument], frozen=True):
    """Begin or end the maintenance of this node, or of the cluster; with ``wait`` until nothing runs here."""

    on: bool
    cluster: bool = False
    reason: Message = ""
    wait: bool = False
