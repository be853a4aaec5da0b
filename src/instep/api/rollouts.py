"""Rollouts on the writer, and reloads without a generation."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from instep.api.command import Document, FilesetCommand, Role, command
from instep.api.parts import FailureDocument, GenerationDocument, WaitingDocument
from instep.errors import NotAllowedError, RefusedError, ResourceError, UnavailableError
from instep.model.ids import Count


class RolloutNodeDocument(Document, frozen=True):
    """Where a partner is in a rollout."""

    name: str
    state: str
    wave: int | None
    drained: bool
    reason: str | None


class RolloutDocument(Document, frozen=True):
    """How a generation goes, or went, through the partners; where each is now only while it is the present one."""

    generation: GenerationDocument
    replaced: GenerationDocument | None
    author: str
    message: str
    state: str
    paused: bool
    strategy: str
    started_at: str | None
    ended_at: str | None
    took_ms: int | None
    permitted: tuple[str, ...]
    failed: FailureDocument | None
    reason: str | UnsetType | None = UNSET
    nodes: tuple[RolloutNodeDocument, ...] | UnsetType = UNSET
    switched: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
    next: tuple[str, ...] | UnsetType = UNSET
    approved_by: str | UnsetType = UNSET


class RolloutsDocument(Document, frozen=True):
    """The present rollout, if there was one yet, and the past ones, newest first."""

    fileset: str
    rollout: RolloutDocument | None
    past: tuple[RolloutDocument, ...]


@command("rollout_show", Role.VIEWER, RefusedError, UnavailableError)
class RolloutShowCommand(FilesetCommand[RolloutsDocument], frozen=True):
    """The present rollout and the past ones; with ``watch`` an item for every change until the daemon stops."""

    watch: bool = False


class RolloutStateDocument(Document, frozen=True):
    """The state of a rollout after a command; in a dry run ``going_back`` are the nodes that it would put back.
    ``reason`` says what it waits for where one approval was not enough."""

    fileset: str
    changed: bool
    generation: GenerationDocument | None
    state: str
    paused: bool
    dry_run: bool | UnsetType = UNSET
    going_back: tuple[str, ...] | UnsetType = UNSET
    reason: str | UnsetType = UNSET


@command("rollout_pause", Role.OPERATOR, RefusedError, UnavailableError, ResourceError)
class RolloutPauseCommand(FilesetCommand[RolloutStateDocument], frozen=True):
    """Let no further partner begin; partners that began finish."""


@command("rollout_resume", Role.OPERATOR, RefusedError, UnavailableError, ResourceError)
class RolloutResumeCommand(FilesetCommand[RolloutStateDocument], frozen=True):
    """Go on with a paused rollout."""


@command("rollout_abort", Role.OPERATOR, RefusedError, UnavailableError, ResourceError)
class RolloutAbortCommand(FilesetCommand[RolloutStateDocument], frozen=True):
    """End the rollout; partners that switched go back, unless ``keep`` lets them stay. ``dry_run`` only names them."""

    keep: bool = False
    dry_run: bool = False


@command("rollout_confirm", Role.OPERATOR, RefusedError, UnavailableError, ResourceError)
class RolloutConfirmCommand(FilesetCommand[RolloutStateDocument], frozen=True):
    """Say in time that the generation is good, so that no partner goes back."""


@command("rollout_approve", Role.APPROVER, RefusedError, NotAllowedError, UnavailableError, ResourceError)
class RolloutApproveCommand(FilesetCommand[RolloutStateDocument], frozen=True):
    """Let the partners have a generation that waits for an approval; with ``generation`` only that one."""

    generation: Count | None = None


@command("rollout_retry", Role.OPERATOR, RefusedError, UnavailableError, ResourceError)
class RolloutRetryCommand(FilesetCommand[RolloutStateDocument], frozen=True):
    """Begin the failed rollout of the head anew; partners drop their refusals."""


class ReloadDocument(Document, frozen=True):
    """The nodes by how their reload went; an absent one reloads when it is back. ``without_hook``: this node has no
    reload hook, so nothing ran here."""

    fileset: str
    generation: GenerationDocument
    reloaded: tuple[str, ...]
    waiting_for: tuple[WaitingDocument, ...]
    failed: tuple[FailureDocument, ...]
    absent: tuple[str, ...]
    without_hook: bool | UnsetType = UNSET


@command("reload", Role.OPERATOR, RefusedError, UnavailableError, ResourceError)
class ReloadCommand(FilesetCommand[ReloadDocument], frozen=True):
    """Run the reload hooks of the writer, then of its direct partners: at once, or ``rolling`` a batch at a time."""

    rolling: bool = False
