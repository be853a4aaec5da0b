"""``edit``: a file that lives elsewhere, locked, opened in an editor as a copy, and submitted."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click
import msgspec

from instep.api.changes import locks as api
from instep.cli.changes.edited_copy import EditedCopy
from instep.cli.changes.locks import path_and_bytes, released_text
from instep.cli.output import say
from instep.cli.session import Session, command
from instep.errors import InstepError, UnavailableError, UsageError
from instep.model.counts import lasting
from instep.model.lock import LockEnd

EDIT_TTL_MS = 900_000
"""The time of the lock, which is given anew while the editor runs: for so long one of a killed command lasts."""
REFRESH_S = 300.0
_RELEASED_WITHIN_S = 10.0
_EDITOR_ENDS_WITHIN_S = 2.0
_ENDING = (signal.SIGTERM, signal.SIGHUP)
_EDITORS = (signal.SIGINT, signal.SIGQUIT)
"""A terminal sends them to this program, too; they are meant for the editor."""


@command("edit", example="instep edit catalog styles/roads.sld")
@click.argument("fileset")
@click.argument("path")
@click.option("-m", "--message", default="", help="Why it was changed, for the log.")
def edit(session: Session, fileset: str, path: str, message: str) -> None:
    """Lock a path, open a copy of it in $VISUAL or $EDITOR, submit it, release it.

    The copy is laid into the tree when the editor ends, also when it fails; then the lock is released. Exit code 6:
    the lock ended or the file was changed meanwhile; what you wrote stays in the file that is printed.
    """
    root = _root(session, fileset)
    shown, raw = path_and_bytes(path)
    client = f"edit {os.getpid()}"
    asking = api.LockCommand(
        path=shown, path_b64=raw, fileset=fileset, client=client, ttl_ms=EDIT_TTL_MS, reason="edited"
    )
    ending = api.UnlockCommand(path=shown, path_b64=raw, fileset=fileset, client=client, message=message)
    with _ended_by_signals():
        try:
            asking = msgspec.structs.replace(asking, token=session.call(asking).token)
            ending = msgspec.structs.replace(ending, token=asking.token)
            copy = EditedCopy(root, os.fsencode(path)).take()
        except BaseException as error:
            # A signal while the lock was asked for: the home may have granted it by now.
            if ending.token is not None or not isinstance(error, InstepError):
                _release(session, ending, error)
            raise
        try:
            code, done = _edited(session, asking, ending, copy)
        except BaseException as error:
            _keep_text(error, copy, f"instep edit {fileset} {shlex.quote(shown)}")
            raise
    copy.drop()
    if code != 0:
        raise UnavailableError(
            f"the editor ended with code {code}; {released_text(shown, done)}", code="editor_failed"
        )
    session.show(done, released_text(shown, done))


def _edited(
    session: Session, asking: api.LockCommand, ending: api.UnlockCommand, copy: EditedCopy
) -> tuple[int, api.UnlockDocument]:
    """The editor's exit code, and the end of the lock. The editor opens nothing of the tree itself: another node
    decides where its links lead. Nothing is written where the lock is not in force any more."""
    try:
        code = _run_editor(session, asking, copy)
        if copy.is_edited:
            ending = msgspec.structs.replace(ending, token=_token_in_force(session, asking))
            copy.lay()
    except BaseException as error:
        _release(session, ending, error)
        raise
    return code, session.call(ending)


def _token_in_force(session: Session, asking: api.LockCommand) -> str | None:
    """The token, once more for the whole time. A lock that only lapsed, as while the machine slept, is asked for anew:
    another person's is a refusal, and the file is compared before anything is written."""
    try:
        return session.call(asking).token
    except InstepError as error:
        if error.error_code != "lock_gone" or error.facts.get("why") != LockEnd.LAPSED.value:
            raise
    return session.call(msgspec.structs.replace(asking, token=None)).token


@contextlib.contextmanager
def _ended_by_signals() -> Iterator[None]:
    """The first SIGTERM or SIGHUP ends the command as an error does: what it holds is released. A caller that ignores
    one of them, as ``nohup`` does, is not changed in that."""
    before = {each: signal.getsignal(each) for each in _ENDING if signal.getsignal(each) != signal.SIG_IGN}

    def end(number: int, _: FrameType | None) -> None:
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        raise SystemExit(128 + number)

    try:
        for each in before:
            signal.signal(each, end)
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


@contextlib.contextmanager
def _left_to_the_editor() -> Iterator[None]:
    before = {each: signal.signal(each, lambda *_: None) for each in _EDITORS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)


def _run_editor(session: Session, asking: api.LockCommand, copy: EditedCopy) -> int:
    """Its exit code. The lock gets its whole time again meanwhile. An editor that outlives this one keeps its file."""
    words = _editor()
    with _left_to_the_editor():
        try:
            running = subprocess.Popen([*words, str(copy.file)])
        except OSError as error:
            raise UsageError(
                f"the editor {words[0]} cannot be started: {error.strerror}",
                hint="export EDITOR=vi",
                code="no_editor",
            ) from error
        try:
            return _waited(session, asking, running)
        except BaseException:
            running.terminate()
            try:
                running.wait(_EDITOR_ENDS_WITHIN_S)
            except subprocess.TimeoutExpired:
                copy.is_open = True
            raise


def _waited(session: Session, asking: api.LockCommand, running: subprocess.Popen[bytes]) -> int:
    while True:
        try:
            return running.wait(REFRESH_S)
        except subprocess.TimeoutExpired:
            try:
                session.call(asking)
            except InstepError as error:
                say(f"instep: {error.reason}; what you save in the editor is kept")


def _release(session: Session, ending: api.UnlockCommand, cause: BaseException) -> None:
    """Behind another error, which is the one to show: a lock that cannot be released ends by its time."""
    try:
        session.control.ask(ending, timeout_s=_RELEASED_WITHIN_S)
    except InstepError as error:
        if error.error_code in ("lock_gone", "no_lock"):
            return
        by_hand = (
            f"instep lock release {ending.fileset} {shlex.quote(ending.path)} --client '{ending.client}'"
        )
        _say(
            f"the lock was not released: {error.reason}; it ends in {lasting(EDIT_TTL_MS)}, at once by: {by_hand}"
        )
    else:
        if isinstance(cause, SystemExit):
            _say(
                f"ended by {signal.Signals(int(cause.code or 0) - 128).name}; {ending.path} is unlocked again"
            )


def _say(text: str) -> None:
    """A terminal that is gone reads nothing, and keeps nothing from being done."""
    with contextlib.suppress(OSError):
        say(f"instep: {text}")


def _keep_text(error: BaseException, copy: EditedCopy, again: str) -> None:
    """Let the error name the place of what the person wrote."""
    try:
        is_needed = copy.is_needed
    except OSError:
        is_needed = True
    if not is_needed:
        copy.drop()
        return
    said = f"what you wrote is kept in {copy.keep()}"
    if not isinstance(error, InstepError):
        _say(said)
        return
    error.reason = f"{error.reason}; {said}"
    error.facts["kept"] = str(copy.file)
    if error.hint is None:
        error.hint = again


def _editor() -> list[str]:
    """The words of $VISUAL or $EDITOR, without a shell."""
    for name in ("VISUAL", "EDITOR"):
        try:
            words = shlex.split(os.environ.get(name, ""))
        except ValueError as error:
            raise UsageError(
                f"${name} cannot be read: {error}", hint=f"export {name}=vi", code="no_editor"
            ) from error
        if words:
            return words
    return ["vi"]


def _root(session: Session, fileset: str) -> Path:
    from instep.node.lines.snapshot import pick_fileset

    return pick_fileset(session.settings(), fileset).path
