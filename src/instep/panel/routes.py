"""The route table of the REST API: from it come the routes, the OpenAPI document, the reference page and role checks.

A command is either in ``ROUTES`` or in ``NOT_OVER_HTTP`` with the reason. Its role is the command's own: there is no
route without one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from instep.api import access, archive, filesets, lines, looking, members, rollouts, verifying
from instep.api.changes import collisions, locks, offers, sync
from instep.api.command import Command
from instep.api.shared_parts import jobs, leases, seats

BASE = "/api/v1"
_PARAMETER = re.compile(r"{(\w+)}")


@dataclass(frozen=True, slots=True)
class Route:
    """A command at a path. ``own`` are parameters that the path alone sets, and ``fixed`` ones have one value.
    ``paged`` names the list of the result that ``limit`` and ``cursor`` cut into pages. ``seen`` is the command whose
    answer ``If-Match`` must still be the present one."""

    method: str
    path: str
    kind: type[Command[Any]]
    fixed: Mapping[str, Any] = field(default_factory=dict)
    hidden: frozenset[str] = frozenset()
    paged: str | None = None
    seen: type[Command[Any]] | None = None
    answers_secret: bool = False
    """The answer is shown once and kept nowhere: a repeated ``Idempotency-Key`` does nothing, and is refused."""

    @property
    def full_path(self) -> str:
        return BASE + self.path

    @property
    def in_path(self) -> tuple[str, ...]:
        """The parameters that stand in the path."""
        return tuple(_PARAMETER.findall(self.path))

    @property
    def parameters(self) -> tuple[msgspec.structs.FieldInfo, ...]:
        """The parameters that a caller may give beside those of the path."""
        closed = {*self.in_path, *self.fixed, *self.hidden}
        return tuple(one for one in msgspec.structs.fields(self.kind) if one.encode_name not in closed)

    @property
    def form(self) -> re.Pattern[str]:
        """Matches a whole path. A parameter is one segment, with everything that a name may hold encoded."""
        return re.compile(
            _PARAMETER.sub(
                r"(?P<\1>[^/]+)", re.escape(self.full_path).replace(r"\{", "{").replace(r"\}", "}")
            )
        )


_FILESET = "/filesets/{fileset}"
_NO_WATCH = frozenset({"watch"})
_NO_AUTHOR = frozenset({"author"})
_NO_BY = frozenset({"by"})
_ONE_NAME = frozenset({"name"})

ROUTES: tuple[Route, ...] = (
    Route("GET", "/ping", looking.PingCommand),
    Route("GET", "/status", looking.StatusCommand, hidden=frozenset({"watch", "fileset"})),
    Route("GET", "/check", verifying.CheckCommand),
    Route("GET", "/filesets", filesets.FilesetListCommand),
    Route("GET", _FILESET, filesets.FilesetShowCommand, hidden=_ONE_NAME),
    Route("GET", f"{_FILESET}/status", looking.StatusCommand, hidden=_NO_WATCH),
    Route("GET", f"{_FILESET}/log", looking.LogCommand, paged="generations"),
    Route("GET", f"{_FILESET}/path-log", looking.PathLogCommand, paged="generations"),
    Route("GET", f"{_FILESET}/diff", looking.DiffCommand, paged="changes"),
    Route("GET", f"{_FILESET}/text-diff", looking.TextDiffCommand),
    Route("GET", f"{_FILESET}/explain", looking.ExplainCommand),
    Route("GET", "/explain-table", looking.ExplainTableCommand, hidden=frozenset({"fileset"})),
    Route("POST", f"{_FILESET}/verify", verifying.VerifyCommand),
    Route("POST", f"{_FILESET}/test", verifying.TestCommand),
    Route("POST", f"{_FILESET}/publish", lines.PublishCommand, hidden=_NO_AUTHOR, seen=looking.DiffCommand),
    Route("POST", f"{_FILESET}/wait", lines.WaitCommand),
    Route("POST", f"{_FILESET}/rollback", lines.RollbackCommand),
    Route("POST", f"{_FILESET}/restore", lines.RestoreCommand),
    Route("POST", f"{_FILESET}/retry", lines.RetryCommand),
    Route("POST", f"{_FILESET}/pause", lines.PauseCommand),
    Route("POST", f"{_FILESET}/resume", lines.ResumeCommand),
    Route("POST", f"{_FILESET}/reload", rollouts.ReloadCommand),
    Route("GET", f"{_FILESET}/rollout", rollouts.RolloutShowCommand, hidden=_NO_WATCH),
    Route("POST", f"{_FILESET}/rollout/pause", rollouts.RolloutPauseCommand, seen=rollouts.RolloutShowCommand),
    Route("POST", f"{_FILESET}/rollout/resume", rollouts.RolloutResumeCommand, seen=rollouts.RolloutShowCommand),
    Route("POST", f"{_FILESET}/rollout/abort", rollouts.RolloutAbortCommand, seen=rollouts.RolloutShowCommand),
    Route("POST", f"{_FILESET}/rollout/confirm", rollouts.RolloutConfirmCommand, seen=rollouts.RolloutShowCommand),
    Route("POST", f"{_FILESET}/rollout/approve", rollouts.RolloutApproveCommand, seen=rollouts.RolloutShowCommand),
    Route("POST", f"{_FILESET}/rollout/retry", rollouts.RolloutRetryCommand, seen=rollouts.RolloutShowCommand),
    Route("GET", f"{_FILESET}/archive", archive.ArchiveListCommand, paged="items"),
    Route("POST", f"{_FILESET}/archive/restore", archive.ArchiveRestoreCommand),
    Route("POST", f"{_FILESET}/archive/prune", archive.ArchivePruneCommand),
    Route("GET", f"{_FILESET}/locks", locks.LocksCommand),
    Route("POST", f"{_FILESET}/lock", locks.LockCommand),
    Route("POST", f"{_FILESET}/unlock", locks.UnlockCommand),
    Route("POST", f"{_FILESET}/break-lock", locks.BreakLockCommand),
    Route("GET", f"{_FILESET}/offers", offers.OffersCommand),
    Route("POST", f"{_FILESET}/removals", offers.JudgeRemovalsCommand),
    Route("GET", "/nodes", members.NodeListCommand, paged="nodes"),
    Route("GET", "/nodes/{node}/facts", members.NodeFactsCommand),
    Route("POST", "/nodes/{node}/drain", members.DrainCommand),
    Route("POST", "/nodes/{node}/undrain", members.UndrainCommand),
    Route("GET", "/map", members.NodeMapCommand),
    Route("GET", "/leases", leases.LeaseListCommand, paged="leases"),
    Route("POST", "/leases/{name}/break", leases.LeaseBreakCommand),
    Route("GET", "/jobs", jobs.JobListCommand),
    Route("GET", "/jobs/{name}", jobs.JobShowCommand),
    Route("POST", "/jobs/{name}/run", jobs.JobRunCommand, hidden=_NO_BY),
    Route("GET", "/requests", jobs.RequestListCommand),
    Route("POST", "/requests/{kind}", jobs.RequestAddCommand, hidden=_NO_BY),
    Route("GET", "/seats", seats.SeatListCommand),
    Route("POST", "/seats/{pool}/{user}", seats.SeatAcquireCommand),
    Route("DELETE", "/seats/{pool}/{user}", seats.SeatReleaseCommand, hidden=frozenset({"all"})),
    Route("POST", "/maintenance", jobs.MaintenanceCommand),
    Route("POST", "/readonly", members.ReadOnlyCommand),
    Route("GET", "/sync", sync.SyncListCommand, paged="profiles"),
    Route("GET", "/sync/{profile}", sync.SyncShowCommand),
    Route("POST", "/sync/{profile}/run", sync.SyncRunCommand, hidden=_NO_AUTHOR),
    Route("POST", "/sync/{profile}/cancel", sync.SyncCancelCommand),
    Route("POST", "/sync/{profile}/collisions", sync.SyncCollisionsCommand),
    Route("GET", "/collisions", collisions.CollisionsListCommand, paged="collisions"),
    Route("GET", "/collisions/{id}", collisions.CollisionsShowCommand),
    Route("POST", "/collisions/{id}/reviewed", collisions.CollisionsReviewedCommand),
    Route("GET", "/partners", members.PartnerListCommand, paged="partners"),
    Route("POST", "/partners/{name}/poll", members.PartnerPollCommand),
    Route("POST", "/partners/{name}/resend", members.PartnerResendCommand),
    Route("POST", "/invitations", members.InviteCommand, hidden=frozenset({"from"}), answers_secret=True),
    Route("POST", "/config/reload", filesets.ReloadConfigCommand),
    Route("GET", "/users", access.UserListCommand, paged="users"),
    Route("PUT", "/users/{name}", access.UserAddCommand),
    Route("PUT", "/users/{name}/password", access.UserPasswordCommand),
    Route("DELETE", "/users/{name}", access.UserRemoveCommand),
    Route("GET", "/tokens", access.TokenListCommand, paged="tokens"),
    Route("POST", "/tokens/{name}", access.TokenCreateCommand, answers_secret=True),
    Route("DELETE", "/tokens/{name}", access.TokenRevokeCommand),
    Route("GET", "/sessions", access.SessionListCommand, paged="sessions"),
    Route("DELETE", "/sessions/{id}", access.SessionEndCommand, hidden=frozenset({"user"})),
    Route("GET", "/certificates", access.CertificateListCommand),
    Route("GET", "/audit", access.AuditCommand),
)  # fmt: skip

NOT_OVER_HTTP: Mapping[str, str] = {
    "balancer_reload": "writes files that this machine's balancer reads",
    "balancer_render": "shows files of this machine's balancer",
    "debug_record": "writes files into the node directory",
    "events": "has a route of its own, /api/v1/events, with a stream that resumes",
    "export_git": "writes into a directory of the caller's choice",
    "fileset_accept": "names a directory of this machine",
    "fileset_adopt": "names a directory of this machine",
    "fileset_check": "names a directory of this machine",
    "fileset_forget_line": "takes files out of a tree for good: at the command line",
    "fileset_offers": "answers the command line while it accepts a fileset",
    "handover": "changes the writer: at the command line",
    "lease_check": "belongs to a program on this machine that runs under a lease",
    "lease_guard": "belongs to a program on this machine that runs under a lease",
    "lease_hold": "belongs to a program on this machine that runs under a lease",
    "lease_release": "belongs to a program on this machine that runs under a lease",
    "node_remove": "takes a node out for good: at the command line",
    "panel_login": "signs in, and a caller over HTTP has signed in already",
    "partner_add": "pins a key that a person compares by eye",
    "promote": "changes the writer: at the command line",
    "renew": "renews certificates: at the command line",
    "revoke": "takes a node's certificates: at the command line",
    "standby_fence": "belongs to a program on this machine that runs as a standby",
    "stop": "ends the daemon, and so its own answer",
}
"""Commands without a route, and why."""
