"""Forms: each gives one command, and shows its outcome or the page where its effect is seen."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from instep.api.access import (
    SessionEndCommand,
    TokenCreateCommand,
    TokenRevokeCommand,
    UserAddCommand,
    UserRemoveCommand,
)
from instep.api.archive import ArchiveRestoreCommand
from instep.api.command import Role
from instep.api.lines import (
    OutcomeDocument,
    PauseCommand,
    PublishCommand,
    ResumeCommand,
    RetryCommand,
    RollbackCommand,
)
from instep.api.members import DrainCommand, PartnerResendCommand, UndrainCommand
from instep.api.rollouts import (
    ReloadCommand,
    RolloutAbortCommand,
    RolloutApproveCommand,
    RolloutConfirmCommand,
    RolloutPauseCommand,
    RolloutResumeCommand,
    RolloutRetryCommand,
)
from instep.api.verifying import VerifyCommand
from instep.errors import UsageError
from instep.panel.pages.visit import Page, Visit

Act = Callable[[Visit], Awaitable[Page | str]]
MINUTE_S = 60
DAY_S = 86_400
ACT_S = 120.0


def _result(title: str, told: str, back: str, **more: object) -> Page:
    return Page("result.html", title, {"told": told, "back": back, "secret": None, "facts": (), **more})


def _outcome(title: str, told: OutcomeDocument, back: str) -> Page:
    number = f"generation {told.generation.number}" if told.generation is not None else "no generation yet"
    is_dry = told.dry_run is True
    words = f"Nothing would change: {number} stands." if is_dry else f"Nothing changed: {number} stands."
    if told.changed:
        words = "This is what it would do; nothing was changed." if is_dry else f"It is {number} now."
    facts = [
        ("added", told.added), ("changed", told.changed_paths), ("removed", told.removed), ("bytes", told.bytes),
        ("held", told.held_total or 0),
    ]  # fmt: skip
    return _result(title, words, back, facts=facts)


# Of a fileset -------------------------------------------------------------------------------------------


async def publish(visit: Visit) -> Page:
    asked = PublishCommand(
        visit.found["fileset"], message=visit.field("message"), dry_run=visit.has("dry_run"),
        accept_deletions=visit.has("accept_deletions"), timeout_s=ACT_S,
    )  # fmt: skip
    return _outcome("Publish", await visit.ask(asked), visit.base)


async def rollback(visit: Visit) -> Page:
    """A paused fileset is resumed first where the form says so: asked once, done both."""
    name, reason, number = visit.found["fileset"], visit.field("message"), visit.number("generation")
    if not reason or number is None:
        raise UsageError("a generation and a reason are needed", code="bad_parameter")
    if visit.has("resume"):
        await visit.ask(ResumeCommand(name))
    asked = RollbackCommand(
        number, name, message=reason, accept_deletions=visit.has("accept_deletions"), timeout_s=ACT_S
    )
    return _outcome("Go back", await visit.ask(asked), visit.base)


async def pause(visit: Visit) -> str:
    minutes = visit.number("minutes")
    for_s = None if minutes is None else float(minutes * MINUTE_S)
    await visit.ask(PauseCommand(visit.found["fileset"], for_s=for_s, reason=visit.field("reason") or None))
    return visit.base


async def resume(visit: Visit) -> str:
    await visit.ask(ResumeCommand(visit.found["fileset"]))
    return visit.base


async def retry(visit: Visit) -> Page:
    told = await visit.ask(RetryCommand(visit.found["fileset"]))
    words = "It is tried again." if told.changed else f"Nothing to retry: {told.why or 'nothing had failed'}."
    return _result("Retry", words, visit.base)


async def reload(visit: Visit) -> Page:
    told = await visit.ask(ReloadCommand(visit.found["fileset"], timeout_s=ACT_S))
    facts = [
        ("reloaded", ", ".join(told.reloaded) or "none"),
        ("failed", ", ".join(f"{one.node}: {one.reason}" for one in told.failed) or "none"),
        ("absent", ", ".join(told.absent) or "none"),
    ]
    return _result("Reload", "The reload hooks ran.", visit.base, facts=facts)


async def verify(visit: Visit) -> Page:
    told = await visit.ask(VerifyCommand(visit.found["fileset"], fleet=True, timeout_s=ACT_S))
    facts = [
        (one.name, one.reason or ("as published" if not one.differing else f"{one.differing} paths differ"))
        for one in told.nodes
    ]
    words = "All trees are as published." if told.identical else "Not all trees are as published."
    return _result("Verify", words, visit.base, facts=facts)


async def archive_restore(visit: Visit) -> Page:
    asked = ArchiveRestoreCommand(
        visit.field("to"),
        visit.found["fileset"],
        path=visit.field("path"),
        generation=visit.number("generation"),
        set_aside=visit.has("set_aside"),
    )
    told = await visit.ask(asked)
    return _result("Restore", f"{told.path} lies in {told.to}.", f"{visit.base}/archive")


async def rollout_pause(visit: Visit) -> str:
    await visit.ask(RolloutPauseCommand(visit.found["fileset"]))
    return f"{visit.base}/rollout"


async def rollout_resume(visit: Visit) -> str:
    await visit.ask(RolloutResumeCommand(visit.found["fileset"]))
    return f"{visit.base}/rollout"


async def rollout_abort(visit: Visit) -> str:
    await visit.ask(RolloutAbortCommand(visit.found["fileset"]))
    return f"{visit.base}/rollout"


async def rollout_confirm(visit: Visit) -> str:
    await visit.ask(RolloutConfirmCommand(visit.found["fileset"]))
    return f"{visit.base}/rollout"


async def rollout_approve(visit: Visit) -> str:
    """Of the generation that the page showed."""
    number = visit.number("generation")
    if number is None:
        raise UsageError("a generation is needed", code="bad_parameter")
    await visit.ask(RolloutApproveCommand(visit.found["fileset"], generation=number))
    return f"{visit.base}/rollout"


async def rollout_retry(visit: Visit) -> str:
    await visit.ask(RolloutRetryCommand(visit.found["fileset"]))
    return f"{visit.base}/rollout"


OF_FILESET: dict[str, Act] = {
    "publish": publish, "rollback": rollback, "pause": pause, "resume": resume, "retry": retry, "reload": reload,
    "verify": verify, "archive-restore": archive_restore, "rollout-pause": rollout_pause,
    "rollout-resume": rollout_resume, "rollout-abort": rollout_abort, "rollout-confirm": rollout_confirm,
    "rollout-approve": rollout_approve, "rollout-retry": rollout_retry,
}  # fmt: skip
"""By the last part of the path of a fileset."""


# Of nodes and access ------------------------------------------------------------------------------------


async def drain(visit: Visit) -> str:
    minutes = visit.number("minutes")
    for_s = None if minutes is None else float(minutes * MINUTE_S)
    await visit.ask(DrainCommand(_node(visit), for_s, visit.field("reason") or None))
    return "/nodes"


async def undrain(visit: Visit) -> str:
    await visit.ask(UndrainCommand(_node(visit)))
    return "/nodes"


def _node(visit: Visit) -> str | None:
    """None means this node itself."""
    name = visit.field("name")
    return None if name == visit.node else name


async def resend(visit: Visit) -> Page:
    told = await visit.ask(PartnerResendCommand(visit.field("name")))
    return _result("Send again", f"{told.heads} heads were announced to {told.name}.", "/nodes")


def _filesets(visit: Visit) -> tuple[str, ...] | None:
    return tuple(visit.field("filesets").split()) or None


def _role(visit: Visit) -> Role:
    try:
        return Role(visit.field("role"))
    except ValueError:
        raise UsageError("there is no such role", code="bad_parameter") from None


async def user_add(visit: Visit) -> str:
    password = visit.form.get("password", [""])[-1]
    await visit.ask(
        UserAddCommand(
            name=visit.field("name"), password=password, given=_role(visit), filesets=_filesets(visit)
        )
    )
    return "/access"


async def user_remove(visit: Visit) -> str:
    await visit.ask(UserRemoveCommand(name=visit.field("name")))
    return "/access"


async def token_create(visit: Visit) -> Page:
    days = visit.number("days")
    told = await visit.ask(
        TokenCreateCommand(
            name=visit.field("name"), given=_role(visit), filesets=_filesets(visit),
            ttl_s=None if days is None else float(days * DAY_S),
        )
    )  # fmt: skip
    return _result("A new token", f"The token {told.name} is made.", "/access", secret=told.token)


async def token_revoke(visit: Visit) -> str:
    await visit.ask(TokenRevokeCommand(name=visit.field("name")))
    return "/access"


async def session_end(visit: Visit) -> str:
    wanted = visit.field("id")
    if not wanted:
        raise UsageError("a session is needed", code="bad_parameter")
    await visit.ask(SessionEndCommand(id=wanted))
    return "/access"


OTHERS: dict[str, Act] = {
    "/nodes/drain": drain, "/nodes/undrain": undrain, "/partners/resend": resend,
    "/access/user-add": user_add, "/access/user-remove": user_remove, "/access/token-create": token_create,
    "/access/token-revoke": token_revoke, "/access/session-end": session_end,
}  # fmt: skip
"""By path."""
